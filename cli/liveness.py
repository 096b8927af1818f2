"""Which processes of a stack live, as their heartbeats tell, and what nobody works on."""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models import Process, Queue

# Three heartbeats: one may be late, two in a row tell.
ALIVE_WITHIN = timedelta(seconds=15)

NEEDED = ("dispatcher", "scheduler", "web")
"""The kinds of process that a whole stack has at least one of, beside workers for every queue."""


def alive_processes(session: Session) -> Sequence[Process]:
    """Processes that beat just now by the database's own clock, sorted by kind."""
    return session.scalars(
        select(Process)
        .where(Process.heartbeat_at > func.now() - ALIVE_WITHIN)
        .order_by(Process.kind, Process.started_at)
    ).all()


def workers_of(queue: str, alive: Iterable[Process]) -> list[Process]:
    """Those of these processes that take jobs from a queue."""
    return [process for process in alive if queue in process.queues]


def obstacles(session: Session, queues: Collection[str]) -> list[str]:
    """Why jobs in these queues are not done just now, if so: one phrase for each reason."""
    alive = alive_processes(session)
    found = []
    if not any(process.kind == "dispatcher" for process in alive):
        found.append("no dispatcher is alive")
    found += [
        f"no worker serves {queue}" for queue in sorted(queues) if not workers_of(queue, alive)
    ]
    paused = session.scalars(
        select(Queue.name)
        .where(Queue.name.in_(queues), Queue.paused_at.is_not(None))
        .order_by(Queue.name)
    )
    return [*found, *(f"the queue {queue} is paused" for queue in paused)]
