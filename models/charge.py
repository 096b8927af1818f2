"""Charges: recorded pieces of billable work, open until an invoice takes them."""

from datetime import date
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from billing.money import MAX_AMOUNT
from models.base import (
    Base,
    CreatedAt,
    JsonObject,
    MinorUnits,
    PrimaryKey,
    Quantity,
    UnitPrice,
    is_currency,
)


class ChargeState(StrEnum):
    """Where a charge stands, read off its invoice: none, a draft, or a finalized one."""

    OPEN = "open"
    INVOICED = "invoiced"
    LOCKED = "locked"


class Charge(Base):
    """One line of work to bill.

    ``amount`` is in the currency's minor unit, rounded once when recorded; ``unit_price`` is a
    decimal in major units, NULL when the amount was given outright. A charge on a finalized
    invoice is immutable (trigger ``charges_locked``); once that is void, a ``copy_of`` it can be
    billed. One that ``amends`` it corrects it on another invoice. ``tax_rates``, ids of
    ``TaxRate``, fall back to the client's when NULL; those apply that are valid on ``taxed_on``, or
    on ``charged_on`` when that is NULL. An amendment is taxed as its original was: all of its
    ``tax_rates`` apply, whatever their dates are by now, and ``tax_exempt`` is as it was then.
    """

    __tablename__ = "charges"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        # Also keeps a charge off an invoice of another client, or in another currency.
        ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
        ),
        Index("uq_charges_external_ref", "account_id", "external_ref", unique=True),
        # One index finds a client's open charges (invoice_id IS NULL) and a draft's. A partial
        # one would make every update of invoice_id touch its predicate column all the same.
        Index("ix_charges_client_id_invoice_id", "client_id", "invoice_id"),
        Index("ix_charges_account_id_id", "account_id", "id"),
        # A voided charge is billed again once.
        Index("uq_charges_copy_of", "copy_of", unique=True, postgresql_where="copy_of IS NOT NULL"),
        Index("ix_charges_amends", "amends", postgresql_where="amends IS NOT NULL"),
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint(f"amount BETWEEN -{MAX_AMOUNT} AND {MAX_AMOUNT}", name="amount"),
        CheckConstraint(is_currency(), name="currency"),
        {"postgresql_with": {"fillfactor": "70"}},
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID]
    client_id: Mapped[UUID]
    invoice_id: Mapped[UUID | None]
    copy_of: Mapped[UUID | None] = mapped_column(ForeignKey("charges.id"))
    amends: Mapped[UUID | None] = mapped_column(ForeignKey("charges.id"))
    external_ref: Mapped[str | None]
    charged_on: Mapped[date]
    description: Mapped[str]
    category: Mapped[str | None]
    quantity: Mapped[Quantity]
    unit_price: Mapped[UnitPrice | None]
    amount: Mapped[MinorUnits]
    currency: Mapped[str]
    tax_rates: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    taxed_on: Mapped[date | None]
    tax_exempt: Mapped[bool | None]
    details: Mapped[JsonObject] = mapped_column("metadata")
    created_at: Mapped[CreatedAt]
