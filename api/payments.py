"""Payments: money that was received, whichever way it came."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select

from api.auth import Reader
from api.operations import reads
from api.paging import Paging, newest_first
from api.refunds import REFUND_EXAMPLE, RefundReport, payment_of, refunds_by_payment
from api.shapes import Page
from api.transactions import Transaction
from billing.outside_payments import OutsideMethod
from models import Payment, PaymentSource, Refund

router = APIRouter(tags=["payments"])

PAYMENT_EXAMPLE: dict[str, Any] = {
    "id": "019ae8a3-5c00-7000-8000-00000000000b",
    "client": "019ae8a3-5c00-7000-8000-000000000001",
    "invoice": "019ae8a3-5c00-7000-8000-000000000003",
    "attempt": None,
    "source": "outside",
    "method": "bank_transfer",
    "currency": "usd",
    "amount": 1500,
    "applied": 1100,
    "amount_refunded": 400,
    "refunds": [REFUND_EXAMPLE],
    "paid_on": "2026-06-10",
    "reference": "wire 8841",
    "note": None,
    "flagged": None,
    "created_at": "2026-06-10T09:30:00Z",
}


class PaymentReport(BaseModel):
    """Money received, in `currency`'s minor unit: `applied` to its invoice, the rest to credit.

    `attempt` is the try of a card that brought it; `method` is how it came from outside.
    `flagged` says why somebody should look, such as `invoice_void`: nothing was due any more.
    `amount_refunded` is what went back by its `refunds`, also where a bank gave that back later.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [PAYMENT_EXAMPLE]})

    id: UUID
    client: UUID
    invoice: UUID | None
    attempt: UUID | None
    source: PaymentSource
    method: OutsideMethod | None
    currency: str
    amount: int
    applied: int
    amount_refunded: int
    refunds: list[RefundReport]
    paid_on: date
    reference: str | None
    note: str | None
    flagged: str | None
    created_at: datetime

    @classmethod
    def of(cls, payment: Payment, refunds: Sequence[Refund]) -> "PaymentReport":
        """The payment as it is shown."""
        others = {"client", "invoice", "attempt", "amount_refunded", "refunds"}
        return cls(
            **{name: getattr(payment, name) for name in cls.model_fields.keys() - others},
            client=payment.client_id,
            invoice=payment.invoice_id,
            attempt=payment.attempt_id,
            amount_refunded=sum(one.amount for one in refunds if one.succeeded_at is not None),
            refunds=[RefundReport.of(one) for one in refunds],
        )


class PaymentFilters(Paging):
    """Which payments to list."""

    invoice: UUID | None = None
    client: UUID | None = None


@router.get("/v1/payments", summary="List payments", responses=reads())
def list_payments(
    filters: Annotated[PaymentFilters, Query()], caller: Reader, session: Transaction
) -> Page[PaymentReport]:
    """Newest first. A deposit has no invoice: what it paid is told by the client's credit."""
    payments = select(Payment).where(Payment.account_id == caller.account_id)
    if filters.invoice is not None:
        payments = payments.where(Payment.invoice_id == filters.invoice)
    if filters.client is not None:
        payments = payments.where(Payment.client_id == filters.client)
    found = newest_first(session, payments, Payment.id, filters, read=UUID)
    refunds = refunds_by_payment(session, found.rows)
    return found.page(lambda payment: PaymentReport.of(payment, refunds.get(payment.id, ())))


@router.get(
    "/v1/payments/{payment_id}", summary="Show a payment", responses=reads("payment_not_found")
)
def show_payment(payment_id: UUID, caller: Reader, session: Transaction) -> PaymentReport:
    """One payment, and what was given back of it."""
    payment = payment_of(session, caller, payment_id)
    refunds = refunds_by_payment(session, [payment])
    return PaymentReport.of(payment, refunds.get(payment.id, ()))
