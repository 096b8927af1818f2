from datetime import UTC, datetime
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models import Account
from tasks.billing_runs import start_due_runs
from tasks.drafting import draft_invoice
from tasks.enqueueing import enqueue
from tasks.pruning import prune
from tests.jobs import job_of, states
from tests.worlds import NOW, a_client, work


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
