"""Stripe's test payment methods, and what becomes of a payment with each.

Source: docs.stripe.com/testing and docs.stripe.com/payments/ach-direct-debit. Stripe's names
have ``visa_`` in some declines and not in others; both spellings are taken, of all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

CARD, BANK_ACCOUNT = "card", "us_bank_account"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the money did not move: Stripe's code and, when the bank said why, its decline code."""

    code: str
    decline_code: str | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What becomes of a payment with it, and of a refund.

    Attributes:
        failure: Why every payment fails; ``None`` when it succeeds.
        needs_authentication: Whether the cardholder must be present for every payment.
        never_settles: A bank debit that stays ``processing`` until it is cancelled or settled by
            hand.
        refund: ``pending`` refunds succeed later; ``failed`` ones succeed, and fail later.
        dispute: What its payments are as soon as they have succeeded: disputed as fraudulent, or
            questioned.
    """

    type: str = CARD
    brand: str = "visa"
    last4: str = "4242"
    failure: Failure | None = None
    needs_authentication: bool = False
    never_settles: bool = False
    refund: Literal["succeeded", "pending", "failed"] = "succeeded"
    dispute: Literal["fraudulent", "inquiry"] | None = None


AUTHENTICATION_REQUIRED = Failure(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)
AUTHENTICATION_FAILED = Failure(
    "payment_intent_authentication_failure",
    None,
    "We are unable to authenticate your payment method. Please choose a different payment method "
    "and try again.",
)

_DECLINED = "Your card was declined."
_DECLINES = {
    "": ("0002", Failure("card_declined", "generic_decline", _DECLINED)),
    "InsufficientFunds": (
        "9995",
        Failure("card_declined", "insufficient_funds", "Your card has insufficient funds."),
    ),
    "LostCard": ("9987", Failure("card_declined", "lost_card", _DECLINED)),
    "StolenCard": ("9979", Failure("card_declined", "stolen_card", _DECLINED)),
    "Fraudulent": ("0019", Failure("card_declined", "fraudulent", _DECLINED)),
    "VelocityLimitExceeded": (
        "6975",
        Failure(
            "card_declined",
            "card_velocity_exceeded",
            "Your card was declined for making repeated attempts too frequently or exceeding its "
            "amount limit.",
        ),
    ),
    # The three that have no decline code: the error's own code says it.
    "ExpiredCard": ("0069", Failure("expired_card", None, "Your card has expired.")),
    "IncorrectCvc": (
        "0127",
        Failure("incorrect_cvc", None, "Your card's security code is incorrect."),
    ),
    "ProcessingError": (
        "0119",
        Failure(
            "processing_error",
            None,
            "An error occurred while processing your card. Try again in a little bit.",
        ),
    ),
}

_ATTEMPT_FAILED = "payment_intent_payment_attempt_failed"
BANK_FAILURES: Mapping[str, Failure] = MappingProxyType(
    {
        code: Failure(_ATTEMPT_FAILED, code, message)
        for code, message in {
            "account_closed": "The customer's bank account has been closed.",
            "no_account": "The customer's bank account could not be located.",
            "insufficient_funds": "The customer's account has insufficient funds to cover this "
            "payment.",
            "debit_not_authorized": "The customer has notified their bank that this payment was "
            "unauthorized.",
        }.items()
    }
)


def _bank(last4: str, failure: str | None = None, *, never_settles: bool = False) -> Behaviour:
    return Behaviour(
        type=BANK_ACCOUNT,
        last4=last4,
        failure=BANK_FAILURES[failure] if failure else None,
        never_settles=never_settles,
    )


TEST_PAYMENT_METHODS: Mapping[str, Behaviour] = MappingProxyType(
    {
        "pm_card_visa": Behaviour(),
        "pm_card_visa_debit": Behaviour(last4="5556"),
        "pm_card_mastercard": Behaviour(brand="mastercard", last4="4444"),
        "pm_card_amex": Behaviour(brand="amex", last4="0005"),
        **{
            f"pm_card_{infix}chargeDeclined{name}": Behaviour(last4=last4, failure=failure)
            for name, (last4, failure) in _DECLINES.items()
            for infix in ("", "visa_")
        },
        "pm_card_radarBlock": Behaviour(last4="0019", failure=_DECLINES["Fraudulent"][1]),
        "pm_card_chargeCustomerFail": Behaviour(last4="0341", failure=_DECLINES[""][1]),
        "pm_card_authenticationRequired": Behaviour(last4="3184", needs_authentication=True),
        "pm_card_pendingRefund": Behaviour(last4="7726", refund="pending"),
        "pm_card_refundFail": Behaviour(last4="5126", refund="failed"),
        "pm_card_createDispute": Behaviour(last4="0259", dispute="fraudulent"),
        "pm_card_createDisputeInquiry": Behaviour(last4="1976", dispute="inquiry"),
        "pm_usBankAccount_success": _bank("6789"),
        "pm_usBankAccount_accountClosed": _bank("1113", "account_closed"),
        "pm_usBankAccount_noAccount": _bank("1116", "no_account"),
        "pm_usBankAccount_insufficientFunds": _bank("2227", "insufficient_funds"),
        "pm_usBankAccount_debitNotAuthorized": _bank("3335", "debit_not_authorized"),
        "pm_usBankAccount_processing": _bank("0009", never_settles=True),
    }
)

REFUSED_AT_ATTACHING = frozenset(
    name for name in TEST_PAYMENT_METHODS if "chargeDeclined" in name or name.endswith("Block")
)
"""The cards that Stripe checks, and declines, already when they are attached to a customer."""
