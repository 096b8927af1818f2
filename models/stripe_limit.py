"""How fast each Stripe account is asked, by all processes together."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CreatedAt

OF_THE_DEPLOYMENT = UUID(int=0)
"""In place of a merchant's id: the Stripe account of the deployment's own key."""


class StripeLimit(Base):
    """One Stripe account: when it may be asked next, and until when it wants to be left alone.

    ``merchant_id`` is all zeros for the deployment's own. Whoever takes a turn locks the row.
    """

    __tablename__ = "stripe_limits"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)

    merchant_id: Mapped[UUID] = mapped_column(primary_key=True)
    next_at: Mapped[CreatedAt]
    held_until: Mapped[datetime | None]


class StripeLane(Base):
    """Up to when an account's turns at a Stripe account are given away, by bulk work and by people.

    Each account has its own: a long backlog of one keeps no other waiting.
    """

    __tablename__ = "stripe_lanes"
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)

    merchant_id: Mapped[UUID] = mapped_column(
        ForeignKey("stripe_limits.merchant_id"), primary_key=True
    )
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    is_bulk: Mapped[bool] = mapped_column(primary_key=True)
    taken_until: Mapped[datetime]


class StripeTurn(Base):
    """The moment that a job waits for, which is its own: nobody else is given it."""

    __tablename__ = "stripe_turns"
    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    merchant_id: Mapped[UUID] = mapped_column(ForeignKey("stripe_limits.merchant_id"))
    at: Mapped[datetime]
