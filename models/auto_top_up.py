"""Automatic top-ups: when a client's card fills its credit again, and how that went."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CreatedAt, MinorUnits, is_currency


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
