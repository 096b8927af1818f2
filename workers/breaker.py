"""Stripe's outages: noticed by what is asked anyway, waited out, and over by themselves."""

import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from billing.breaker import STEADY_AFTER, is_down, next_probe
from tasks.outages import is_paused_for_outage, pause_for_outage, resume_after_outage

LOOK_EVERY_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Answers:
    """How many calls in a row had no answer, over all threads of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0

    def heard(self, is_answered: bool) -> None:  # noqa: FBT001 - it is what was heard
        """A call has ended."""
        with self._lock:
            self._failures = 0 if is_answered else self._failures + 1

    def forget(self) -> None:
        """Count from here."""
        with self._lock:
            self._failures = 0

    @property
    def say_down(self) -> bool:
        """Whether nothing has answered for too long."""
        return is_down(self._failures)


class Breaker(threading.Thread):
    """Pauses the queue ``payments`` while Stripe is down, and resumes it when a probe is answered.

    The pause is in SQL: whichever process of payments lives goes on probing, this one after a
    restart too. A person's pause is never lifted.

    Args:
        engine: Gives one connection at a time.
        answers: What is heard of this process's calls.
        probe: Asks Stripe something cheap; whether it answers.
        look_every: In seconds.
        clock: The monotonic one.
    """

    def __init__(
        self,
        engine: Engine,
        answers: Answers,
        probe: Callable[[], bool],
        *,
        look_every: float = LOOK_EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="breaker", daemon=True)
        self._engine = engine
        self._answers = answers
        self._probe = probe
        self._look_every = look_every
        self._clock = clock
        self._stopping = threading.Event()
        self._probes = 0
        self._probe_at: float | None = None
        self._resumed_at: float | None = None

    def run(self) -> None:
        """Look until stopped; without a database there is nothing to pause or resume."""
        while not self._stopping.wait(self._look_every):
            try:
                self.look()
            except SQLAlchemyError as error:
                _log.warning("breaker without a database", error=str(error).split("\n", 1)[0])

    def stop(self) -> None:
        """Look no more; a probe under way may outlast this."""
        self._stopping.set()

    def look(self) -> None:
        """Pause if nothing answers; probe if it is time; resume if that is answered."""
        if self._answers.say_down:
            self._pause()
        with Session(self._engine) as session:
            waits = is_paused_for_outage(session)
        if not waits:
            self._probe_at = None
            return
        now = self._clock()
        if self._probe_at is None:
            self._plan(now)
        elif now >= self._probe_at:
            self._ask(now)

    def _pause(self) -> None:
        with Session(self._engine) as session, session.begin():
            is_new = pause_for_outage(session)
        # What is still under way ends as badly; it says nothing of later.
        self._answers.forget()
        if is_new:
            _log.error("Stripe is not reachable: payments are paused until it is")

    def _plan(self, now: float) -> None:
        was_steady = (
            self._resumed_at is None or now - self._resumed_at > STEADY_AFTER.total_seconds()
        )
        if was_steady:
            self._probes = 0
        self._probe_at = now + next_probe(self._probes).total_seconds()

    def _ask(self, now: float) -> None:
        self._probes += 1
        if not self._probe():
            self._probe_at = now + next_probe(self._probes).total_seconds()
            return
        self._answers.forget()
        with Session(self._engine) as session, session.begin():
            is_over = resume_after_outage(session)
        self._probe_at, self._resumed_at = None, now
        if is_over:
            _log.warning("Stripe is reachable again: payments go on")
