"""What operators do to queues, and releases to kinds of job, while everything runs."""

import time
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from models import job_ledger
from tests.chaos.faults.target import Target
from tests.chaos.next_release import next_job
from tests.chaos.patience import patiently

_PAUSE = "UPDATE queues SET paused_at = now() WHERE name = :queue"
_RESUME = "UPDATE queues SET paused_at = NULL WHERE name = :queue"
_STARTED = "SELECT count(*) FROM jobs WHERE queue = :queue AND started_at > :since"


def deploy_ahead(target: Target) -> None:
    """A job of the next release's kind, then that release."""
    patiently(target.engine, lambda session: job_ledger.enqueue(session.connection(), next_job()))
    time.sleep(2)
    target.fleet.release(CHAOS_NEXT_RELEASE="1")


def pause_a_queue(target: Target) -> None:
    """A queue paused by hand: nothing in it starts until it goes on."""
    queue = target.rng.choice(("billing", "payments", "mail"))
    patiently(target.engine, lambda session: session.execute(text(_PAUSE), {"queue": queue}))
    since = patiently(target.engine, _database_time)
    time.sleep(2)

    started = {"queue": queue, "since": since}
    jobs = patiently(target.engine, lambda session: session.scalar(text(_STARTED), started))
    patiently(target.engine, lambda session: session.execute(text(_RESUME), {"queue": queue}))
    if jobs:
        target.broken.append(f"{jobs} jobs started in {queue} while it was paused")


def _database_time(session: Session) -> datetime:
    now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now
