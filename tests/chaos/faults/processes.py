"""Processes that die, stop for a while, disagree about the time, or are replaced."""

import time
from uuid import UUID

from sqlalchemy import text

from models import job_ledger
from tests.chaos.crashing import POINTS
from tests.chaos.faults.target import Target, happens
from tests.chaos.marks import marks_job
from tests.chaos.patience import patiently

PAUSED_FOR_SECONDS = 13.0
"""Longer than a lease and a sweep."""

SKEW_SECONDS = 61
"""Past everything that dramatiq believes in."""

START_WITHIN_SECONDS = 30.0

GRACE_SECONDS = 30.0
"""What orchestrators give a process that they asked to end."""


def crash_at_points(target: Target) -> None:
    """kill -9 of three processes right before or after a commit, a call, a ring, a claim."""
    for kind in target.rng.sample(sorted(POINTS), 3):
        point = target.rng.choice(POINTS[kind])
        target.fleet.replace(kind, point=point, nth=target.rng.randrange(1, 12))


def kill_at_random(target: Target) -> None:
    """kill -9 of any process, whatever it does."""
    target.fleet.kill(target.rng.choice(target.fleet.kinds), rng=target.rng)


def kill_all_workers(target: Target) -> None:
    """kill -9 of every process that works, at once, as when a host is lost, in mid-job."""
    job = patiently(
        target.engine, lambda session: job_ledger.enqueue(session.connection(), marks_job(3.0))
    )
    if not _starts(target, job.id, runs=1):
        target.broken.append(f"job {job.id} did not start in {START_WITHIN_SECONDS:.0f} s")
        return
    target.fleet.kill_all(target.fleet.workers)
    died = time.monotonic()
    if not _starts(target, job.id, runs=2):
        target.broken.append(f"job {job.id} did not start again after its worker died")
    target.restarted_seconds.append(time.monotonic() - died)


def pause_a_worker(target: Target) -> None:
    """SIGSTOP past its lease, then SIGCONT: another has its jobs meanwhile."""
    kind = target.rng.choice(target.fleet.workers)
    target.fleet.pause(kind, PAUSED_FOR_SECONDS, rng=target.rng)


def skew_a_clock(target: Target) -> None:
    """A worker whose clock is a minute ahead, or behind."""
    skew = target.rng.choice((SKEW_SECONDS, -SKEW_SECONDS))
    target.fleet.replace(target.rng.choice(target.fleet.workers), CHAOS_CLOCK_SKEW=str(skew))


def deploy(target: Target) -> None:
    """SIGTERM to every process, one kind after another, while it works: each ends in time."""
    for kind in target.fleet.lines:
        seconds = target.fleet.stop(kind)
        if seconds > GRACE_SECONDS:
            target.broken.append(f"{kind} took {seconds:.1f} s to end when asked")


def _starts(target: Target, job_id: UUID, *, runs: int) -> bool:
    """Whether a job's so manieth run begins in time. It is killed in the first."""
    begun = text("SELECT attempt >= :runs FROM jobs WHERE id = :id")
    wanted = {"runs": runs, "id": job_id}
    return happens(
        lambda: bool(patiently(target.engine, lambda session: session.scalar(begun, wanted))),
        within_seconds=START_WITHIN_SECONDS,
    )
