"""Automatic top-ups: when a client's card fills its credit again, and how that went."""

from datetime import datetime
from typing import Self
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from billing.top_ups import AutoTopUp, TopUpTries
from models.base import Base, CreatedAt, MinorUnits, is_currency
from models.client import Client


class AutoTopUpSetting(Base):
    """A client's setting, in ``currency``'s minor units, and the declines since the last success."""

    __tablename__ = "auto_top_ups"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        CheckConstraint(is_currency(), name="currency"),
        CheckConstraint("threshold > 0 AND target > threshold", name="amounts"),
        CheckConstraint("declines >= 0", name="declines"),
    )

    client_id: Mapped[UUID] = mapped_column(primary_key=True)
    account_id: Mapped[UUID]
    currency: Mapped[str]
    threshold: Mapped[MinorUnits]
    target: Mapped[MinorUnits]
    declines: Mapped[int] = mapped_column(server_default="0")
    declined_at: Mapped[datetime | None]
    is_off: Mapped[bool] = mapped_column(server_default="false")
    created_at: Mapped[CreatedAt]

    @classmethod
    def of(cls, client: Client, setting: AutoTopUp) -> Self:
        """A client's new setting, with nothing declined."""
        row = cls(client_id=client.id, account_id=client.account_id)
        row.setting, row.tries = setting, TopUpTries()
        return row

    @property
    def setting(self) -> AutoTopUp:
        """When to charge, and how much."""
        return AutoTopUp(self.threshold, self.target, self.currency)

    @setting.setter
    def setting(self, wanted: AutoTopUp) -> None:
        self.threshold, self.target, self.currency = (
            wanted.threshold,
            wanted.target,
            wanted.currency,
        )

    @property
    def tries(self) -> TopUpTries:
        """What became of those since the last one that was paid."""
        return TopUpTries(self.declines, self.declined_at, self.is_off)

    @tries.setter
    def tries(self, known: TopUpTries) -> None:
        self.declines, self.declined_at, self.is_off = (
            known.declines,
            known.declined_at,
            known.is_off,
        )
