"""Live processes, as their heartbeats tell."""

from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Text

from models.base import Base, CreatedAt, PrimaryKey


class Process(Base):
    """One running worker, dispatcher or scheduler.

    ``busy_threads`` of ``threads`` were running jobs at ``heartbeat_at``.
    """

    __tablename__ = "processes"

    id: Mapped[PrimaryKey]
    kind: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")
    threads: Mapped[int] = mapped_column(server_default="0")
    busy_threads: Mapped[int] = mapped_column(server_default="0")
    started_at: Mapped[CreatedAt]
    heartbeat_at: Mapped[CreatedAt]
