"""Schedules as rows, and every fire of each."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, CreatedAt


class Schedule(Base):
    """A line of the schedule table, as the scheduler last wrote it down."""

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(primary_key=True)
    cron: Mapped[str]
    time_zone: Mapped[str]
    kind: Mapped[str]
    description: Mapped[str]
    next_fire_at: Mapped[datetime]
    paused_at: Mapped[datetime | None]
    paused_by: Mapped[str | None]


class ScheduleFire(Base):
    """That a schedule fired for one time. The key is what makes two schedulers safe.

    ``missed`` counts earlier fire times that passed while no scheduler ran, and that this one
    stands for.
    """

    __tablename__ = "schedule_fires"

    schedule: Mapped[str] = mapped_column(
        ForeignKey("schedules.name", ondelete="CASCADE"), primary_key=True
    )
    fire_at: Mapped[datetime] = mapped_column(primary_key=True)
    job_id: Mapped[UUID]
    missed: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[CreatedAt]
