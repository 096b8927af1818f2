"""Refunds: where one stands, from the request to the client's bank."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from billing.errors import RuleViolation
from billing.invoice_states import InvoiceStatus


class RefundState(StrEnum):
    """Where a refund stands. One to credit or outside has succeeded as soon as it is recorded."""

    # Written down, before Stripe is asked.
    PENDING = "pending"
    # Taken by Stripe, which will say later.
    PROCESSING = "processing"
    # Asked for, and the answer was lost.
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    # Refused by Stripe, so that nothing moved; or given back by the bank after it had succeeded.
    FAILED = "failed"


UNSETTLED_REFUNDS = frozenset({RefundState.PENDING, RefundState.PROCESSING, RefundState.UNKNOWN})
"""Money may be moving: what changes what is due waits for it (``refund_in_flight``)."""

_OUTCOMES = frozenset({RefundState.SUCCEEDED, RefundState.FAILED})

REFUND_TRANSITIONS: Mapping[RefundState, frozenset[RefundState]] = MappingProxyType(
    {
        RefundState.PENDING: _OUTCOMES | {RefundState.PROCESSING, RefundState.UNKNOWN},
        RefundState.UNKNOWN: _OUTCOMES | {RefundState.PROCESSING},
        RefundState.PROCESSING: _OUTCOMES,
        RefundState.SUCCEEDED: frozenset({RefundState.FAILED}),
        RefundState.FAILED: frozenset(),
    }
)


def require_debt_may_be_back(status: InvoiceStatus) -> None:
    """Check that an invoice's payment may be given back without a credit note.

    Raises:
        RuleViolation: The invoice is given up: nobody would collect the debt (``invoice_not_open``).
    """
    if status == InvoiceStatus.UNCOLLECTIBLE:
        raise RuleViolation(
            "invoice_not_open",
            "the debt of an invoice that is uncollectible cannot be opened again: refund with a"
            " credit note",
        )


def settle_refund(state: RefundState, to: RefundState) -> RefundState:
    """The state ``to``, which a refund in ``state`` reaches by news of its outcome.

    Raises:
        RuleViolation: The table has no such edge (``refund_settled``).
    """
    if to in REFUND_TRANSITIONS[state]:
        return to
    raise RuleViolation("refund_settled", f"a refund that is {state} cannot become {to}")
