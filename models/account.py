"""Accounts: the businesses that bill. Every other row belongs to one."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKeyConstraint, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from billing.dates import DEFAULT_NET_DAYS, MAX_NET_DAYS, InvoiceDate
from billing.disputes import DisputeLost
from billing.dunning import DEFAULT_RETRY_DAYS, DunningFinal
from billing.number_formats import CREDIT_NOTE_FORMAT, DEFAULT_FORMAT, NumberReset
from billing.reviews import MAX_REVIEW_HOURS
from models.base import Base, CreatedAt, JsonList, JsonObject, PrimaryKey, is_currency, one_of


class Account(Base):
    """A business, and the defaults its clients inherit.

    ``address`` is an object of text lines, frozen into each finalized invoice; ``tax_ids`` a
    list of texts; ``net_days`` whole days from issue to due; ``dunning_days`` the days from each
    declined try of a card to the next, and ``dunning_final`` what becomes of the invoice after the
    last; ``notifications`` the mails that were switched, by kind. ``dispute_lost`` is what becomes of
    an invoice whose payment was lost in a dispute.
    ``review_hours`` is NULL where a person finalizes the drafts of billing periods; ``tax_rates``
    are ids of ``TaxRate``; ``merchant_id`` is the Stripe account that is charged through, NULL for
    the deployment's; up to ``books_closed_through`` nothing is posted any more.
    """

    __tablename__ = "accounts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["id", "merchant_id"],
            ["stripe_merchants.account_id", "stripe_merchants.id"],
            # The two tables refer to each other.
            use_alter=True,
        ),
        CheckConstraint(is_currency(), name="currency"),
        CheckConstraint(f"net_days BETWEEN 0 AND {MAX_NET_DAYS}", name="net_days"),
        CheckConstraint(one_of("dunning_final", DunningFinal), name="dunning_final"),
        CheckConstraint(f"review_hours BETWEEN 0 AND {MAX_REVIEW_HOURS}", name="review_hours"),
        CheckConstraint(one_of("invoice_date", InvoiceDate), name="invoice_date"),
        CheckConstraint(one_of("number_reset", NumberReset), name="number_reset"),
        CheckConstraint(one_of("dispute_lost", DisputeLost), name="dispute_lost"),
    )

    id: Mapped[PrimaryKey]
    name: Mapped[str]
    legal_name: Mapped[str | None]
    address: Mapped[dict[str, Any] | None]
    tax_ids: Mapped[JsonList]
    time_zone: Mapped[str] = mapped_column(server_default="UTC")
    currency: Mapped[str] = mapped_column(server_default="usd")
    net_days: Mapped[int] = mapped_column(server_default=str(DEFAULT_NET_DAYS))
    auto_collect: Mapped[bool] = mapped_column(server_default="true")
    dunning_days: Mapped[list[Any]] = mapped_column(server_default=str(list(DEFAULT_RETRY_DAYS)))
    dunning_final: Mapped[str] = mapped_column(server_default=DunningFinal.OPEN)
    notifications: Mapped[JsonObject]
    tax_rates: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid), server_default=text("'{}'"))
    review_hours: Mapped[int | None] = mapped_column(server_default="0")
    invoice_date: Mapped[str] = mapped_column(server_default=InvoiceDate.BOUNDARY)
    number_format: Mapped[str] = mapped_column(server_default=DEFAULT_FORMAT)
    credit_note_format: Mapped[str] = mapped_column(server_default=CREDIT_NOTE_FORMAT)
    number_reset: Mapped[str] = mapped_column(server_default=NumberReset.NEVER)
    void_makes_credit_note: Mapped[bool] = mapped_column(server_default="false")
    dispute_lost: Mapped[str] = mapped_column(server_default=DisputeLost.REOPEN)
    billing_paused: Mapped[bool] = mapped_column(server_default="false")
    collection_paused: Mapped[bool] = mapped_column(server_default="false")
    merchant_id: Mapped[UUID | None]
    books_closed_through: Mapped[date | None]
    # When it was last set: the database notes it (trigger ``accounts_close_books``).
    books_closed_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
