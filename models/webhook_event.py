"""Webhook events: what a vendor told us, stored before it is handled."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped

from models.base import Base, CreatedAt, PrimaryKey


class WebhookEvent(Base):
    """One event of a vendor, kept once however often it is delivered."""

    __tablename__ = "webhook_events"
    __table_args__ = (
        UniqueConstraint("provider", "event_id"),
        CheckConstraint("provider IN ('stripe', 'sendgrid')", name="provider"),
    )

    id: Mapped[PrimaryKey]
    provider: Mapped[str]
    event_id: Mapped[str]
    type: Mapped[str]
    payload: Mapped[dict[str, Any]]
    received_at: Mapped[CreatedAt]
    handled_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    account_id: Mapped[UUID | None]
