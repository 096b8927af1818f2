"""Refunds: money of payments that goes back to the client."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth import Caller, Writer
from api.fields import FORBID_UNKNOWN, Flag, Note, PositiveAmount
from api.idempotency import Commanded
from api.operations import commands
from api.shapes import JobReport
from api.transactions import Transaction
from billing.credit_notes import Destination
from billing.errors import NotFound
from billing.refunds import RefundState
from models import Invoice, Payment, Refund
from tasks.enqueueing import enqueue
from tasks.payment_refunds import (
    invoice_paid_by,
    refund_payment,
    refund_payment_to_card,
    require_refundable,
)

router = APIRouter(tags=["payments"])

CAME_BACK = "came_back"

REFUND_EXAMPLE: dict[str, Any] = {
    "id": "019ae8a3-5c00-7000-8000-000000000011",
    "client": "019ae8a3-5c00-7000-8000-000000000001",
    "payment": "019ae8a3-5c00-7000-8000-00000000000b",
    "invoice": "019ae8a3-5c00-7000-8000-000000000003",
    "credit_note": "019ae8a3-5c00-7000-8000-000000000012",
    "currency": "usd",
    "amount": 400,
    "to": "outside",
    "state": "succeeded",
    "reason": "Two boxes arrived damaged",
    "message": None,
    "flagged": None,
    "stripe_refund": None,
    "created_at": "2026-06-12T09:30:00Z",
    "succeeded_at": "2026-06-12T09:30:00Z",
    "settled_at": "2026-06-12T09:30:00Z",
}


class RefundReport(BaseModel):
    """Money given back of a payment, in `currency`'s minor unit.

    `credit_note` is what keeps its invoice settled; without one the debt is there again. `message`
    is Stripe's, where it was refused. `flagged` is `came_back` where the bank gave it back after
    it had succeeded: the client has it as credit.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [REFUND_EXAMPLE]})

    id: UUID
    client: UUID
    payment: UUID | None
    invoice: UUID | None
    credit_note: UUID | None
    currency: str
    amount: int
    to: Destination
    state: RefundState
    reason: str | None
    message: str | None
    flagged: str | None
    stripe_refund: str | None
    created_at: datetime
    succeeded_at: datetime | None
    settled_at: datetime | None

    @classmethod
    def of(cls, refund: Refund) -> "RefundReport":
        """The refund as it is shown."""
        others = {"client", "payment", "invoice", "credit_note", "to", "flagged"}
        return cls(
            **{name: getattr(refund, name) for name in cls.model_fields.keys() - others},
            client=refund.client_id,
            payment=refund.payment_id,
            invoice=refund.invoice_id,
            credit_note=refund.credit_note_id,
            to=Destination(refund.destination),
            flagged=CAME_BACK if refund.came_back else None,
        )


class PaymentRefund(BaseModel):
    """How much of a payment goes back, where to, and why."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={
            "examples": [{"amount": 400, "to": "card", "reason": "Two boxes arrived damaged"}]
        }
    )

    amount: PositiveAmount | None = Field(
        default=None,
        description="In minor units; all that its invoice took and that was not given back, if "
        "left out.",
    )
    to: Destination
    reason: Note | None = None
    credit_note: Flag = Field(
        default=True,
        description="Write a credit note, so that the invoice stays settled. With false the debt "
        "is there again, to be collected by hand.",
    )


@router.post(
    "/v1/payments/{payment_id}/refund",
    summary="Refund a payment",
    status_code=202,
    response_model=JobReport,
    responses=commands(
        "payment_not_found",
        "invoice_not_open",
        "nothing_to_refund",
        "payment_disputed",
        "payment_in_flight",
        "refund_in_flight",
        "amount_exceeds_paid",
        "amount_exceeds_invoice",
    ),
)
def refund(
    payment_id: UUID, asked: PaymentRefund, caller: Writer, session: Transaction, command: Commanded
) -> Response:
    """All of what its invoice took, or a part. What became credit is refunded as unused credit.

    A card's refund is done when Stripe says so: until then its invoice waits.
    """
    payment = payment_of(session, caller, payment_id)
    invoice = session.get_one(Invoice, invoice_paid_by(payment))
    require_refundable(
        session,
        payment,
        invoice,
        to=asked.to,
        amount=asked.amount,
        credit_note=asked.credit_note,
    )
    to_card = asked.to == Destination.CARD
    job = enqueue(
        session,
        refund_payment_to_card if to_card else refund_payment,
        account_id=caller.account_id,
        requested_by=caller.requested_by,
        payment_id=payment.id,
        **asked.model_dump(exclude={"to"} if to_card else None),
    )
    return command.accepted(job.id)


def payment_of(session: Session, caller: Caller, payment_id: UUID) -> Payment:
    """A payment of the caller's.

    Raises:
        NotFound: The caller's account has no such payment.
    """
    payment = session.get(Payment, payment_id)
    if payment is None or payment.account_id != caller.account_id:
        raise NotFound("payment", str(payment_id))
    return payment


def refunds_by_payment(
    session: Session, payments: Iterable[Payment]
) -> Mapping[UUID, Sequence[Refund]]:
    """The refunds of payments, oldest first, by the payment's id; read all at once."""
    refunds = session.scalars(
        select(Refund)
        .where(Refund.payment_id.in_([payment.id for payment in payments]))
        .order_by(Refund.id)
    )
    found: dict[UUID, list[Refund]] = defaultdict(list)
    for one in refunds:
        if one.payment_id is not None:
            found[one.payment_id].append(one)
    return found
