"""Running one job: claim it, do its work, and end it in the work's own transaction."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.job_states import JobState, retry_delay
from models import job_ledger
from models.job_ledger import Claim, Ending
from tasks.calls import Call, Gateways, Step
from tasks.kinds import JobKind, Run
from tasks.leases import LeaseKeeper
from tasks.outcomes import (
    AwaitChildren,
    Done,
    Fail,
    NotYet,
    Outcome,
    Retry,
    Skip,
    Snooze,
    described,
)
from tasks.top_ups import start_asked_for
from tasks.turnstile import Turnstile

_log = structlog.get_logger(__name__)

# A parent is woken by its last child. Should that wake-up ever go missing, it looks for itself.
AWAIT_CHILDREN_AT_MOST = timedelta(days=1)


class LeaseLost(Exception):  # noqa: N818 - named as the fact it states
    """Another run owns the job now; nothing that this one did may be kept."""


class Runner:
    """Runs jobs for one worker process, from any number of threads.

    ``gateways`` is what the jobs' calls are made through. ``claims`` are the connections on which
    jobs are claimed, each statement by itself, and ``turns`` those on which turns are taken: the
    jobs' own if there is nothing else. ``clock`` gives the runs' ``now`` in place of the database,
    to tell a story by its calendar.
    """

    def __init__(
        self,
        engine: Engine,
        leases: LeaseKeeper,
        *,
        worker: str,
        lease: timedelta,
        gateways: Gateways | None = None,
        claims: Engine | None = None,
        turns: Engine | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._engine = engine
        self._claims = claims or engine.execution_options(isolation_level="AUTOCOMMIT")
        self._leases = leases
        self._worker = worker
        self._lease = lease
        self._gateways = gateways or Gateways()
        rate = self._gateways.stripe_rate
        self._turnstile = None if rate is None else Turnstile(turns or engine, rate)
        self._clock = clock

    def run(self, kind: JobKind, job_id: UUID) -> None:
        """Run the job if it still waits to be run; a message that comes twice runs it once."""
        claim = self._claim(job_id)
        if claim is None:
            _log.debug("nothing to claim", job=str(job_id), kind=kind.name)
            return
        self._leases.hold(claim)
        try:
            with structlog.contextvars.bound_contextvars(
                job=str(job_id), kind=kind.name, attempt=claim.attempt
            ):
                self._run_claimed(kind, claim)
        finally:
            self._leases.release(claim)

    def _claim(self, job_id: UUID) -> Claim | None:
        try:
            return self._try_to_claim(job_id)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # The connections are from before a restart of the server. Their pool drops them all
            # now, and the one for the work does, too: it would fail on one of its own. Had this
            # claim gone through all the same, the next would find nothing, and the job would be
            # rescued.
            self._engine.dispose()
            return self._try_to_claim(job_id)

    def _try_to_claim(self, job_id: UUID) -> Claim | None:
        with self._claims.connect() as connection:
            return job_ledger.claim(connection, job_id, worker=self._worker, lease=self._lease)

    def _run_claimed(self, kind: JobKind, claim: Claim) -> None:
        try:
            arguments = kind.load(claim.args)
        except ValidationError as error:
            self._record(claim, Fail(error, "invalid_arguments"))
            return
        try:
            outcome = self._work(kind, claim, arguments)
        except LeaseLost:
            _log.warning("lease lost, nothing kept")
        except Exception as error:  # noqa: BLE001 - whatever the work raises is an outcome
            self._record(claim, _outcome_of(error, claim))
        else:
            _tell(outcome)

    def _work(self, kind: JobKind, claim: Claim, arguments: dict[str, Any]) -> Outcome:
        """The work, call after call if it has any; its last part and the job's end are one."""
        run = Run(
            job_id=claim.job_id,
            account_id=claim.account_id,
            attempt=claim.attempt,
            now=self._clock() if self._clock else claim.started_at,
            requested_by=claim.requested_by,
            turnstile=self._turnstile,
        )
        step = self._commit(claim, lambda session: kind.body(run, session, **arguments))
        while isinstance(step, Call):
            answer = step.ask(self._gateways)
            step = self._commit(claim, partial(_record, step, answer))
        return step

    def _commit(self, claim: Claim, part: Callable[[Session], Step]) -> Step:
        """One part of the work, committed only while the job is still this run's.

        The last part commits together with the job's end.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            step = part(session)
            session.flush()
            start_asked_for(session)
            if isinstance(step, Call):
                kept = job_ledger.holds(session.connection(), claim)
            else:
                step = _within_attempts(step, claim)
                kept = job_ledger.finish(session.connection(), claim, _ending(step))
            if not kept:
                raise LeaseLost
        return step

    def _record(self, claim: Claim, outcome: Outcome) -> None:
        """End a run whose own transaction is gone."""
        try:
            with self._engine.begin() as connection:
                kept = job_ledger.finish(connection, claim, _ending(outcome))
        except SQLAlchemyError as error:
            # The lease will run out, and the job is run again.
            _log.error("outcome not recorded", outcome=repr(outcome), error=str(error))
            return
        if not kept:
            _log.warning("lease lost, nothing kept")
            return
        _tell(outcome)


def _record(call: Call, answer: Any, session: Session) -> Step:  # noqa: ANN401 - the call's own type
    return call.record(session, answer)


def _tell(outcome: Outcome) -> None:
    match outcome:
        case Retry(error, after):
            _log.warning("job failed, will retry", after=str(after), exc_info=error)
        case Snooze(after, error) if error is not None:
            _log.warning("job waits", after=str(after), error=described(error)["message"])
        case Fail(error, reason):
            _log.error("job is dead", reason=reason, exc_info=error)
        case _:
            _log.info("job finished", outcome=type(outcome).__name__.lower())


def _outcome_of(error: Exception, claim: Claim) -> Outcome:
    """What an exception means for the job that raised it."""
    match error:
        case RuleViolation(code=code) | NotFound(code=code) | InvalidInput(code=code):
            return Skip(code, str(error))
        case NotYet(after=after):
            return Snooze(after)
        case _:
            # Spreads retries; nothing secret hangs on it.
            delay = retry_delay(claim.attempt, jitter=random.random())  # noqa: S311
            return _within_attempts(Retry(error, delay), claim)


def _within_attempts(outcome: Outcome, claim: Claim) -> Outcome:
    """The outcome, or the end where it asks for one more attempt than there are."""
    match outcome:
        case Retry(error) if claim.attempt >= claim.max_attempts:
            return Fail(error, "attempts_exhausted")
        case _:
            return outcome


def _ending(outcome: Outcome) -> Ending:
    match outcome:
        case Done(result):
            return Ending(state=JobState.SUCCEEDED, outcome="succeeded", result=result)
        case Skip(reason, message):
            return Ending(
                state=JobState.SKIPPED,
                outcome="skipped",
                reason=reason,
                result={"message": message},
            )
        case Snooze(after, error):
            return Ending(
                state=JobState.SCHEDULED,
                outcome="snoozed",
                after=after,
                gives_attempt_back=True,
                error=None if error is None else described(error),
            )
        case AwaitChildren(children):
            return Ending(
                state=JobState.SCHEDULED,
                outcome="awaiting_children",
                after=AWAIT_CHILDREN_AT_MOST,
                gives_attempt_back=True,
                children=children,
            )
        case Retry(error, after):
            return Ending(
                state=JobState.FAILED, outcome="failed", after=after, error=described(error)
            )
        case Fail(error, reason):
            return Ending(
                state=JobState.DEAD, outcome="failed", reason=reason, error=described(error)
            )
