from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import NotFound, RuleViolation
from models import Job
from models.database import database_now
from scheduler.firing import write_schedules
from scheduler.schedules import SCHEDULES
from tasks.audits import audit_books
from tasks.enqueueing import enqueue
from tasks.operating import (
    cancel_job,
    pause_queue,
    pause_schedule,
    resume_queue,
    resume_schedule,
    retry_job,
    run_schedule,
)
from tests.worlds import work


def a_job(session: Session, unique_key: str | None = None) -> UUID:
    return enqueue(
        session, audit_books, account_id=None, requested_by="test", unique_key=unique_key
    ).id


def test_a_paused_queue_keeps_who_paused_it_first(engine: Engine, session: Session) -> None:
    paused = pause_queue(session, "ops", "ada")
    since = paused.paused_at
    again = pause_queue(session, "ops", "bob")
    a_job(session)
    session.commit()

    assert (again.paused_by, again.paused_at) == ("ada", since)
    assert work(engine) == 0

    assert resume_queue(session, "ops").paused_at is None
    session.commit()
    assert work(engine) == 1


def test_what_is_not_there_cannot_be_operated(session: Session) -> None:
    for call in (
        lambda: pause_queue(session, "tea", "ada"),
        lambda: resume_queue(session, "tea"),
        lambda: run_schedule(session, "tea", "ada"),
        lambda: pause_schedule(session, "tea", "ada"),
        lambda: resume_schedule(session, "tea"),
        lambda: retry_job(session, uuid4()),
        lambda: cancel_job(session, uuid4()),
    ):
        with pytest.raises(NotFound):
            call()


def test_a_schedule_is_run_by_hand_even_while_it_is_paused(
    engine: Engine, session: Session
) -> None:
    write_schedules(session, SCHEDULES, now=database_now(session))
    pause_schedule(session, "bill-due-periods", "ada")

    enqueued = run_schedule(session, "bill-due-periods", "ada")
    session.commit()

    assert work(engine) == 1
    job = session.get_one(Job, enqueued.id, populate_existing=True)
    assert (job.state, job.requested_by, list(job.args)) == ("succeeded", "ada", ["fire_at"])
    assert resume_schedule(session, "bill-due-periods").paused_by is None


def test_a_job_is_cancelled_before_it_starts_and_can_be_retried(session: Session) -> None:
    job_id = a_job(session)

    assert cancel_job(session, job_id).state == "cancelled"
    assert retry_job(session, job_id).state == "ready"


def test_a_job_that_has_ended_well_is_left_alone(engine: Engine, session: Session) -> None:
    job_id = a_job(session)
    session.commit()
    work(engine)

    with pytest.raises(RuleViolation, match="the job is succeeded") as not_cancelled:
        cancel_job(session, job_id)
    with pytest.raises(RuleViolation, match="the job is succeeded") as not_retried:
        retry_job(session, job_id)

    assert not_cancelled.value.code == "job_not_cancellable"
    assert not_retried.value.code == "job_not_retryable"


def test_a_job_is_not_retried_beside_another_that_does_its_work(session: Session) -> None:
    first = a_job(session, unique_key="audit")
    cancel_job(session, first)
    a_job(session, unique_key="audit")

    with pytest.raises(RuleViolation) as refused:
        retry_job(session, first)

    assert refused.value.code == "job_not_retryable"
