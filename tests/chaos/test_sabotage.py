"""The suite finds what it is there for: each well-known mistake shows in a short run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

from models import job_ledger
from tests.chaos.fleet import HOUSE, Fleet
from tests.chaos.marks import marks_job
from tests.chaos.run import run
from tests.chaos.sabotage import MISTAKES
from tests.chaos.staff import Staff
from tests.waiting import wait_for


class _Ready(Fleet):
    """Lets a run begin once every process has started: a fault before that harms nothing."""

    def __enter__(self) -> Self:
        super().__enter__()
        wait_for(lambda: all(map(self._has_started, self.commands)))
        return self

    def _has_started(self, kind: str) -> bool:
        log = (self._logs / f"{kind}.log").read_bytes()
        return log.count(b' started"') >= self.lines.count(kind)


def _leave_marks(staff: Staff, session: Session) -> UUID:
    """Ask for nothing but jobs that take their time: whoever is harmed is in the middle of some."""
    new = marks_job(staff._rng.uniform(1.0, 4.0))
    return job_ledger.enqueue(session.connection(), new).id


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sabotage:
    """A mistake, and a short run that shows it.

    Attributes:
        says: What its violations say, among others.
        within: How many seconds are waited for the end of all work: few where it does not come.
        drawn: By full name, what is in place of something that a run draws from or goes by: what
            a long run meets sooner or later, this one meets for sure.
    """

    mistake: str
    only: Sequence[str]
    faults: int
    says: str
    within: float
    seed: int = 1
    drawn: Mapping[str, Any]


MANY_THREADS = ("workers.main", "--queues", "billing,ops", "--threads", "16")

SABOTAGES = (
    # With a job in its hands, and another worker that is free to take it.
    _Sabotage(
        mistake="no_fence",
        only=["pause_a_worker"],
        faults=5,
        says="is succeeded and ended 2 times",
        within=30.0,
        drawn={
            "tests.chaos.faults.processes.PAUSED_FOR_SECONDS": 5.0,
            "tests.chaos.run.Fleet": partial(
                _Ready,
                commands={**HOUSE, "worker": MANY_THREADS},
                workers=["worker"],
                twice=["worker"],
            ),
            "tests.chaos.staff.Staff._ask": _leave_marks,
        },
    ),
    # What is flushed while its only worker starts again was taken by nobody.
    _Sabotage(
        mistake="redis_is_the_truth",
        only=["kill_at_random", "flush_redis", "hold_webhooks"],
        faults=8,
        says="is dispatched",
        within=10.0,
        seed=18,  # Redis is flushed twice about a second after the worker was killed.
        drawn={"tests.chaos.fleet.Fleet.kinds": ["worker"]},
    ),
    _Sabotage(
        mistake="no_rescue",
        only=["kill_all_workers"],
        faults=1,
        says="did not start again after its worker died",
        within=3.0,
        drawn={"tests.chaos.faults.processes.START_WITHIN_SECONDS": 15.0},
    ),
    # Stripe's events, if they come in time, settle a charge before it is asked for again.
    _Sabotage(
        mistake="a_new_key_each_try",
        only=["withhold_webhooks", "crash_at_points"],
        faults=6,
        says="was charged 2 times",
        within=30.0,
        seed=44,  # The process for payments dies right after its ninth, its first and its tenth call.
        drawn={
            "tests.chaos.business.CARDS": ["pm_card_visa"],
            "tests.chaos.faults.processes.POINTS": {
                kind: ["after_call"] for kind in ("mail", "payments", "worker")
            },
        },
    ),
    # So do SendGrid's a mail, and no fault withholds those.
    _Sabotage(
        mistake="mail_again",
        only=["lose_mail_replies", "hold_webhooks"],
        faults=6,
        says="went out 2 times",
        within=30.0,
        drawn={"tests.chaos.run.MAIL_EVENTS": ()},
    ),
)


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=[one.mistake for one in SABOTAGES])
def test_a_mistake_breaks_a_promise_and_the_suite_says_which(
    sabotage: _Sabotage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A job is taken from a dead worker sooner, and few processes start sooner than many.
    monkeypatch.setenv("DUECOURSE_LEASE_SECONDS", "2")
    monkeypatch.setattr("tests.chaos.run.Fleet", partial(_Ready, twice=[]))
    for name, drawn in sabotage.drawn.items():
        monkeypatch.setattr(name, drawn)

    report = run(
        seed=sabotage.seed,
        clients=12,
        faults=sabotage.faults,
        # Staff, API, clients and banks share it: five commands of staff a second.
        per_second=20.0,
        only=sabotage.only,
        mistake=sabotage.mistake,
        within=sabotage.within,
    )

    assert [one for one in report.violations if sabotage.says in one], report.violations


def test_every_mistake_is_made_in_a_run() -> None:
    assert [one.mistake for one in SABOTAGES] == list(MISTAKES)
