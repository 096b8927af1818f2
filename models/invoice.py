"""Invoices and their frozen lines."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Select,
    UniqueConstraint,
    Uuid,
    select,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from billing.invoice_states import InvoiceEvent, InvoiceStatus, transition
from models.base import (
    Base,
    CreatedAt,
    JsonObject,
    MinorUnits,
    Percent,
    PrimaryKey,
    is_currency,
    one_of,
)

_STAMPS = {
    InvoiceEvent.FINALIZE: "finalized_at",
    InvoiceEvent.PAY: "paid_at",
    InvoiceEvent.VOID: "voided_at",
    InvoiceEvent.WRITE_OFF: "written_off_at",
}

AMOUNT_DUE = (
    "CASE WHEN status = 'void' THEN 0 ELSE total - credit_applied - amount_paid"
    " - amount_credited + amount_refunded - amount_written_off END"
)


class Invoice(Base):
    """A demand for payment, in one currency's minor units.

    A draft's lines are its charges; finalizing copies them into ``InvoiceLine`` and freezes the
    row (trigger ``invoices_locked``). ``credit_applied`` is signed: positive credit lowers what
    is due; a negative invoice carries its own total, which became credit. ``amount_credited`` is the
    sum of its credit notes, ``amount_refunded`` what was given back of it, ``amount_written_off``
    what is given up and was not recovered; ``amount_lost`` of what was paid went in lost disputes, and
    the invoice stays settled. ``review_ends_at`` is when a draft of a billing period
    is finalized by itself, NULL where a person does that. ``auto_collect`` says
    that it is charged without being asked, at ``next_attempt_at``; ``failures`` counts such tries
    that were declined since the last new card, ``attempt_count`` all tries. ``superseded`` are the
    amendments on a void invoice whose originals were edited since: a reissue leaves them out.
    """

    __tablename__ = "invoices"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        # Lets a charge prove that client and currency are the same.
        UniqueConstraint("client_id", "id", "currency"),
        ForeignKeyConstraint(
            ["client_id", "period_id"], ["billing_periods.client_id", "billing_periods.id"]
        ),
        UniqueConstraint("account_id", "number"),
        UniqueConstraint("account_id", "series_year", "sequence"),
        Index("ix_invoices_account_id_id", "account_id", "id"),
        Index(
            "uq_invoices_period_id_currency",
            "period_id",
            "currency",
            unique=True,
            postgresql_where="period_id IS NOT NULL AND status <> 'void'",
        ),
        Index("ix_invoices_period_id", "period_id", postgresql_where="period_id IS NOT NULL"),
        Index("ix_invoices_run_id", "run_id", postgresql_where="run_id IS NOT NULL"),
        CheckConstraint(one_of("status", InvoiceStatus), name="status"),
        CheckConstraint(is_currency(), name="currency"),
        CheckConstraint("total = subtotal + tax", name="total"),
        CheckConstraint("amount_paid >= 0", name="amount_paid"),
        CheckConstraint(
            "amount_credited >= 0 AND amount_refunded >= 0 AND amount_written_off >= 0",
            name="corrections",
        ),
        # No more goes back than came in. A debit that an invoice took over is no money of it.
        CheckConstraint(
            "amount_refunded + amount_lost <= GREATEST(credit_applied + amount_paid, 0)",
            name="given_back",
        ),
        CheckConstraint("amount_lost BETWEEN 0 AND GREATEST(amount_paid, 0)", name="amount_lost"),
        CheckConstraint(
            "(status = 'draft') = (number IS NULL) AND (status = 'draft') = (finalized_at IS NULL)"
            " AND (status = 'draft') = (issued_on IS NULL) AND (status = 'draft' OR due_on IS NOT NULL)"
            " AND (status = 'draft') = (sequence IS NULL)"
            " AND (status = 'draft') = (series_year IS NULL)",
            name="finalized",
        ),
        CheckConstraint("(status = 'void') = (voided_at IS NOT NULL)", name="voided"),
        CheckConstraint("reissued_at IS NULL OR status = 'void'", name="reissued"),
        CheckConstraint(
            "status <> 'paid' OR (paid_at IS NOT NULL AND amount_due = 0)", name="paid"
        ),
        CheckConstraint("status <> 'open' OR amount_due > 0", name="owed"),
        CheckConstraint(
            "(status = 'uncollectible') = (amount_written_off > 0)"
            " AND (status <> 'uncollectible' OR amount_due = 0 AND written_off_at IS NOT NULL)",
            name="written_off",
        ),
        CheckConstraint("review_ends_at IS NULL OR status = 'draft'", name="review"),
        CheckConstraint(
            "next_attempt_at IS NULL OR (status = 'open' AND auto_collect)", name="next_attempt_at"
        ),
        CheckConstraint("attempt_count >= 0 AND failures >= 0", name="attempts"),
        Index(
            "ix_invoices_open",
            "client_id",
            "currency",
            "due_on",
            postgresql_where="status = 'open'",
        ),
        Index(
            "ix_invoices_review_ends_at",
            "review_ends_at",
            postgresql_where="review_ends_at IS NOT NULL",
        ),
        Index(
            "ix_invoices_next_attempt_at",
            "next_attempt_at",
            postgresql_where="next_attempt_at IS NOT NULL",
        ),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    client_id: Mapped[UUID]
    period_id: Mapped[UUID | None]
    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("billing_runs.id"))
    status: Mapped[str] = mapped_column(server_default=InvoiceStatus.DRAFT)
    number: Mapped[str | None]
    sequence: Mapped[int | None] = mapped_column(BigInteger)
    series_year: Mapped[int | None]
    currency: Mapped[str]
    subtotal: Mapped[MinorUnits]
    tax: Mapped[MinorUnits] = mapped_column(server_default="0")
    total: Mapped[MinorUnits]
    credit_applied: Mapped[MinorUnits] = mapped_column(server_default="0")
    amount_paid: Mapped[MinorUnits] = mapped_column(server_default="0")
    amount_credited: Mapped[MinorUnits] = mapped_column(server_default="0")
    amount_refunded: Mapped[MinorUnits] = mapped_column(server_default="0")
    amount_written_off: Mapped[MinorUnits] = mapped_column(server_default="0")
    amount_lost: Mapped[MinorUnits] = mapped_column(server_default="0")
    amount_due: Mapped[MinorUnits] = mapped_column(Computed(AMOUNT_DUE, persisted=True))
    issued_on: Mapped[date | None]
    due_on: Mapped[date | None]
    memo: Mapped[str | None]
    po_number: Mapped[str | None]
    bill_from: Mapped[dict[str, Any] | None]
    bill_to: Mapped[dict[str, Any] | None]
    auto_collect: Mapped[bool] = mapped_column(server_default="false")
    next_attempt_at: Mapped[datetime | None]
    attempt_count: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[CreatedAt]
    review_ends_at: Mapped[datetime | None]
    finalized_at: Mapped[datetime | None]
    paid_at: Mapped[datetime | None]
    voided_at: Mapped[datetime | None]
    written_off_at: Mapped[datetime | None]
    reissued_at: Mapped[datetime | None]
    superseded: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default=text("'{}'"))

    @property
    def outstanding(self) -> int:
        """What its client has still to pay: what is due, or what was written off of it."""
        return self.amount_due + self.amount_written_off

    def apply(self, event: InvoiceEvent, at: datetime) -> None:
        """Move to the status the state table gives, and note when. Hold the row's lock.

        Raises:
            IllegalTransition: The table has no such edge.
        """
        self.status = transition(InvoiceStatus(self.status), event)
        self.next_attempt_at = None
        if event == InvoiceEvent.REOPEN:
            self.paid_at = None
        else:
            setattr(self, _STAMPS[event], at)


class InvoiceLine(Base):
    """A charge as it stood when its invoice was finalized. Written once, never changed.

    ``amount`` is as it was priced, ``net`` without the taxes in it; ``taxes`` has its share of each
    tax, in minor units by the rate's id, and ``tax`` is their sum.
    """

    __tablename__ = "invoice_lines"
    __table_args__ = (
        # A charge is billed at most once; a reissue bills a copy.
        UniqueConstraint("charge_id"),
    )

    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoices.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    charge_id: Mapped[UUID]
    charged_on: Mapped[date]
    description: Mapped[str]
    quantity: Mapped[Decimal]
    unit_price: Mapped[Decimal | None]
    amount: Mapped[MinorUnits]
    net: Mapped[MinorUnits]
    tax: Mapped[MinorUnits] = mapped_column(server_default="0")
    taxes: Mapped[JsonObject]


class InvoiceTax(Base):
    """One rate of a finalized invoice: ``tax``, taken of lines of ``net``. Never changed."""

    __tablename__ = "invoice_taxes"
    __table_args__ = (UniqueConstraint("invoice_id", "position"),)

    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoices.id"), primary_key=True)
    tax_rate_id: Mapped[UUID] = mapped_column(ForeignKey("tax_rates.id"), primary_key=True)
    position: Mapped[int]
    name: Mapped[str]
    percent: Mapped[Percent]
    inclusive: Mapped[bool]
    net: Mapped[MinorUnits]
    tax: Mapped[MinorUnits]


def invoices_for_update(ids: Sequence[UUID]) -> Select[Invoice]:
    """Invoices, locked in id order, as the last writer left them."""
    return (
        select(Invoice)
        .where(Invoice.id.in_(ids))
        .order_by(Invoice.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
