"""What came of one run of a job. Outcomes are values; the runner writes them down."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Done:
    """The work is done. ``result`` is what the job's reader is told, as JSON values."""

    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Skip:
    """There is nothing to do any more; ``reason`` is the stable code that says why."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Snooze:
    """Not now: run again after a while. Uses up no attempt; ``error`` says what it waits out."""

    after: timedelta
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class AwaitChildren:
    """``children`` jobs were enqueued with this one as parent: run again when all have ended."""

    children: int


@dataclass(frozen=True, slots=True)
class Retry:
    """It failed in a way that may pass: try again after a while, attempts permitting."""

    error: BaseException
    after: timedelta


@dataclass(frozen=True, slots=True)
class Fail:
    """It failed in a way that will not pass by itself: dead, for a person to look at."""

    error: BaseException
    reason: str


class NotYet(Exception):  # noqa: N818 - named as the fact it states
    """Nothing that this run did is kept: run again ``after`` a while. Uses up no attempt."""

    def __init__(self, after: timedelta) -> None:
        super().__init__(f"not for another {after}")
        self.after = after


Outcome = Done | Skip | Snooze | AwaitChildren | Retry | Fail


def described(error: BaseException) -> dict[str, str]:
    """An error for its reader: class and first line, without a statement's parameters."""
    cause = getattr(error, "orig", None) or error
    return {"type": type(cause).__name__, "message": str(cause).strip().split("\n", 1)[0][:500]}
