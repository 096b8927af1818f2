"""What became of one run."""

from collections import Counter
from dataclasses import dataclass, field

GOAL_SETTLED_SECONDS = 15.0
GOAL_RESTARTED_SECONDS = 20.0


@dataclass
class Report:
    """Counts, times, and what was broken.

    Attributes:
        faults: By name, as they were made.
        fenced: Runs that had lost their lease by the time they wanted to commit.
        repeated: Requests over HTTP that had to be made again.
        restarted_seconds: From a worker's death to the next start of a job that it had, for each
            job that could be started: not while PostgreSQL or Redis was away, or its queue paused.
        settled_seconds: From the end of the last fault to the end of all work.
        last: The job that ended last, and its runs.
        done: What clients, banks and Duecourse itself did, and how often.
        never_done: What the product can do and was not asked for with success, in words.
        violations: Promises that were broken, in words.
    """

    seed: int
    faults: list[str] = field(default_factory=list)
    jobs: int = 0
    charges: int = 0
    mails: int = 0
    rescued: int = 0
    fenced: int = 0
    restarts: int = 0
    repeated: int = 0
    replayed: int = 0
    restarted_seconds: list[float] = field(default_factory=list)
    settled_seconds: float = 0.0
    last: str = ""
    done: Counter[str] = field(default_factory=Counter)
    never_done: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept, and in time."""
        return (
            not self.violations
            and self.settled_seconds <= GOAL_SETTLED_SECONDS
            and max(self.restarted_seconds, default=0.0) <= GOAL_RESTARTED_SECONDS
        )
