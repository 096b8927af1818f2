"""Disputes: payments that the client's bank questions, or has taken back."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth import Reader
from api.operations import reads
from api.paging import Paging, newest_first
from api.shapes import Page
from api.transactions import Transaction
from billing.disputes import DisputeState
from billing.errors import NotFound
from models import Dispute
from models.dispute import questioned_invoices

router = APIRouter(tags=["payments"])

_ID = "019ae8a3-5c00-7000-8000-000000000014"

DISPUTE_EXAMPLE: dict[str, Any] = {
    "id": _ID,
    "client": "019ae8a3-5c00-7000-8000-000000000001",
    "payment": "019ae8a3-5c00-7000-8000-00000000000b",
    "invoice": "019ae8a3-5c00-7000-8000-000000000003",
    "currency": "usd",
    "amount": 1320,
    "state": "open",
    "status": "needs_response",
    "reason": "product_not_received",
    "stripe_dispute": "du_1MtJUT2eZvKYlo2CNaw2HvEv",
    "evidence_due_at": "2026-06-24T23:59:59Z",
    "disputed_at": "2026-06-15T08:12:04Z",
    "opened_at": "2026-06-15T08:12:06Z",
    "closed_at": None,
    "reopened": 0,
    "written_off": 0,
    "taken_back": 0,
    "created_at": "2026-06-15T08:12:06Z",
}


class DisputeReport(BaseModel):
    """A dispute of a card payment, in `currency`'s minor unit; `status` and `reason` are Stripe's.

    An `inquiry` moves no money, and is `closed` or becomes a dispute. From `opened_at` on the bank
    has the money: the invoice stays paid, the card is not charged by itself, and nothing of the
    payment can be refunded. One that is `won` is as if it had never been. A `lost` one has
    `reopened` its invoice, was `written_off`, or `taken_back` from the client's credit what no
    invoice had taken: together, all of it. Evidence is given at Stripe, until `evidence_due_at`.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [DISPUTE_EXAMPLE]})

    id: UUID
    client: UUID
    payment: UUID
    invoice: UUID | None
    currency: str
    amount: int
    state: DisputeState
    status: str
    reason: str
    stripe_dispute: str
    evidence_due_at: datetime | None
    disputed_at: datetime
    opened_at: datetime | None
    closed_at: datetime | None
    reopened: int
    written_off: int
    taken_back: int
    created_at: datetime

    @classmethod
    def of(cls, dispute: Dispute) -> "DisputeReport":
        """The dispute as it is shown."""
        others = {"client", "payment", "invoice"}
        return cls(
            **{name: getattr(dispute, name) for name in cls.model_fields.keys() - others},
            client=dispute.client_id,
            payment=dispute.payment_id,
            invoice=dispute.invoice_id,
        )


class DisputeFilters(Paging):
    """Which disputes to list."""

    client: UUID | None = None
    invoice: UUID | None = None
    state: DisputeState | None = None


@router.get("/v1/disputes", summary="List disputes", responses=reads())
def list_disputes(
    filters: Annotated[DisputeFilters, Query()], caller: Reader, session: Transaction
) -> Page[DisputeReport]:
    """Newest first; inquiries are among them."""
    disputes = select(Dispute).where(Dispute.account_id == caller.account_id)
    if filters.client is not None:
        disputes = disputes.where(Dispute.client_id == filters.client)
    if filters.invoice is not None:
        disputes = disputes.where(Dispute.invoice_id == filters.invoice)
    if filters.state is not None:
        disputes = disputes.where(Dispute.state == filters.state)
    return newest_first(session, disputes, Dispute.id, filters, read=UUID).page(DisputeReport.of)


@router.get(
    "/v1/disputes/{dispute_id}", summary="Show a dispute", responses=reads("dispute_not_found")
)
def show_dispute(dispute_id: UUID, caller: Reader, session: Transaction) -> DisputeReport:
    """One dispute, and what it did."""
    dispute = session.get(Dispute, dispute_id)
    if dispute is None or dispute.account_id != caller.account_id:
        raise NotFound("dispute", str(dispute_id))
    return DisputeReport.of(dispute)


def questioned(session: Session, invoice_ids: Collection[UUID]) -> frozenset[UUID | None]:
    """Those of these invoices of which a bank questions a payment, or has taken it back for now."""
    return frozenset(session.scalars(questioned_invoices(invoice_ids)))


def disputes_of(session: Session, invoice_id: UUID) -> Sequence[Dispute]:
    """All that were disputed of an invoice's payments, oldest first."""
    return session.scalars(
        select(Dispute).where(Dispute.invoice_id == invoice_id).order_by(Dispute.id)
    ).all()
