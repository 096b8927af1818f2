"""Clients: who is billed, and on which cycle."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    Select,
    UniqueConstraint,
    Uuid,
    select,
)
from sqlalchemy.orm import Mapped, mapped_column

from billing.cycles import BillingCycle, Cadence
from billing.dates import MAX_NET_DAYS
from billing.reviews import MAX_REVIEW_HOURS, review_hours_for
from models.account import Account
from models.base import Base, CreatedAt, JsonList, JsonObject, PrimaryKey, is_currency, one_of


class Client(Base):
    """One party that an account bills.

    ``time_zone``, ``currency``, ``net_days`` and ``auto_collect`` fall back to the account's when
    NULL; so does each mail that ``notifications`` does not switch.
    ``review_hours`` too, unless ``review_by_person``; ``tax_rates``, ids of ``TaxRate``, too, but an
    empty list is none. ``activated_at`` is when the client was last put on a cycle: the scheduler bills only
    periods that end after it. The row's lock is what serialises everything that drafts.
    ``stripe_customer`` is the customer at Stripe that was made for it, if one was; ``customers_lost``
    how many before it are no more.
    """

    __tablename__ = "clients"
    __table_args__ = (
        UniqueConstraint("account_id", "id"),  # Lets other rows prove they share the account.
        Index("uq_clients_external_ref", "account_id", "external_ref", unique=True),
        Index(
            "ix_clients_stripe_customer",
            "stripe_customer",
            postgresql_where="stripe_customer IS NOT NULL",
        ),
        CheckConstraint(one_of("billing_cycle", BillingCycle), name="billing_cycle"),
        CheckConstraint(
            "anchor_day BETWEEN 1 AND 31 AND (billing_cycle <> 'weekly' OR anchor_day <= 7)",
            name="anchor_day",
        ),
        CheckConstraint(is_currency(), name="currency"),
        CheckConstraint(f"net_days BETWEEN 0 AND {MAX_NET_DAYS}", name="net_days"),
        CheckConstraint(f"review_hours BETWEEN 0 AND {MAX_REVIEW_HOURS}", name="review_hours"),
        CheckConstraint("NOT review_by_person OR review_hours IS NULL", name="review_by_person"),
        CheckConstraint("archived_at IS NULL OR billing_cycle = 'manual'", name="archived"),
        CheckConstraint(
            "billing_cycle = 'manual' OR (billing_starts_on IS NOT NULL AND activated_at IS NOT NULL)",
            name="on_a_cycle_since",
        ),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    external_ref: Mapped[str | None]
    name: Mapped[str]
    legal_name: Mapped[str | None]
    email: Mapped[str | None]
    address: Mapped[dict[str, Any] | None]
    tax_ids: Mapped[JsonList]
    currency: Mapped[str | None]
    time_zone: Mapped[str | None]
    net_days: Mapped[int | None]
    auto_collect: Mapped[bool | None]
    notifications: Mapped[JsonObject]
    billing_cycle: Mapped[str] = mapped_column(server_default=BillingCycle.MANUAL)
    anchor_day: Mapped[int] = mapped_column(server_default="1")
    billing_starts_on: Mapped[date | None]
    activated_at: Mapped[datetime | None]
    review_hours: Mapped[int | None]
    review_by_person: Mapped[bool] = mapped_column(server_default="false")
    tax_rates: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    tax_exempt: Mapped[bool] = mapped_column(server_default="false")
    billing_paused: Mapped[bool] = mapped_column(server_default="false")
    collection_paused: Mapped[bool] = mapped_column(server_default="false")
    customers_lost: Mapped[int] = mapped_column(server_default="0")
    use_backup_card: Mapped[bool] = mapped_column(server_default="false")
    stripe_customer: Mapped[str | None]
    archived_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]

    @property
    def cadence(self) -> Cadence:
        """When the client's periods begin, if it is on a cycle."""
        return Cadence(BillingCycle(self.billing_cycle), self.anchor_day)

    def zone(self, account: Account) -> ZoneInfo:
        """The zone whose midnights bound this client's periods."""
        return ZoneInfo(self.time_zone or account.time_zone)

    def hours_of_review(self, account: Account) -> int | None:
        """How long its periods' drafts are reviewed; None where a person finalizes them."""
        return review_hours_for(
            account=account.review_hours, client=self.review_hours, by_person=self.review_by_person
        )

    def is_billing_paused(self, account: Account) -> bool:
        """Whether nothing is drafted and finalized by itself, here or in all of the account."""
        return self.billing_paused or account.billing_paused

    def is_collection_paused(self, account: Account) -> bool:
        """Whether no card is charged by itself, here or in all of the account."""
        return self.collection_paused or account.collection_paused


def clients_for_update(ids: Sequence[UUID]) -> Select[Client]:
    """Clients, locked in id order, so that two writers never wait for each other in a ring.

    NO KEY: recording a charge, which only refers to the client, need not wait.
    """
    return _locked(Client.id.in_(ids))


def client_alone(client_id: UUID) -> Select[Client]:
    """A client, locked so that even recording a charge for it waits."""
    return (
        select(Client)
        .where(Client.id == client_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )


def clients_to_charge(ids: Sequence[UUID]) -> Select[UUID, datetime | None]:
    """Ids of clients, and since when each is archived: none is from here on to the commit.

    It waits only for one that is being archived.
    """
    return (
        select(Client.id, Client.archived_at)
        .where(Client.id.in_(ids))
        .order_by(Client.id)
        .with_for_update(read=True, key_share=True)
    )


def clients_in_the_zone_of(account_id: UUID) -> Select[Client]:
    """The clients on a cycle whose boundaries follow the account's zone, locked in the same way.

    By what they are and not by their ids: a statement takes at most 65,535 of those.
    """
    return _locked(
        Client.account_id == account_id,
        Client.time_zone.is_(None),
        Client.billing_cycle != BillingCycle.MANUAL,
    )


def _locked(*conditions: ColumnElement[bool]) -> Select[Client]:
    return (
        select(Client)
        .where(*conditions)
        .order_by(Client.id)
        .with_for_update(key_share=True)
        # A lock that had to wait must show what the other writer left.
        .execution_options(populate_existing=True)
    )
