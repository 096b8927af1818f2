"""Transactional enqueueing: a job exists if, and only if, its caller's transaction commits."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from models import job_ledger
from models.job_ledger import Enqueued, NewJob
from tasks.kinds import JobKind


def enqueue(
    session: Session,
    kind: JobKind,
    *,
    account_id: UUID | None,
    requested_by: str,
    run_at: datetime | None = None,
    unique_key: str | None = None,
    parent_id: UUID | None = None,
    **arguments: Any,
) -> Enqueued:
    """Write a job down in ``session``'s transaction.

    Args:
        session: Its commit is what makes the job exist.
        kind: What to run.
        account_id: Whose work it is; ``None`` for the system's own.
        requested_by: Who asks, such as ``api:<key prefix>`` or ``schedule:<name>``.
        run_at: Not before this instant; at once when ``None``.
        unique_key: Names one piece of work of which at most one job is unfinished. A call that
            meets a job not yet started joins it; one that meets a running job makes it run
            again, since that run may not have seen what the caller has just written.
        parent_id: A job that waits for this one.
        arguments: What the kind's function takes.

    Raises:
        pydantic.ValidationError: The arguments do not fit the kind.
    """
    args = kind.dump(arguments)
    return job_ledger.enqueue(
        session.connection(),
        NewJob(
            kind=kind.name,
            queue=kind.queue,
            args=args,
            max_attempts=kind.max_attempts,
            requested_by=requested_by,
            account_id=account_id,
            priority=kind.priority,
            run_at=run_at,
            unique_key=unique_key,
            parent_id=parent_id,
            subject_type=kind.subject,
            subject_id=_subject_id(kind, args),
        ),
    )


def enqueue_for_each(
    session: Session,
    kind: JobKind,
    rows: Sequence[tuple[UUID | None, Mapping[str, Any]]],
    *,
    requested_by: str,
    unique_key: Callable[[Mapping[str, Any]], str] | None = None,
) -> None:
    """Write a job down for each account and its arguments, ready at once, in one statement.

    ``unique_key`` makes each job's key of its arguments, no two alike; see ``enqueue``.

    Raises:
        pydantic.ValidationError: The arguments of one do not fit the kind.
    """
    args = [kind.dump(arguments) for _, arguments in rows]
    job_ledger.enqueue_many(
        session.connection(),
        [
            NewJob(
                kind=kind.name,
                queue=kind.queue,
                args=one,
                max_attempts=kind.max_attempts,
                requested_by=requested_by,
                account_id=account_id,
                priority=kind.priority,
                unique_key=None if unique_key is None else unique_key(one),
                subject_type=kind.subject,
                subject_id=_subject_id(kind, one),
            )
            for (account_id, _), one in zip(rows, args, strict=True)
        ],
    )


def _subject_id(kind: JobKind, args: Mapping[str, Any]) -> UUID | None:
    """The object that a kind's first argument names, if it has a subject."""
    return UUID(next(iter(args.values()))) if kind.subject else None
