"""Reconciliations: each comparison of our record with Stripe's, and every difference it found."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from billing.reconciliation import Difference
from models.base import Base, CreatedAt, PrimaryKey, one_of


class Reconciliation(Base):
    """One account's money of a window, compared by the job ``job_id``.

    ``payments``, ``refunds`` and ``disputes`` count those that were looked at, of either record.
    """

    __tablename__ = "reconciliations"
    __table_args__ = (
        Index("ix_reconciliations_account_id_id", "account_id", "id"),
        CheckConstraint('since < "until"', name="window"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    job_id: Mapped[UUID]
    since: Mapped[datetime]
    until: Mapped[datetime]
    payments: Mapped[int] = mapped_column(server_default="0")
    refunds: Mapped[int] = mapped_column(server_default="0")
    disputes: Mapped[int] = mapped_column(server_default="0")
    requested_by: Mapped[str]
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[datetime | None]


class ReconciliationDifference(Base):
    """One difference, as it was found; amounts in ``currency``'s minor units.

    ``ours`` and ``theirs`` say how it stood on each side, NULL where there was nothing.
    ``subject_id`` is our attempt, refund or dispute. What was repaired bears the reconciliation's
    name in all that the repair wrote.
    """

    __tablename__ = "reconciliation_differences"
    __table_args__ = (
        # A run that begins again after a crash lists each once.
        Index(
            "uq_reconciliation_differences_subject",
            "reconciliation_id",
            "difference",
            "stripe_id",
            unique=True,
        ),
        CheckConstraint(one_of("difference", Difference), name="difference"),
    )

    id: Mapped[PrimaryKey]
    reconciliation_id: Mapped[UUID] = mapped_column(ForeignKey("reconciliations.id"))
    difference: Mapped[str]
    stripe_id: Mapped[str]
    subject_id: Mapped[UUID | None]
    client_id: Mapped[UUID | None] = mapped_column(ForeignKey("clients.id"))
    invoice_id: Mapped[UUID | None] = mapped_column(ForeignKey("invoices.id"))
    currency: Mapped[str]
    ours: Mapped[str | None]
    theirs: Mapped[str | None]
    our_amount: Mapped[int | None] = mapped_column(BigInteger)
    their_amount: Mapped[int | None] = mapped_column(BigInteger)
    repaired: Mapped[bool]
    created_at: Mapped[CreatedAt]
