"""Runs one of Duecourse's processes, and kills it at a labelled point, as a crash would.

``python -m tests.chaos.crashing after_commit 12 workers.main --queues billing,ops`` ends the
process with SIGKILL right after its twelfth commit. The points are where something has just
become true, or is about to: around each commit, each call to a vendor, each ring over Redis, and
after each claim of a job. With ``never`` it only runs. ``CHAOS_CLOCK_SKEW`` sets the process's
clock ahead by so many seconds, ``CHAOS_NEXT_RELEASE`` has it know one more kind of job; it always
knows the one that leaves marks. ``CHAOS_MISTAKE`` names a mistake of ``sabotage`` that it makes.
"""

import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, NoReturn

import urllib3
from sqlalchemy.engine.default import DefaultDialect

from models import job_ledger
from tests.chaos import marks, next_release
from workers.broker import DoorbellBroker

_COMMITS = ("before_commit", "after_commit")
_CALLS = ("before_call", "after_call")

POINTS: Mapping[str, tuple[str, ...]] = {
    "dispatcher": (*_COMMITS, "before_ring", "after_ring"),
    "scheduler": _COMMITS,
    "web": _COMMITS,
    "worker": (*_COMMITS, "after_claim"),
    "payments": (*_COMMITS, "after_claim", *_CALLS),
    "mail": (*_COMMITS, "after_claim", *_CALLS),
}
"""Where a process can be made to die, by its line in the Procfile."""


def main() -> None:
    """Arm the point, then become the process."""
    point, nth, module, *arguments = sys.argv[1:]
    skew = float(os.environ.get("CHAOS_CLOCK_SKEW", "0"))
    if skew:
        real_time = time.time
        time.time = lambda: real_time() + skew
    marks.register()
    if os.environ.get("CHAOS_NEXT_RELEASE"):
        next_release.register()
    mistake = os.environ.get("CHAOS_MISTAKE")
    if mistake:
        _make(mistake)
    if point != "never":
        _arm(point, int(nth))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _make(mistake: str) -> None:
    # Only here: it loads what only workers need, and every process would start later.
    from tests.chaos.sabotage import MISTAKES  # noqa: PLC0415

    MISTAKES[mistake]()


def _arm(point: str, nth: int) -> None:
    passed = count(1)

    def reach(here: str) -> None:
        if here == point and next(passed) == nth:
            _die()

    _around(DefaultDialect, "do_commit", reach, "commit")
    _around(urllib3.PoolManager, "urlopen", reach, "call")
    _around(DoorbellBroker, "ring", reach, "ring")
    _around(job_ledger, "claim", reach, "claim")


def _around(owner: Any, name: str, reach: Callable[[str], None], what: str) -> None:  # noqa: ANN401 - a class or a module
    """Have ``reach`` told before and after each call of one of the owner's functions."""
    function = getattr(owner, name)

    def wrapped(*positional: Any, **keyword: Any) -> Any:  # noqa: ANN401 - whatever it returns
        reach(f"before_{what}")
        result = function(*positional, **keyword)
        reach(f"after_{what}")
        return result

    setattr(owner, name, wrapped)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
