"""What a declined card, or a bank debit that was returned, means for the next try.

The codes are all of Stripe's card decline codes (https://docs.stripe.com/declines/codes, read in
September 2026, 50 codes), two more it documents elsewhere, and those that it gives returned debits
of bank accounts. Each row names its page. The classes are ours.
``HARD`` holds Stripe's own "hard decline codes", which it never retries itself
(https://docs.stripe.com/billing/revenue-recovery/smart-retries), but for the two that the client
can mend; and the refusals by which a bank, a cardholder or Stripe's risk checks rule the card out
rather than this one payment. A bank account that must not be debited again until somebody has
looked into it is like such a card: the networks' rules allow only what was returned for want of
funds to be tried again as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class DeclineClass(StrEnum):
    """What can make the next try succeed."""

    # Time: the same card may be charged later.
    SOFT = "soft"
    # Nothing: this card, or account, must not be charged again.
    HARD = "hard"
    # The client, by authenticating.
    NEEDS_AUTHENTICATION = "needs_authentication"
    # The client, by another card or account or by entering this one's details again.
    NEEDS_NEW_CARD = "needs_new_card"


_DOCS = "https://docs.stripe.com"
_DECLINES = f"{_DOCS}/declines/codes"
_SMART_RETRIES = f"{_DOCS}/billing/revenue-recovery/smart-retries"
_ERRORS = f"{_DOCS}/error-codes"
_NETWORK_CODES = f"{_DOCS}/declines/network-codes"
_BLOCKED_ACCOUNTS = f"{_DOCS}/payments/ach-direct-debit/blocked-bank-accounts"
_MANDATES = f"{_DOCS}/api/mandates/object"
_PAYOUT_FAILURES = f"{_DOCS}/api/payouts/failures"


@dataclass(frozen=True, slots=True)
class Decline:
    """One row of the table: a code of Stripe's, and what it means for the next try.

    ``of`` is what bears the code: a card, a bank debit, or either. ``why`` is what the code says, in
    our words, as the reason for its class; ``source`` where Stripe documents it.
    """

    code: str
    kind: DeclineClass
    of: str
    why: str
    source: str


_CARD, _BANK, _EITHER = "card", "bank debit", "card, bank debit"

# By class, and there by code; of bank debits last.
DECLINES_TABLE = (
    Decline(
        "approve_with_id",
        DeclineClass.SOFT,
        _CARD,
        "the payment could not be authorized; Stripe says to try again",
        _DECLINES,
    ),
    Decline("call_issuer", DeclineClass.SOFT, _CARD, "the bank does not say why", _DECLINES),
    Decline(
        "card_velocity_exceeded",
        DeclineClass.SOFT,
        _CARD,
        "over the balance, the limit or the number of payments of these days",
        _DECLINES,
    ),
    Decline("do_not_honor", DeclineClass.SOFT, _CARD, "the bank does not say why", _DECLINES),
    Decline(
        "duplicate_transaction",
        DeclineClass.SOFT,
        _CARD,
        "the bank saw the same amount just before; days later it does not",
        _DECLINES,
    ),
    Decline(
        "generic_decline",
        DeclineClass.SOFT,
        _CARD,
        "the bank does not say why, or Stripe's risk checks did not let it pass",
        _DECLINES,
    ),
    Decline(
        "insufficient_funds",
        DeclineClass.SOFT,
        _EITHER,
        "there is too little money on it today",
        _DECLINES,
    ),
    Decline(
        "invalid_amount",
        DeclineClass.SOFT,
        _CARD,
        "more than is allowed now; a limit of a period passes",
        _DECLINES,
    ),
    Decline(
        "issuer_not_available", DeclineClass.SOFT, _CARD, "the bank was not reached", _DECLINES
    ),
    Decline("no_action_taken", DeclineClass.SOFT, _CARD, "the bank does not say why", _DECLINES),
    Decline("processing_error", DeclineClass.SOFT, _CARD, "something failed on the way", _DECLINES),
    Decline(
        "reenter_transaction",
        DeclineClass.SOFT,
        _CARD,
        "the bank could not process it and wants it again",
        _DECLINES,
    ),
    Decline("try_again_later", DeclineClass.SOFT, _CARD, "the bank says so", _DECLINES),
    Decline(
        "withdrawal_count_limit_exceeded",
        DeclineClass.SOFT,
        _CARD,
        "over the balance or the limit of these days",
        _DECLINES,
    ),
    Decline(
        "could_not_process",
        DeclineClass.SOFT,
        _BANK,
        "the bank could not process it, and does not say why",
        _MANDATES,
    ),
    Decline("do_not_try_again", DeclineClass.HARD, _CARD, "the bank says so", _DECLINES),
    Decline("fraudulent", DeclineClass.HARD, _CARD, "Stripe suspects fraud", _DECLINES),
    Decline(
        "highest_risk_level",
        DeclineClass.HARD,
        _CARD,
        "Stripe's risk checks blocked it; Stripe never retries it",
        _SMART_RETRIES,
    ),
    Decline("lost_card", DeclineClass.HARD, _CARD, "the card is reported lost", _DECLINES),
    Decline(
        "merchant_blacklist",
        DeclineClass.HARD,
        _CARD,
        "the card is on the account's own block list",
        _DECLINES,
    ),
    Decline(
        "not_permitted",
        DeclineClass.HARD,
        _CARD,
        "the bank does not permit this payment",
        _DECLINES,
    ),
    Decline(
        "pickup_card", DeclineClass.HARD, _CARD, "the card is reported lost or stolen", _DECLINES
    ),
    Decline(
        "restricted_card",
        DeclineClass.HARD,
        _CARD,
        "the card is reported lost or stolen, or may not be used for this",
        _DECLINES,
    ),
    Decline(
        "revocation_of_all_authorizations",
        DeclineClass.HARD,
        _CARD,
        "the cardholder has withdrawn every permission to charge it",
        _DECLINES,
    ),
    Decline(
        "revocation_of_authorization",
        DeclineClass.HARD,
        _CARD,
        "the cardholder has withdrawn the permission to charge it",
        _DECLINES,
    ),
    Decline(
        "security_violation",
        DeclineClass.HARD,
        _CARD,
        "the bank's security checks ruled it out",
        _DECLINES,
    ),
    Decline(
        "service_not_allowed",
        DeclineClass.HARD,
        _CARD,
        "the card may not be used for this kind of payment",
        _DECLINES,
    ),
    Decline("stolen_card", DeclineClass.HARD, _CARD, "the card is reported stolen", _DECLINES),
    Decline(
        "stop_payment_order",
        DeclineClass.HARD,
        _CARD,
        "the cardholder had payments stopped",
        _DECLINES,
    ),
    Decline(
        "transaction_not_allowed",
        DeclineClass.HARD,
        _CARD,
        "the card may not be used for this; Stripe never retries it",
        _DECLINES,
    ),
    Decline(
        "account_frozen", DeclineClass.HARD, _BANK, "the bank account is frozen", _PAYOUT_FAILURES
    ),
    Decline(
        "bank_account_declined",
        DeclineClass.HARD,
        _BANK,
        "Stripe or the bank has ruled this account out",
        _ERRORS,
    ),
    Decline(
        "bank_account_frozen",
        DeclineClass.HARD,
        _BANK,
        "the bank account is frozen; Stripe debits it no more",
        _BLOCKED_ACCOUNTS,
    ),
    Decline(
        "bank_account_restricted",
        DeclineClass.HARD,
        _BANK,
        "the bank account can not be debited, or not by us",
        _ERRORS,
    ),
    Decline(
        "debit_not_authorized",
        DeclineClass.HARD,
        _BANK,
        "the account's holder says that the debit was not allowed, or has stopped payments",
        _ERRORS,
    ),
    Decline(
        "payment_method_bank_account_blocked",
        DeclineClass.HARD,
        _BANK,
        "Stripe debits this account no more after what was returned",
        _ERRORS,
    ),
    Decline(
        "authentication_not_handled",
        DeclineClass.NEEDS_AUTHENTICATION,
        _CARD,
        "the authentication was never finished",
        _DECLINES,
    ),
    Decline(
        "authentication_required",
        DeclineClass.NEEDS_AUTHENTICATION,
        _CARD,
        "the bank wants its client to confirm the payment",
        _DECLINES,
    ),
    Decline(
        "mobile_device_authentication_required",
        DeclineClass.NEEDS_AUTHENTICATION,
        _CARD,
        "the bank wants it confirmed on the client's phone",
        _DECLINES,
    ),
    Decline(
        "payment_intent_authentication_failure",
        DeclineClass.NEEDS_AUTHENTICATION,
        _CARD,
        "the client failed to authenticate, and may try it again",
        _ERRORS,
    ),
    Decline(
        "card_not_supported",
        DeclineClass.NEEDS_NEW_CARD,
        _CARD,
        "the card takes no payments of this kind",
        _DECLINES,
    ),
    Decline(
        "currency_not_supported",
        DeclineClass.NEEDS_NEW_CARD,
        _CARD,
        "the card pays in other currencies",
        _DECLINES,
    ),
    Decline("expired_card", DeclineClass.NEEDS_NEW_CARD, _CARD, "the card has expired", _DECLINES),
    Decline(
        "incorrect_address",
        DeclineClass.NEEDS_NEW_CARD,
        _CARD,
        "the address does not fit the card",
        _DECLINES,
    ),
    Decline(
        "incorrect_cvc", DeclineClass.NEEDS_NEW_CARD, _CARD, "the security code is wrong", _DECLINES
    ),
    Decline(
        "incorrect_number",
        DeclineClass.NEEDS_NEW_CARD,
        _CARD,
        "the number is wrong; Stripe never retries it",
        _DECLINES,
    ),
    Decline(
        "incorrect_pin",
        DeclineClass.NEEDS_NEW_CARD,
        _CARD,
        "nobody can type the PIN here",
        _DECLINES,
    ),
    Decline(
        "incorrect_zip",
        DeclineClass.NEEDS_NEW_CARD,
        _CARD,
        "the postal code does not fit the card",
        _DECLINES,
    ),
    Decline(
        "invalid_account",
        DeclineClass.NEEDS_NEW_CARD,
        _CARD,
        "there is no account behind the card",
        _DECLINES,
    ),
    Decline(
        "invalid_cvc", DeclineClass.NEEDS_NEW_CARD, _CARD, "the security code is wrong", _DECLINES
    ),
    Decline(
        "invalid_expiry_month", DeclineClass.NEEDS_NEW_CARD, _CARD, "the month is wrong", _DECLINES
    ),
    Decline(
        "invalid_expiry_year", DeclineClass.NEEDS_NEW_CARD, _CARD, "the year is wrong", _DECLINES
    ),
    Decline("invalid_number", DeclineClass.NEEDS_NEW_CARD, _CARD, "the number is wrong", _DECLINES),
    Decline(
        "invalid_pin", DeclineClass.NEEDS_NEW_CARD, _CARD, "nobody can type the PIN here", _DECLINES
    ),
    Decline(
        "new_account_information_available",
        DeclineClass.NEEDS_NEW_CARD,
        _CARD,
        "the card was replaced, and the bank wants the new one",
        _DECLINES,
    ),
    Decline(
        "offline_pin_required",
        DeclineClass.NEEDS_NEW_CARD,
        _CARD,
        "nobody can type the PIN here",
        _DECLINES,
    ),
    Decline(
        "online_or_offline_pin_required",
        DeclineClass.NEEDS_NEW_CARD,
        _CARD,
        "nobody can type the PIN here",
        _DECLINES,
    ),
    Decline(
        "pin_try_exceeded",
        DeclineClass.NEEDS_NEW_CARD,
        _CARD,
        "the PIN was wrong too often",
        _DECLINES,
    ),
    Decline(
        "testmode_decline", DeclineClass.NEEDS_NEW_CARD, _CARD, "it is a card for tests", _DECLINES
    ),
    Decline(
        "account_closed", DeclineClass.NEEDS_NEW_CARD, _BANK, "the bank account is closed", _ERRORS
    ),
    Decline(
        "account_number_invalid",
        DeclineClass.NEEDS_NEW_CARD,
        _BANK,
        "the account's number is wrong",
        _ERRORS,
    ),
    Decline(
        "bank_account_closed",
        DeclineClass.NEEDS_NEW_CARD,
        _BANK,
        "the bank account is closed",
        _NETWORK_CODES,
    ),
    Decline(
        "bank_account_invalid_details",
        DeclineClass.NEEDS_NEW_CARD,
        _BANK,
        "the account's details are wrong",
        _NETWORK_CODES,
    ),
    Decline(
        "bank_account_unusable",
        DeclineClass.NEEDS_NEW_CARD,
        _BANK,
        "the account can not be used for this",
        _ERRORS,
    ),
    Decline(
        "bank_ownership_changed",
        DeclineClass.NEEDS_NEW_CARD,
        _BANK,
        "the account's bank has changed hands, and its number with it",
        _MANDATES,
    ),
    Decline(
        "invalid_account_number",
        DeclineClass.NEEDS_NEW_CARD,
        _BANK,
        "the account's number is wrong",
        _PAYOUT_FAILURES,
    ),
    Decline("no_account", DeclineClass.NEEDS_NEW_CARD, _BANK, "there is no such account", _ERRORS),
    Decline(
        "payment_intent_mandate_invalid",
        DeclineClass.NEEDS_NEW_CARD,
        _BANK,
        "the permission to debit the account ended, and a new one is given with it",
        _ERRORS,
    ),
    Decline(
        "tokenized_account_number_deactivated",
        DeclineClass.NEEDS_NEW_CARD,
        _BANK,
        "the client has ended the access to the account",
        _BLOCKED_ACCOUNTS,
    ),
)
"""Every code that has a class. ``docs/declines.md`` shows the same."""

DECLINES: Mapping[str, DeclineClass] = MappingProxyType(
    {row.code: row.kind for row in DECLINES_TABLE}
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
