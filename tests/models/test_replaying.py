from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from models import Account, Job, job_ledger
from models.database import database_now
from models.job_ledger import DeadJobs, NewJob


def a_dead_job(
    engine: Engine, account: Account | None = None, *, reason: str = "poison", **fields: Any
) -> UUID:
    with engine.begin() as connection:
        job_id = job_ledger.enqueue(
            connection,
            NewJob(
                **{
                    "kind": "prune",
                    "queue": "ops",
                    "args": {},
                    "max_attempts": 8,
                    "requested_by": "test",
                    "account_id": None if account is None else account.id,
                    **fields,
                }
            ),
        ).id
        connection.execute(
            text(
                "UPDATE jobs SET state = 'dead', reason = :reason, attempt = 8, rescues = 3,"
                " finished_at = now() WHERE id = :id"
            ),
            {"id": job_id, "reason": reason},
        )
    return job_id


def replayed(engine: Engine, **wanted: Any) -> int:
    with engine.begin() as connection:
        return job_ledger.replay(connection, DeadJobs(**wanted))


def test_a_replayed_job_is_ready_with_fresh_attempts(engine: Engine) -> None:
    job_id = a_dead_job(engine)

    assert replayed(engine) == 1
    with Session(engine) as session:
        job = session.get_one(Job, job_id)
    assert (job.state, job.attempt, job.rescues, job.reason) == ("ready", 0, 0, None)


def test_it_is_replayed_once(engine: Engine) -> None:
    a_dead_job(engine)

    assert [replayed(engine), replayed(engine)] == [1, 0]


def test_a_count_beforehand_changes_nothing(engine: Engine) -> None:
    job_id = a_dead_job(engine)

    with engine.begin() as connection:
        assert job_ledger.replayable(connection, DeadJobs()) == [job_id]
    with Session(engine) as session:
        assert session.get_one(Job, job_id).state == "dead"


def test_only_the_dead_jobs_that_were_meant_are_replayed(engine: Engine, account: Account) -> None:
    a_dead_job(engine, account, kind="prune", reason="unknown_kind")
    a_dead_job(engine, kind="audit_books", queue="billing")
    with Session(engine) as session:
        later: datetime = database_now(session) + timedelta(hours=1)

    assert replayed(engine, since=later) == 0
    assert replayed(engine, reason="attempts_exhausted") == 0
    assert replayed(engine, kind="audit_books", queue="ops") == 0
    assert replayed(engine, reason="unknown_kind") == 1
    assert replayed(engine, queue="billing") == 1


def test_an_account_replays_its_own_jobs_and_the_system_s_where_it_may(
    engine: Engine, account: Account
) -> None:
    a_dead_job(engine, account)
    a_dead_job(engine)

    assert replayed(engine, account_id=account.id) == 1
    assert replayed(engine, account_id=account.id, of_the_system=True) == 1


def test_of_two_that_stand_for_the_same_work_the_newest_is_replayed(engine: Engine) -> None:
    a_dead_job(engine, unique_key="one")
    newest = a_dead_job(engine, unique_key="one")

    assert replayed(engine) == 1
    with Session(engine) as session:
        assert session.get_one(Job, newest).state == "ready"
    assert replayed(engine) == 0
