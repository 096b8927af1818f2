"""Reconciliations: each comparison of our record with Stripe's, and every difference it found.

And which of those somebody has acknowledged.
"""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    Select,
    select,
)
from sqlalchemy.orm import Mapped, mapped_column

from billing.reconciliation import Compared, Difference
from models.base import Base, CreatedAt, JsonList, PrimaryKey, one_of

FACTS = (
    *("difference", "subject_id", "currency"),
    *("ours", "our_amount", "theirs", "their_amount"),
)
"""What a difference says of the two records."""

_STANDING = "rechecked_at IS NULL AND NOT repaired"


class Reconciliation(Base):
    """One account's money of a window, compared by the job ``job_id``.

    ``payments``, ``refunds`` and ``disputes`` count those that were looked at, of either record.
    Where it stands is kept, so that it goes on there: what it is ``comparing``, NULL before it has
    begun; at which merchants Stripe's list of those is still to be read, each an id or null for the
    deployment; and behind which entry, of the first one's.
    """

    __tablename__ = "reconciliations"
    __table_args__ = (
        Index("ix_reconciliations_account_id_id", "account_id", "id"),
        CheckConstraint('since < "until"', name="window"),
        CheckConstraint(one_of("comparing", Compared), name="comparing"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    job_id: Mapped[UUID]
    since: Mapped[datetime]
    until: Mapped[datetime]
    payments: Mapped[int] = mapped_column(server_default="0")
    refunds: Mapped[int] = mapped_column(server_default="0")
    disputes: Mapped[int] = mapped_column(server_default="0")
    comparing: Mapped[str | None]
    merchants_left: Mapped[JsonList]
    listed_after: Mapped[str | None]
    requested_by: Mapped[str]
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[datetime | None]


class ReconciliationRecord(Base):
    """One payment, refund or dispute that a reconciliation under way has counted, by Stripe's id.

    While it ``is_doubted`` it is still to be asked for by itself, at the merchant; NULL is the
    deployment. Forgotten when the reconciliation has finished.
    """

    __tablename__ = "reconciliation_records"
    __table_args__ = (
        CheckConstraint(one_of("compared", Compared), name="compared"),
        Index(
            "ix_reconciliation_records_doubted",
            "reconciliation_id",
            "compared",
            "stripe_id",
            postgresql_where="is_doubted",
        ),
    )

    reconciliation_id: Mapped[UUID] = mapped_column(
        ForeignKey("reconciliations.id"), primary_key=True
    )
    compared: Mapped[str] = mapped_column(primary_key=True)
    stripe_id: Mapped[str] = mapped_column(primary_key=True)
    merchant_id: Mapped[UUID | None] = mapped_column(ForeignKey("stripe_merchants.id"))
    is_doubted: Mapped[bool]


class ReconciliationDifference(Base):
    """One difference, as it was found; amounts in ``currency``'s minor units.

    ``ours`` and ``theirs`` say how it stood on each side, NULL where there was nothing.
    ``subject_id`` is our attempt, refund or dispute; ``merchant_id`` who was asked, NULL for the
    deployment. What was repaired bears the reconciliation's name in all that the repair wrote. What
    was not stands until a later reconciliation has looked again, at ``rechecked_at``: it lists the
    difference itself, if there still is one, with the same ``acknowledgement_id`` as long as the
    ``facts`` are the same.
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
        Index(
            "ix_reconciliation_differences_standing",
            "stripe_id",
            postgresql_where=_STANDING,
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
    merchant_id: Mapped[UUID | None] = mapped_column(ForeignKey("stripe_merchants.id"))
    currency: Mapped[str]
    ours: Mapped[str | None]
    theirs: Mapped[str | None]
    our_amount: Mapped[int | None] = mapped_column(BigInteger)
    their_amount: Mapped[int | None] = mapped_column(BigInteger)
    repaired: Mapped[bool]
    acknowledgement_id: Mapped[UUID | None] = mapped_column(
        # The two tables refer to each other.
        ForeignKey("difference_acknowledgements.id", use_alter=True)
    )
    created_at: Mapped[CreatedAt]
    rechecked_at: Mapped[datetime | None]

    @property
    def facts(self) -> Mapping[str, object]:
        """What an acknowledgement is of: it holds for nothing else."""
        return {name: getattr(self, name) for name in FACTS}


class DifferenceAcknowledgement(Base):
    """Somebody knows of a difference, and why it stands: ``acknowledged_by`` says who that was.

    Given for the facts of one difference, it holds for every later one of the same facts that bears
    its id, until it is withdrawn. Never deleted, and nothing of it ever changes but that.
    """

    __tablename__ = "difference_acknowledgements"
    __table_args__ = (
        CheckConstraint("(withdrawn_at IS NULL) = (withdrawn_by IS NULL)", name="withdrawal"),
        Index(
            "uq_difference_acknowledgements_in_force",
            "difference_id",
            unique=True,
            postgresql_where="withdrawn_at IS NULL",
        ),
    )

    id: Mapped[PrimaryKey]
    difference_id: Mapped[UUID] = mapped_column(ForeignKey("reconciliation_differences.id"))
    reason: Mapped[str]
    acknowledged_by: Mapped[str]
    acknowledged_at: Mapped[CreatedAt]
    withdrawn_by: Mapped[str | None]
    withdrawn_at: Mapped[datetime | None]


def still_stands() -> ColumnElement[bool]:
    """Whether a difference was not repaired, and nobody has looked again since."""
    return ReconciliationDifference.rechecked_at.is_(None) & ~ReconciliationDifference.repaired


def standing_differences(account_id: UUID) -> Select[ReconciliationDifference]:
    """An account's differences that still stand, whichever reconciliation found them."""
    return (
        select(ReconciliationDifference)
        .join(Reconciliation, Reconciliation.id == ReconciliationDifference.reconciliation_id)
        .where(Reconciliation.account_id == account_id, still_stands())
    )


def acknowledgement_in_force() -> Select[UUID]:
    """The acknowledgement of a difference, unless it was withdrawn; to ask whether it exists."""
    return (
        select(DifferenceAcknowledgement.id)
        .where(
            DifferenceAcknowledgement.id == ReconciliationDifference.acknowledgement_id,
            DifferenceAcknowledgement.withdrawn_at.is_(None),
        )
        .correlate(ReconciliationDifference)
    )


def is_acknowledged() -> ColumnElement[bool]:
    """Whether somebody has acknowledged a difference, and not withdrawn that."""
    return acknowledgement_in_force().exists()
