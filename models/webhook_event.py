"""Webhook events: what a vendor told us, stored before it is handled."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CreatedAt, PrimaryKey


class WebhookEvent(Base):
    """One event of a vendor, kept once however often it is delivered.

    ``merchant_id`` is whose own secret has signed it, NULL for the deployment's.
    """

    __tablename__ = "webhook_events"
    __table_args__ = (
        # Whoever signs with a key of its own could otherwise forestall an event of others.
        UniqueConstraint("provider", "event_id", "merchant_id", postgresql_nulls_not_distinct=True),
        CheckConstraint("provider IN ('stripe', 'sendgrid')", name="provider"),
    )

    id: Mapped[PrimaryKey]
    provider: Mapped[str]
    event_id: Mapped[str]
    type: Mapped[str]
    payload: Mapped[dict[str, Any]]
    merchant_id: Mapped[UUID | None] = mapped_column(ForeignKey("stripe_merchants.id"))
    received_at: Mapped[CreatedAt]
    handled_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    account_id: Mapped[UUID | None]
