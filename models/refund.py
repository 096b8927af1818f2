"""Refunds: money given back, each written down before Stripe is asked."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Select,
    UniqueConstraint,
    or_,
    select,
    text,
)
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from billing.credit_notes import Destination
from billing.refunds import UNSETTLED_REFUNDS, RefundState, settle_refund
from models.base import Base, CreatedAt, MinorUnits, PrimaryKey, is_currency, one_of

_UNSETTLED_SQL = ", ".join(sorted(repr(state.value) for state in UNSETTLED_REFUNDS))


class Refund(Base):
    """Money given back of a payment, or unused credit paid out where it is of no ``invoice_id``.

    What Stripe is asked for is frozen here, so that asking again asks the same under the same
    ``idempotency_key``; and so is the note that was agreed: ``makes_note`` says that its invoice
    stays settled by a credit note, which takes ``note_amount`` of it and names the lines at
    ``note_positions``. ``succeeded_at`` is when the money went, also where the bank gave it back
    later.
    """

    __tablename__ = "refunds"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
        ),
        UniqueConstraint("idempotency_key"),
        Index("uq_refunds_stripe_refund", "stripe_refund", unique=True),
        Index("ix_refunds_account_id_id", "account_id", "id"),
        Index("ix_refunds_payment_id", "payment_id"),
        Index("ix_refunds_client_id_id", "client_id", "id"),
        # Never two at once of one invoice.
        Index(
            "uq_refunds_unsettled",
            "invoice_id",
            unique=True,
            postgresql_where=f"state IN ({_UNSETTLED_SQL})",
        ),
        Index("ix_refunds_next_ask_at", "next_ask_at", postgresql_where="next_ask_at IS NOT NULL"),
        CheckConstraint(one_of("destination", Destination), name="destination"),
        CheckConstraint(one_of("state", RefundState), name="state"),
        CheckConstraint(is_currency(), name="currency"),
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint(
            "destination <> 'card' OR (payment_id IS NOT NULL AND idempotency_key IS NOT NULL)",
            name="card",
        ),
        CheckConstraint(
            "note_amount IS NULL OR makes_note AND note_amount >= amount", name="note_amount"
        ),
        CheckConstraint(
            f"(next_ask_at IS NOT NULL) = (state IN ({_UNSETTLED_SQL}))", name="next_ask"
        ),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID]
    client_id: Mapped[UUID]
    payment_id: Mapped[UUID | None] = mapped_column(ForeignKey("payments.id"))
    invoice_id: Mapped[UUID | None]
    credit_note_id: Mapped[UUID | None] = mapped_column(ForeignKey("credit_notes.id"))
    currency: Mapped[str]
    amount: Mapped[MinorUnits]
    destination: Mapped[str]
    makes_note: Mapped[bool]
    note_amount: Mapped[int | None] = mapped_column(BigInteger)
    note_positions: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'"))
    state: Mapped[str] = mapped_column(server_default=RefundState.PENDING)
    reason: Mapped[str | None]
    reference: Mapped[str | None]
    job_id: Mapped[UUID]
    idempotency_key: Mapped[str | None]
    stripe_refund: Mapped[str | None]
    message: Mapped[str | None]
    asks: Mapped[int] = mapped_column(server_default="0")
    first_asked_at: Mapped[datetime | None]
    next_ask_at: Mapped[datetime | None]
    requested_by: Mapped[str]
    created_at: Mapped[CreatedAt]
    succeeded_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]

    @property
    def came_back(self) -> bool:
        """Whether the bank gave it back after it had succeeded."""
        return self.state == RefundState.FAILED and self.succeeded_at is not None

    def move(self, to: RefundState, at: datetime, *, ask_at: datetime | None = None) -> None:
        """Go to a state the table allows; the only writer of it. Hold the row's lock.

        Raises:
            RuleViolation: The news is older than what is known.
        """
        self.state = settle_refund(RefundState(self.state), to)
        self.next_ask_at = ask_at if to in UNSETTLED_REFUNDS else None
        if to not in UNSETTLED_REFUNDS:
            self.settled_at = at
        if to == RefundState.SUCCEEDED:
            self.succeeded_at = at


def refund_for_update(refund_id: UUID) -> Select[Refund]:
    """One refund, locked, as the last writer left it. Lock its invoice first."""
    return (
        select(Refund)
        .where(Refund.id == refund_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def unsettled_refund_of(invoice_id: UUID) -> Select[Refund]:
    """The refund of an invoice whose outcome is still out; there is one at most."""
    return select(Refund).where(
        Refund.invoice_id == invoice_id, Refund.state.in_(UNSETTLED_REFUNDS)
    )


def is_being_refunded(invoice_id: InstrumentedAttribute[UUID]) -> ColumnElement[bool]:
    """Whether money of an invoice may be on its way back."""
    return (
        select(Refund.id)
        .where(Refund.invoice_id == invoice_id, Refund.state.in_(UNSETTLED_REFUNDS))
        .exists()
    )


def went_or_may_go() -> ColumnElement[bool]:
    """Whether a refund's money is not there any more, as far as anybody can count on."""
    return or_(Refund.succeeded_at.is_not(None), Refund.state.in_(UNSETTLED_REFUNDS))
