"""Queues: where jobs of one latency class wait, and whether they may start."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base

PAUSED_FOR_OUTAGE = "breaker: Stripe is not reachable"
"""In place of who paused: nobody did, and it ends by itself."""


class Queue(Base):
    """A queue. Dispatching holds the row's lock, so a committed pause stops the next one."""

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[datetime | None]
    paused_by: Mapped[str | None]
