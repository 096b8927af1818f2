"""Billing runs: all of an account's periods that fell due at one tick, or that someone asked for."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CreatedAt, PrimaryKey

FURTHEST_AHEAD = timedelta(hours=14)
"""The local time of UTC+14 (Kiritimati): no zone's calendar is further ahead."""


class BillingRun(Base):
    """One run of one account.

    Boundaries up to ``as_of_at`` (an instant), or up to the midnight that begins ``as_of_on`` in
    each client's zone, are due. ``scheduled`` runs leave alone what waits from before its
    client's activation. ``preview`` is what a ``dry_run`` found.
    """

    __tablename__ = "billing_runs"
    __table_args__ = (
        ForeignKeyConstraint(["account_id", "client_id"], ["clients.account_id", "clients.id"]),
        CheckConstraint("num_nonnulls(as_of_at, as_of_on) = 1", name="as_of"),
        # Two scheduler ticks never work on the same periods side by side.
        Index(
            "uq_billing_runs_scheduled",
            "account_id",
            unique=True,
            postgresql_where="scheduled AND finished_at IS NULL",
        ),
        Index("ix_billing_runs_dry", "finished_at", postgresql_where="dry_run"),
        Index("ix_billing_runs_unfinished", "id", postgresql_where="finished_at IS NULL"),
        Index("ix_billing_runs_account_id_id", "account_id", "id"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    client_id: Mapped[UUID | None]
    as_of_at: Mapped[datetime | None]
    as_of_on: Mapped[date | None]
    scheduled: Mapped[bool] = mapped_column(server_default="false")
    dry_run: Mapped[bool] = mapped_column(server_default="false")
    preview: Mapped[dict[str, Any] | None]
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[datetime | None]

    @property
    def looks_ahead(self) -> bool:
        """Whether it asks for what has not come: a date that has begun in no zone, an instant."""
        if self.as_of_on is not None:
            return self.as_of_on > (self.created_at.astimezone(UTC) + FURTHEST_AHEAD).date()
        return self.as_of_at is not None and self.as_of_at > self.created_at
