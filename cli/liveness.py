"""Which processes of a stack live, as their heartbeats tell."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models import Process

# Three heartbeats: one may be late, two in a row tell.
ALIVE_WITHIN = timedelta(seconds=15)

NEEDED = ("dispatcher", "scheduler", "web", "worker")
"""The kinds of process that a whole stack has at least one of."""


def alive_processes(session: Session) -> Sequence[Process]:
    """Processes that beat just now by the database's own clock, sorted by kind."""
    return session.scalars(
        select(Process)
        .where(Process.heartbeat_at > func.now() - ALIVE_WITHIN)
        .order_by(Process.kind, Process.started_at)
    ).all()
