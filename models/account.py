"""Accounts: the businesses that bill. Every other row belongs to one."""

from typing import Any

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from billing.dates import DEFAULT_NET_DAYS, MAX_NET_DAYS
from billing.dunning import DEFAULT_RETRY_DAYS
from models.base import Base, CreatedAt, JsonList, JsonObject, PrimaryKey, is_currency


class Account(Base):
    """A business, and the defaults its clients inherit.

    ``address`` is an object of text lines, frozen into each finalized invoice; ``tax_ids`` a
    list of texts; ``net_days`` whole days from issue to due; ``dunning_days`` the days from each
    declined try of a card to the next; ``notifications`` the mails that were switched, by kind.
    """

    __tablename__ = "accounts"
    __table_args__ = (
        CheckConstraint(is_currency(), name="currency"),
        CheckConstraint(f"net_days BETWEEN 0 AND {MAX_NET_DAYS}", name="net_days"),
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
    notifications: Mapped[JsonObject]
    created_at: Mapped[CreatedAt]
