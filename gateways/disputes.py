"""Disputes of card payments, as the rest of the system sees them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class DisputeStatus(StrEnum):
    """How a dispute stands; the names are Stripe's. A ``warning`` is an inquiry: no money moved."""

    WARNING_NEEDS_RESPONSE = "warning_needs_response"
    WARNING_UNDER_REVIEW = "warning_under_review"
    WARNING_CLOSED = "warning_closed"
    NEEDS_RESPONSE = "needs_response"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"
    # Kept from becoming one, by a refund that the card network made.
    PREVENTED = "prevented"


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeReport:
    """How a dispute stands.

    Attributes:
        dispute: Stripe's id of it.
        payment_intent: Stripe's id of the payment; ``None`` of a charge without one.
        amount: What is disputed, in our minor units.
        reason: Stripe's word for what the client says: "fraudulent", "product_not_received".
        evidence_due_at: Until when the bank takes evidence; ``None`` where it takes none.
        created_at: When the bank began it, in UTC.
    """

    dispute: str
    payment_intent: str | None
    amount: int
    currency: str
    status: DisputeStatus
    reason: str
    evidence_due_at: datetime | None
    created_at: datetime
