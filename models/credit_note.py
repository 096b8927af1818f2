"""Credit notes: documents that take back what an invoice billed."""

from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from billing.credit_notes import Destination
from models.base import Base, CreatedAt, JsonObject, MinorUnits, PrimaryKey, is_currency, one_of


class CreditNote(Base):
    """What a note takes of its invoice, in the invoice's minor units. Append-only.

    ``amount`` is ``net`` and ``tax``; ``taxes`` has the tax by the rate's id. It lowered what was
    due by ``lowers_due``, and ``returned`` went to ``returned_to``. ``positions`` are the lines
    that it names. One that ``voids`` its invoice says so on paper; the void itself moved the money.
    """

    __tablename__ = "credit_notes"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        # Of this client, and in this currency.
        ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
        ),
        UniqueConstraint("account_id", "number"),
        UniqueConstraint("account_id", "series_year", "sequence"),
        Index("ix_credit_notes_account_id_id", "account_id", "id"),
        Index("ix_credit_notes_invoice_id", "invoice_id"),
        Index("ix_credit_notes_client_id_id", "client_id", "id"),
        Index("uq_credit_notes_voids", "invoice_id", unique=True, postgresql_where="voids"),
        CheckConstraint(is_currency(), name="currency"),
        CheckConstraint("amount > 0 AND amount = net + tax", name="amount"),
        CheckConstraint(
            "lowers_due >= 0 AND returned >= 0 AND lowers_due + returned"
            " = CASE WHEN voids THEN 0 ELSE amount END",
            name="settlement",
        ),
        CheckConstraint("(returned > 0) = (returned_to IS NOT NULL)", name="returned"),
        CheckConstraint(one_of("returned_to", Destination), name="returned_to"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID]
    client_id: Mapped[UUID]
    invoice_id: Mapped[UUID]
    number: Mapped[str]
    sequence: Mapped[int] = mapped_column(BigInteger)
    series_year: Mapped[int]
    currency: Mapped[str]
    amount: Mapped[MinorUnits]
    net: Mapped[MinorUnits]
    tax: Mapped[MinorUnits]
    taxes: Mapped[JsonObject]
    lowers_due: Mapped[MinorUnits] = mapped_column(server_default="0")
    returned: Mapped[MinorUnits] = mapped_column(server_default="0")
    returned_to: Mapped[str | None]
    positions: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'"))
    voids: Mapped[bool] = mapped_column(server_default="false")
    reason: Mapped[str | None]
    bill_from: Mapped[dict[str, Any] | None]
    bill_to: Mapped[dict[str, Any] | None]
    issued_on: Mapped[date]
    requested_by: Mapped[str]
    created_at: Mapped[CreatedAt]
