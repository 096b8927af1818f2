"""Processes that die, stop for a while, disagree about the time, or are replaced."""

from tests.chaos.crashing import POINTS
from tests.chaos.faults.target import Target

PAUSED_FOR_SECONDS = 13.0
"""Longer than a lease and a sweep."""

SKEW_SECONDS = 61
"""Past everything that dramatiq believes in."""

GRACE_SECONDS = 30.0
"""What orchestrators give a process that they asked to end."""


def crash_at_a_point(target: Target) -> None:
    """kill -9 of a process right before or after a commit, a call, a ring, a claim."""
    kind = target.rng.choice(target.fleet.kinds)
    point = target.rng.choice(POINTS)
    target.fleet.replace(kind, point=point, nth=target.rng.randrange(1, 12))


def kill_at_random(target: Target) -> None:
    """kill -9 of any process, whatever it does."""
    target.fleet.kill(target.rng.choice(target.fleet.kinds), rng=target.rng)


def kill_all_workers(target: Target) -> None:
    """kill -9 of every process that works, at once, as when a host is lost."""
    target.fleet.kill_all(target.fleet.workers)


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
    for kind in target.fleet.kinds:
        seconds = target.fleet.stop(kind, rng=target.rng)
        if seconds > GRACE_SECONDS:
            target.broken.append(f"{kind} took {seconds:.1f} s to end when asked")
