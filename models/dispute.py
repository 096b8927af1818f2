"""Disputes: payments that the client's bank questions, or has taken back."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Select,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from billing.disputes import PENDING, DisputeState
from models.base import Base, CreatedAt, MinorUnits, PrimaryKey, is_currency, one_of
from models.payment import Payment
from models.payment_attempt import PaymentAttempt

_HELD = "state IN ('open', 'won', 'lost')"


class Dispute(Base):
    """A dispute of a card payment, in minor units, or a bank's inquiry that may become one.

    ``status`` and ``reason`` are Stripe's, as it told them at ``told_at``. From ``opened_at`` on
    the bank had the money, so ``amount`` is fixed. A lost one has ``reopened`` its invoice, was
    ``written_off`` or ``taken_back`` from the client's credit: together, all of it.
    """

    __tablename__ = "disputes"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        # Of this client, and in this currency.
        ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
        ),
        Index("uq_disputes_stripe_dispute", "stripe_dispute", unique=True),
        Index("ix_disputes_account_id_id", "account_id", "id"),
        Index("ix_disputes_client_id_id", "client_id", "id"),
        Index("ix_disputes_payment_id", "payment_id"),
        Index("ix_disputes_invoice_id", "invoice_id"),
        CheckConstraint(one_of("state", DisputeState), name="state"),
        CheckConstraint(is_currency(), name="currency"),
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint(f"(opened_at IS NOT NULL) = ({_HELD})", name="opened"),
        CheckConstraint(
            "(closed_at IS NOT NULL) = (state IN ('closed', 'won', 'lost'))", name="closed"
        ),
        CheckConstraint(
            "reopened >= 0 AND written_off >= 0 AND taken_back >= 0"
            " AND reopened + written_off + taken_back"
            " = CASE WHEN state = 'lost' THEN amount ELSE 0 END",
            name="lost",
        ),
        CheckConstraint("invoice_id IS NOT NULL OR reopened + written_off = 0", name="invoice"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID]
    client_id: Mapped[UUID]
    payment_id: Mapped[UUID] = mapped_column(ForeignKey("payments.id"))
    invoice_id: Mapped[UUID | None]
    stripe_dispute: Mapped[str]
    currency: Mapped[str]
    amount: Mapped[MinorUnits]
    state: Mapped[str]
    status: Mapped[str]
    reason: Mapped[str]
    evidence_due_at: Mapped[datetime | None]
    disputed_at: Mapped[datetime]
    told_at: Mapped[datetime]
    opened_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    reopened: Mapped[MinorUnits] = mapped_column(server_default="0")
    written_off: Mapped[MinorUnits] = mapped_column(server_default="0")
    taken_back: Mapped[MinorUnits] = mapped_column(server_default="0")
    created_at: Mapped[CreatedAt]


def dispute_for_update(stripe_dispute: str) -> Select[Dispute]:
    """A dispute by Stripe's id, locked, as the last writer left it. Lock its invoice first."""
    return (
        select(Dispute)
        .where(Dispute.stripe_dispute == stripe_dispute)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def has_open_dispute(payment_id: InstrumentedAttribute[UUID]) -> ColumnElement[bool]:
    """Whether the bank has taken a payment's money, and it is not known yet who is right."""
    return (
        select(Dispute.id)
        .where(Dispute.payment_id == payment_id, Dispute.state == DisputeState.OPEN)
        .exists()
    )


def disputes_on(client_id: UUID, payment_method: str, *states: DisputeState) -> Select[UUID]:
    """The disputes, in these states, of what a client's card paid, by id."""
    return (
        select(Dispute.id)
        .join(Payment, Payment.id == Dispute.payment_id)
        .join(PaymentAttempt, PaymentAttempt.id == Payment.attempt_id)
        .where(
            Dispute.client_id == client_id,
            Dispute.state.in_(states),
            PaymentAttempt.payment_method == payment_method,
        )
    )


def questioned_invoices(invoice_ids: Collection[UUID]) -> Select[UUID | None]:
    """Those of these invoices of which a bank questions a payment, or has taken it back for now."""
    return select(Dispute.invoice_id).where(
        Dispute.invoice_id.in_(invoice_ids), Dispute.state.in_(PENDING)
    )
