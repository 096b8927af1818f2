"""The books: append-only entries, each of postings that sum to zero."""

from datetime import date
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from billing.postings import ONCE_AN_INVOICE, LedgerAccount, LedgerEvent
from models.base import Base, CreatedAt, MinorUnits, PrimaryKey, is_currency, one_of

_ONCE_AN_INVOICE_SQL = ", ".join(sorted(repr(event.value) for event in ONCE_AN_INVOICE))


class LedgerEntry(Base):
    """One event in the books: posted now, effective on a date. Never updated, never deleted."""

    __tablename__ = "ledger_entries"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        UniqueConstraint("id", "currency"),
        Index(
            "uq_ledger_entries_invoice_event",
            "invoice_id",
            "event",
            unique=True,
            postgresql_where=f"event IN ({_ONCE_AN_INVOICE_SQL})",
        ),
        Index("ix_ledger_entries_invoice_id", "invoice_id"),
        # Money received is booked once.
        Index("uq_ledger_entries_payment_id", "payment_id", unique=True),
        Index("uq_ledger_entries_credit_note_id", "credit_note_id", unique=True),
        # A refund is booked once, and once more if the bank gives it back.
        Index("uq_ledger_entries_refund_id_event", "refund_id", "event", unique=True),
        Index("uq_ledger_entries_dispute_id_event", "dispute_id", "event", unique=True),
        Index("ix_ledger_entries_grant_id", "grant_id"),
        Index("ix_ledger_entries_account_id_effective_on", "account_id", "effective_on"),
        Index("ix_ledger_entries_account_id_id", "account_id", "id"),
        Index("ix_ledger_entries_client_id_id", "client_id", "id"),
        CheckConstraint(one_of("event", LedgerEvent), name="event"),
        CheckConstraint(is_currency(), name="currency"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID]
    client_id: Mapped[UUID]
    invoice_id: Mapped[UUID | None] = mapped_column(ForeignKey("invoices.id"))
    payment_id: Mapped[UUID | None] = mapped_column(ForeignKey("payments.id"))
    credit_note_id: Mapped[UUID | None] = mapped_column(ForeignKey("credit_notes.id"))
    refund_id: Mapped[UUID | None] = mapped_column(ForeignKey("refunds.id"))
    grant_id: Mapped[UUID | None] = mapped_column(ForeignKey("credit_grants.id"))
    dispute_id: Mapped[UUID | None] = mapped_column(ForeignKey("disputes.id"))
    event: Mapped[str]
    currency: Mapped[str]
    effective_on: Mapped[date]
    posted_at: Mapped[CreatedAt]


class LedgerPosting(Base):
    """One side of an entry: debits positive, credits negative, in the entry's currency.

    All of an entry's postings are inserted by one statement: a trigger refuses a statement after
    which any touched entry does not sum to zero.
    """

    __tablename__ = "ledger_postings"
    __table_args__ = (
        ForeignKeyConstraint(
            ["entry_id", "currency"], ["ledger_entries.id", "ledger_entries.currency"]
        ),
        CheckConstraint("amount <> 0", name="amount"),
        CheckConstraint("(ledger_account = 'tax') = (tax_rate_id IS NOT NULL)", name="tax_rate"),
        CheckConstraint(one_of("ledger_account", LedgerAccount), name="ledger_account"),
        Index("ix_ledger_postings_entry_id", "entry_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    entry_id: Mapped[UUID]
    ledger_account: Mapped[str]
    tax_rate_id: Mapped[UUID | None] = mapped_column(ForeignKey("tax_rates.id"))
    currency: Mapped[str]
    amount: Mapped[MinorUnits]
