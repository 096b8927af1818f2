from datetime import UTC, datetime
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models import Account, Job
from tasks.billing_runs import start_due_runs
from tasks.drafting import draft_invoice
from tasks.enqueueing import enqueue, enqueue_for_each
from tasks.kinds import BULK_PRIORITY, DEFAULT_PRIORITY, Run, job
from tasks.outcomes import Done, Outcome
from tasks.pruning import prune
from tests.jobs import dispatch, job_of, kinds_of_its_own, states
from tests.worlds import NOW, a_client, counted, work


def test_a_job_says_whose_it_is_who_asked_and_what_it_is_about(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    enqueued = enqueue(
        session, draft_invoice, account_id=account.id, requested_by="api:abc", client_id=client.id
    )
    session.commit()

    job = job_of(engine, enqueued.id)
    assert enqueued.created
    assert (job.kind, job.queue, job.max_attempts) == (
        *("draft_invoice", "billing"),
        draft_invoice.max_attempts,
    )
    assert (job.account_id, job.requested_by) == (account.id, "api:abc")
    assert (job.subject_type, job.subject_id) == ("client", client.id)
    assert job.args["client_id"] == str(client.id)


def test_what_a_person_waits_for_goes_before_bulk(engine: Engine, session: Session) -> None:
    with kinds_of_its_own():

        @job(queue="ops", priority=BULK_PRIORITY)
        def count_beans(_run: Run, _session: Session) -> Outcome:
            return Done({})

        bulk = enqueue(session, count_beans, account_id=None, requested_by="test").id
        click = enqueue(session, prune, account_id=None, requested_by="test").id
        session.commit()

    assert job_of(engine, click).priority == DEFAULT_PRIORITY
    assert dispatch(engine) == [click, bulk]


def test_a_rolled_back_enqueue_leaves_nothing(engine: Engine, session: Session) -> None:
    enqueue(session, prune, account_id=None, requested_by="test")
    session.rollback()

    assert states(engine) == []
    assert work(engine) == 0


def test_arguments_that_do_not_fit_are_refused_before_anything_is_written(
    engine: Engine, session: Session
) -> None:
    with pytest.raises(ValidationError):
        enqueue(session, start_due_runs, account_id=None, requested_by="test", fire_at="soon")
    session.commit()

    assert states(engine) == []


def test_a_job_can_wait_for_its_time_and_belong_to_a_parent(
    engine: Engine, session: Session
) -> None:
    parent = enqueue(session, prune, account_id=None, requested_by="test")
    later = datetime(2100, 1, 1, tzinfo=UTC)
    child = enqueue(
        session, prune, account_id=None, requested_by="test", run_at=later, parent_id=parent.id
    )
    session.commit()

    job = job_of(engine, child.id)
    assert (job.state, job.run_at, job.parent_id) == ("scheduled", later, parent.id)


def test_the_same_work_asked_for_twice_is_one_job_that_runs_once(
    engine: Engine, session: Session
) -> None:
    def ask() -> UUID:
        return enqueue(
            session,
            start_due_runs,
            account_id=None,
            requested_by="test",
            unique_key="due",
            fire_at=NOW,
        ).id

    assert ask() == ask()
    session.commit()

    assert work(engine) == 1
    assert states(engine) == ["succeeded"]


def test_a_kind_without_a_subject_has_none(engine: Engine, session: Session) -> None:
    job_id = enqueue(session, prune, account_id=None, requested_by="test").id
    session.commit()

    assert (job_of(engine, job_id).subject_type, job_of(engine, job_id).subject_id) == (None, None)


def test_jobs_enqueued_for_each_are_what_each_enqueued_by_itself_would_be(
    engine: Engine, session: Session, account: Account
) -> None:
    clients = [a_client(engine, account) for _ in range(2)]
    alone = enqueue(
        session, draft_invoice, account_id=account.id, requested_by="test", client_id=clients[0].id
    )
    rows = [(account.id, {"client_id": client.id}) for client in clients]

    with engine.connect() as listener, counted(engine) as statements:
        driver = listener.connection.driver_connection
        assert driver is not None
        driver.execute("LISTEN duecourse_jobs")
        driver.commit()
        enqueue_for_each(session, draft_invoice, rows, requested_by="test")
        enqueue_for_each(session, draft_invoice, [], requested_by="test")
        session.commit()
        [notice] = driver.notifies(timeout=10, stop_after=1)

    assert notice.payload == "billing"
    assert len(statements) == 1
    first, *each = session.scalars(select(Job).order_by(Job.id)).all()
    assert first.id == alone.id
    assert [job.subject_id for job in each] == [client.id for client in clients]
    named = {"id", "run_at", "created_at"}
    columns = [column.key for column in Job.__table__.columns if column.key not in named]
    same, _ = each
    assert [getattr(same, name) for name in columns] == [getattr(first, name) for name in columns]


def test_work_for_each_that_is_asked_for_again_joins_by_its_key(
    engine: Engine, session: Session, account: Account
) -> None:
    clients = [a_client(engine, account) for _ in range(3)]

    def ask(*which: int) -> None:
        enqueue_for_each(
            session,
            draft_invoice,
            [(account.id, {"client_id": clients[number].id}) for number in which],
            requested_by="test",
            unique_key=lambda arguments: f"draft:{arguments['client_id']}",
        )
        session.commit()

    ask(2, 0)
    ask(0, 1, 2)

    jobs = session.scalars(select(Job)).all()
    assert len(jobs) == 3
    assert {job.unique_key for job in jobs} == {f"draft:{client.id}" for client in clients}
    assert all(job.unique_key == f"draft:{job.subject_id}" for job in jobs)
