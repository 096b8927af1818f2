"""Charges that Stripe refused before it asked the bank: whose fault that is, and so what can help."""

from enum import StrEnum

# Codes by which Stripe refuses a request (https://docs.stripe.com/error-codes).
_OF_THE_CARD = frozenset(
    {
        "customer_max_payment_methods",
        "payment_method_customer_decline",
        "payment_method_invalid_parameter",
        "payment_method_microdeposit_failed",
        "payment_method_unexpected_state",
        "resource_missing",
    }
)
_OF_THE_AMOUNT = frozenset(
    {"amount_too_large", "amount_too_small", "invalid_amount", "invalid_currency"}
)


class Fault(StrEnum):
    """What a refused charge failed by."""

    # The customer or the card is not there, or cannot be charged: another card alone can help.
    CARD = "card"
    # It is wrong the next time too.
    AMOUNT = "amount"
    # A key or an account that is restricted, say: it says nothing of the card, and must not stop
    # every client's.
    OURS = "ours"


def fault_of(code: str) -> Fault:
    """Whose fault it is that Stripe refused a charge with this code."""
    if code in _OF_THE_CARD:
        return Fault.CARD
    return Fault.AMOUNT if code in _OF_THE_AMOUNT else Fault.OURS
