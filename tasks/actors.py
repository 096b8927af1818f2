"""The dramatiq actors: one per kind of job, all alike, since the work is in the kinds."""

import json
import time
from collections.abc import Callable
from typing import Any, cast
from uuid import NAMESPACE_URL, UUID, uuid5

import dramatiq
import structlog
from dramatiq.broker import MessageProxy
from dramatiq.middleware import CurrentMessage, Middleware
from sqlalchemy import Engine, select
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError, SQLAlchemyError
from typing_extensions import override

from models import BillingRun, Client, Invoice, Payment, job_ledger
from models.job_ledger import NewJob
from tasks.catalogue import KINDS
from tasks.kinds import DEFAULT_MAX_ATTEMPTS, DEFAULT_PRIORITY, POSITIONAL, JobKind
from tasks.outcomes import described
from tasks.running import Runner

_log = structlog.get_logger(__name__)

ADOPT_AGAIN_AFTER_SECONDS = 1.0

# Where a message waits, as a job, for code that knows its kind. What its sender calls a queue
# need not be one here.
UNKNOWN_KINDS_QUEUE = "ops"

UNREADABLE = "unreadable"
"""Under this name stand the arguments, as JSON text, that no column takes as they are."""

_SUBJECTS: dict[str, type[Invoice | Client | BillingRun | Payment]] = {
    "invoice": Invoice,
    "client": Client,
    "billing_run": BillingRun,
    "payment": Payment,
}


def declare_actors(broker: dramatiq.Broker, runner: Runner, engine: Engine) -> None:
    """Register one real dramatiq actor for every kind of job on ``broker``."""
    for kind in KINDS.values():
        declare = dramatiq.actor(actor_name=kind.name, queue_name=kind.queue, broker=broker)
        declare(_actor(kind, runner, engine))


def _actor(kind: JobKind, runner: Runner, engine: Engine) -> Callable[..., None]:
    def act(*positional: Any, **keyword: Any) -> None:
        message = cast("dramatiq.Message[Any]", CurrentMessage.get_current_message())
        job_id = _rung_for(message)
        if job_id is None:
            _adopt(engine, message, kind.named(positional, keyword), kind)
        else:
            runner.run(kind, job_id)

    return act


class ForeignMessages(Middleware):
    """What this code cannot run is set aside where people look, not in Redis.

    A message for an actor that is not declared here comes from newer or older code, or from
    another system. dramatiq would move it to a dead-letter queue that it empties after a week.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @override
    def before_nack(self, broker: dramatiq.Broker, message: MessageProxy) -> None:
        """Park the job that the message rings for; make it one first, if it is none yet."""
        if message.actor_name in broker.actors:
            return
        job_id = _rung_for(message)
        if job_id is None:
            positional = {POSITIONAL: list(message.args)} if message.args else {}
            _adopt(self._engine, message, {**message.kwargs, **positional})
            return
        with self._engine.begin() as connection:
            job_ledger.park(
                connection,
                job_id,
                reason="unknown_kind",
                message=f"this release knows no kind of job called {message.actor_name}",
            )


def _rung_for(message: dramatiq.Message[Any] | MessageProxy) -> UUID | None:
    """The job that a message of the dispatcher's rings for; ``None`` for anybody else's.

    Others may take an argument of that name too: only the dispatcher's messages bear the job's
    id in Redis as well.
    """
    job_id = message.kwargs.get("job_id")
    redis_id = message.options.get("redis_message_id")
    if not str(redis_id).startswith(f"{job_id}:"):
        return None
    try:
        return UUID(str(job_id))
    except ValueError:
        return None


def _adopt(
    engine: Engine,
    message: dramatiq.Message[Any] | MessageProxy,
    arguments: dict[str, Any],
    kind: JobKind | None = None,
) -> None:
    """Make a plain message a job under the message's own id; it then runs like any other.

    The message is the only trace of the work, and is gone once this returns: without a database
    it waits for one.
    """
    try:
        job_id = UUID(str(message.message_id))
    except ValueError:
        job_id = uuid5(NAMESPACE_URL, _escaped(message.message_id))
    while True:
        try:
            new = _keep(engine, job_id, message, arguments, kind)
        except SQLAlchemyError as error:
            reason = described(error)["message"]
            _log.warning("message not adopted yet", job=str(job_id), error=reason)
            time.sleep(ADOPT_AGAIN_AFTER_SECONDS)
        else:
            _log.info("message adopted", job=str(job_id), kind=message.actor_name, new=new)
            return


def _keep(
    engine: Engine,
    job_id: UUID,
    message: dramatiq.Message[Any] | MessageProxy,
    arguments: dict[str, Any],
    kind: JobKind | None,
) -> bool:
    """Write a message down: dead, as escaped text, when it holds what no column takes."""
    try:
        return _write_down(engine, job_id, message, arguments, kind)
    except (DataError, IntegrityError, ProgrammingError, TypeError, ValueError) as error:
        # It is the message's own content; any other trouble passes, and the caller tries again.
        _log.error("message unreadable", job=str(job_id), exc_info=error)
        new = NewJob(
            id=job_id,
            kind=_escaped(message.actor_name),
            queue=kind.queue if kind else UNKNOWN_KINDS_QUEUE,
            args={UNREADABLE: json.dumps(arguments)},
            max_attempts=DEFAULT_MAX_ATTEMPTS,
            requested_by="message",
        )
        with engine.begin() as connection:
            return job_ledger.adopt_dead(
                connection, new, reason="unreadable_message", error=described(error)
            )


def _escaped(text: object) -> str:
    """Text without NUL and lone surrogates, which JSON may hold and PostgreSQL may not."""
    return str(text).encode("unicode_escape").decode("ascii")


def _write_down(
    engine: Engine,
    job_id: UUID,
    message: dramatiq.Message[Any] | MessageProxy,
    arguments: dict[str, Any],
    kind: JobKind | None,
) -> bool:
    subject_id = _subject_id(kind, arguments)
    with engine.begin() as connection:
        account_id = (
            None
            if kind is None or kind.subject is None or subject_id is None
            else connection.scalar(
                select(_SUBJECTS[kind.subject].account_id).where(
                    _SUBJECTS[kind.subject].id == subject_id
                )
            )
        )
        return job_ledger.adopt(
            connection,
            NewJob(
                id=job_id,
                kind=message.actor_name,
                queue=kind.queue if kind else UNKNOWN_KINDS_QUEUE,
                args=arguments,
                max_attempts=kind.max_attempts if kind else DEFAULT_MAX_ATTEMPTS,
                requested_by="message",
                account_id=account_id,
                priority=kind.priority if kind else DEFAULT_PRIORITY,
                subject_type=kind.subject if kind and subject_id else None,
                subject_id=subject_id,
            ),
        )


def _subject_id(kind: JobKind | None, arguments: dict[str, Any]) -> UUID | None:
    if kind is None or kind.subject is None:
        return None
    try:
        return UUID(str(arguments.get(next(iter(kind.arguments.model_fields)))))
    except ValueError:
        return None
