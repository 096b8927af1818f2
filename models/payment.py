"""Payments: money received, whichever way it came."""

from datetime import date
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from billing.outside_payments import OutsideMethod
from models.base import Base, CreatedAt, MinorUnits, PrimaryKey, is_currency, one_of


class PaymentSource(StrEnum):
    """Whether Stripe moved the money, or it came from outside."""

    CARD = "card"
    OUTSIDE = "outside"


class Payment(Base):
    """Money received. Append-only; ``amount`` is all of it, ``applied`` what went to the invoice.

    The rest went to the client's credit; ``flagged`` says why a person should look.
    """

    __tablename__ = "payments"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        # Of this client, and in this currency.
        ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
        ),
        Index("ix_payments_account_id_id", "account_id", "id"),
        Index("ix_payments_invoice_id", "invoice_id"),
        Index("ix_payments_client_id_id", "client_id", "id"),
        # One attempt yields one payment, however often its success is told.
        Index("uq_payments_attempt_id", "attempt_id", unique=True),
        CheckConstraint(one_of("source", PaymentSource), name="source"),
        CheckConstraint(one_of("method", OutsideMethod), name="method"),
        CheckConstraint("(source = 'outside') = (method IS NOT NULL)", name="outside"),
        CheckConstraint("(source = 'card') = (attempt_id IS NOT NULL)", name="card"),
        CheckConstraint(is_currency(), name="currency"),
        CheckConstraint("amount > 0 AND applied BETWEEN 0 AND amount", name="amount"),
        CheckConstraint("applied = 0 OR invoice_id IS NOT NULL", name="applied"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID]
    client_id: Mapped[UUID]
    invoice_id: Mapped[UUID | None]
    attempt_id: Mapped[UUID | None] = mapped_column(ForeignKey("payment_attempts.id"))
    source: Mapped[str]
    method: Mapped[str | None]
    currency: Mapped[str]
    amount: Mapped[MinorUnits]
    applied: Mapped[MinorUnits]
    paid_on: Mapped[date]
    reference: Mapped[str | None]
    note: Mapped[str | None]
    flagged: Mapped[str | None]
    requested_by: Mapped[str]
    created_at: Mapped[CreatedAt]
