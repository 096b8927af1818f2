"""What a declined card means for the next try.

The codes are all of Stripe's card decline codes (https://docs.stripe.com/declines/codes, read in
September 2026, 50 codes) and two more it documents elsewhere, named below. The classes are ours.
``HARD`` holds Stripe's own "hard decline codes", which it never retries itself
(https://docs.stripe.com/billing/revenue-recovery/smart-retries), but for the two that the client
can mend; and the refusals by which a bank, a cardholder or Stripe's risk checks rule the card out
rather than this one payment.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class DeclineClass(StrEnum):
    """What can make the next try succeed."""

    # Time: the same card may be charged later.
    SOFT = "soft"
    # Nothing: this card must not be charged again.
    HARD = "hard"
    # The client, by authenticating.
    NEEDS_AUTHENTICATION = "needs_authentication"
    # The client, by another card or by entering this one's details again.
    NEEDS_NEW_CARD = "needs_new_card"


_CODES_BY_CLASS = {
    DeclineClass.SOFT: """
        approve_with_id call_issuer card_velocity_exceeded do_not_honor duplicate_transaction
        generic_decline insufficient_funds invalid_amount issuer_not_available no_action_taken
        processing_error reenter_transaction try_again_later withdrawal_count_limit_exceeded
    """,
    # highest_risk_level is only on the list of hard decline codes.
    DeclineClass.HARD: """
        do_not_try_again fraudulent highest_risk_level lost_card merchant_blacklist not_permitted
        pickup_card restricted_card revocation_of_all_authorizations revocation_of_authorization
        security_violation service_not_allowed stolen_card stop_payment_order
        transaction_not_allowed
    """,
    # payment_intent_authentication_failure is an error code, without a decline code beside it:
    # the client failed the authentication, and may try it again.
    DeclineClass.NEEDS_AUTHENTICATION: """
        authentication_not_handled authentication_required mobile_device_authentication_required
        payment_intent_authentication_failure
    """,
    # Also the codes about a PIN, which nobody can type here.
    DeclineClass.NEEDS_NEW_CARD: """
        card_not_supported currency_not_supported expired_card incorrect_address incorrect_cvc
        incorrect_number incorrect_pin incorrect_zip invalid_account invalid_cvc
        invalid_expiry_month invalid_expiry_year invalid_number invalid_pin
        new_account_information_available offline_pin_required online_or_offline_pin_required
        pin_try_exceeded testmode_decline
    """,
}

DECLINES: Mapping[str, DeclineClass] = MappingProxyType(
    {code: kind for kind, codes in _CODES_BY_CLASS.items() for code in codes.split()}
)
"""Stripe's code to what it means."""

STOPS_AUTOMATIC_TRIES = frozenset({DeclineClass.HARD, DeclineClass.NEEDS_NEW_CARD})
"""No automatic try is made on that card again, whoever made the one that was declined."""

MENDED_BY_AN_UPDATE = frozenset(
    {
        "expired_card",
        "incorrect_number",
        "invalid_expiry_month",
        "invalid_expiry_year",
        "invalid_number",
        "new_account_information_available",
    }
)
"""The codes after which the same card is good again once it has a new expiry or number."""


def decline_class(decline_code: str | None, error_code: str | None = None) -> DeclineClass:
    """The class of a card error, by its decline code, else by its error code.

    Where neither is in the table the class is ``SOFT``. Stripe adds codes, and ``card_declined``
    alone says nothing: giving up on a good card leaves an invoice unpaid, while the schedule
    bounds what a bad one costs.
    """
    for code in (decline_code, error_code):
        if code is not None and code in DECLINES:
            return DECLINES[code]
    return DeclineClass.SOFT
