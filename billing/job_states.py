"""The states of a job, and how long a failed one waits."""

from datetime import timedelta
from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands. A failed one will be tried again; a dead one will not."""

    SCHEDULED = "scheduled"
    READY = "ready"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


FINAL = frozenset({JobState.SUCCEEDED, JobState.DEAD, JobState.CANCELLED, JobState.SKIPPED})
"""Nothing more happens by itself."""

# From one second to ten minutes, three times longer each time.
_RETRY_SECONDS = (1, 3, 9, 27, 81, 243, 600)
_MAX_JITTER = 0.25


def retry_delay(attempt: int, *, jitter: float) -> timedelta:
    """How long to wait after the ``attempt``-th attempt (from 1) failed.

    ``jitter``, from 0 up to but not including 1, adds up to a quarter, also at the longest
    delay, so that jobs which failed together do not come back together.

    Raises:
        ValueError: ``attempt`` is below 1, or ``jitter`` is out of its range.
    """
    if attempt < 1:
        raise ValueError("attempts are counted from 1")
    if not 0 <= jitter < 1:
        raise ValueError("jitter must be at least 0 and below 1")
    seconds = _RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS)) - 1]
    return timedelta(seconds=seconds * (1 + _MAX_JITTER * jitter))
