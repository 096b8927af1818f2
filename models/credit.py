"""Credit: one signed balance per client and currency, and every movement of it."""

from datetime import date
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Select,
    select,
    tuple_,
)
from sqlalchemy.orm import Mapped, mapped_column

from billing.credit import CreditEntryKind
from models.base import Base, CreatedAt, MinorUnits, PrimaryKey, is_currency, one_of


class CreditBalance(Base):
    """What a client has in hand, in minor units; below zero where it owes from before.

    The row's lock is what keeps credit from being spent twice.
    """

    __tablename__ = "credit_balances"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        CheckConstraint(is_currency(), name="currency"),
    )

    client_id: Mapped[UUID] = mapped_column(primary_key=True)
    currency: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[UUID]
    balance: Mapped[MinorUnits] = mapped_column(server_default="0")


class CreditEntry(Base):
    """One movement of a balance. Append-only; a balance equals the sum of its entries."""

    __tablename__ = "credit_entries"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "currency"], ["credit_balances.client_id", "credit_balances.currency"]
        ),
        # Of this client, and in this currency.
        ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
        ),
        Index("ix_credit_entries_client_id_id", "client_id", "id"),
        Index("ix_credit_entries_invoice_id", "invoice_id"),
        # What a void gives back, it gives back once.
        Index(
            "uq_credit_entries_returned",
            "invoice_id",
            unique=True,
            postgresql_where="kind = 'returned'",
        ),
        Index(
            "uq_credit_entries_settled",
            "invoice_id",
            unique=True,
            postgresql_where="kind = 'settled'",
        ),
        CheckConstraint(one_of("kind", CreditEntryKind), name="kind"),
        CheckConstraint("amount <> 0", name="amount"),
    )

    id: Mapped[PrimaryKey]
    client_id: Mapped[UUID]
    currency: Mapped[str]
    kind: Mapped[str]
    amount: Mapped[MinorUnits]
    invoice_id: Mapped[UUID | None]
    payment_id: Mapped[UUID | None] = mapped_column(ForeignKey("payments.id"))
    grant_id: Mapped[UUID | None] = mapped_column(ForeignKey("credit_grants.id"))
    credit_note_id: Mapped[UUID | None] = mapped_column(ForeignKey("credit_notes.id"))
    refund_id: Mapped[UUID | None] = mapped_column(ForeignKey("refunds.id"))
    dispute_id: Mapped[UUID | None] = mapped_column(ForeignKey("disputes.id"))
    note: Mapped[str | None]
    requested_by: Mapped[str]
    created_at: Mapped[CreatedAt]


class CreditGrant(Base):
    """Promotional credit, and what remains of it: a part of its client's balance.

    ``expires_on`` is the first day, in the client's zone, on which it cannot be used.
    """

    __tablename__ = "credit_grants"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        Index(
            "ix_credit_grants_remaining",
            "client_id",
            "currency",
            postgresql_where="remaining > 0",
        ),
        Index("ix_credit_grants_expires_on", "expires_on", postgresql_where="remaining > 0"),
        CheckConstraint(is_currency(), name="currency"),
        CheckConstraint("amount > 0 AND remaining BETWEEN 0 AND amount", name="remaining"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID]
    client_id: Mapped[UUID]
    currency: Mapped[str]
    amount: Mapped[MinorUnits]
    remaining: Mapped[MinorUnits]
    expires_on: Mapped[date | None]
    note: Mapped[str | None]
    requested_by: Mapped[str]
    created_at: Mapped[CreatedAt]


class CreditGrantUse(Base):
    """How much of a grant an invoice uses; a void gives it back to the grant."""

    __tablename__ = "credit_grant_uses"
    __table_args__ = (CheckConstraint("amount > 0", name="amount"),)

    invoice_id: Mapped[UUID] = mapped_column(ForeignKey("invoices.id"), primary_key=True)
    grant_id: Mapped[UUID] = mapped_column(ForeignKey("credit_grants.id"), primary_key=True)
    amount: Mapped[MinorUnits]


def balances_for_update(keys: list[tuple[UUID, str]]) -> Select[CreditBalance]:
    """Balances by client and currency, locked in that order, as the last writer left them."""
    return (
        select(CreditBalance)
        .where(tuple_(CreditBalance.client_id, CreditBalance.currency).in_(keys))
        .order_by(CreditBalance.client_id, CreditBalance.currency)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
