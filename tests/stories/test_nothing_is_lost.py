"""A billing run while parts of the system die."""

import redis
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from models import Job
from tasks.enqueueing import enqueue
from tasks.pruning import prune
from tests.processes import Stack
from tests.stories.conftest import Business, hold
from tests.waiting import wait_for


def test_a_worker_killed_in_the_middle_of_a_page_loses_nothing(
    business: Business, stack: Stack
) -> None:
    client = business.monthly_client("Ada Imports", months_ago=2)
    stack.start("dispatcher")
    victim = stack.start("worker")

    with Session(business.engine) as holding:
        hold(holding, client)
        business.request_run()
        # The page has begun and waits for the client's lock: it is in the middle of its work.
        wait_for(lambda: business.jobs(Job.kind == "bill_page", Job.state == "running") == 1)
        stack.kill(victim)
    stack.start("worker")

    wait_for(business.all_is_billed)
    assert [invoice.total for invoice in business.invoices()] == [2_000, 2_000]
    assert business.jobs(Job.kind == "bill_page", Job.rescues == 1) == 1
    assert business.audit_is_clean()


def test_redis_flushed_in_the_middle_of_a_run_loses_nothing(
    business: Business, stack: Stack
) -> None:
    clients = [business.monthly_client(f"Client {n}", months_ago=3) for n in range(5)]
    stack.start("dispatcher")

    business.request_run()
    with redis.Redis.from_url(stack.redis.url) as doorbell:
        # What is flushed before it was rung for is rung for after.
        wait_for(lambda: doorbell.llen("duecourse:billing") == 1)
        doorbell.flushall()
        stack.start("worker")
        # Sent again, since no worker started it.
        wait_for(lambda: business.jobs(Job.dispatches > 1) == 1)
        with Session(business.engine) as holding:
            hold(holding, clients[0])
            wait_for(lambda: business.jobs(Job.kind == "bill_page", Job.state == "running") == 1)
            doorbell.flushall()

    wait_for(business.all_is_billed)
    assert len(business.invoices()) == 15
    assert business.audit_is_clean()


def test_two_schedulers_and_two_dispatchers_bill_every_period_once(
    business: Business, stack: Stack
) -> None:
    for n in range(10):
        business.monthly_client(f"Client {n}", months_ago=2)
    business.scheduler_is_about_to_fire()

    for process in ("scheduler", "scheduler", "dispatcher", "dispatcher", "worker", "worker"):
        stack.start(process)
    wait_for(business.all_is_billed)

    assert len(business.invoices()) == 20
    fires = "SELECT count(*), count(DISTINCT (schedule, fire_at)) FROM schedule_fires"
    with business.engine.connect() as connection:
        total, distinct = connection.execute(text(fires)).one()
    assert total == distinct
    assert business.audit_is_clean()


def test_a_job_whose_enqueue_was_rolled_back_never_runs(engine: Engine, stack: Stack) -> None:
    stack.start("dispatcher")
    stack.start("worker")

    with Session(engine) as session:
        lost = enqueue(session, prune, account_id=None, requested_by="test").id
        session.rollback()
    with Session(engine) as session, session.begin():
        kept = enqueue(session, prune, account_id=None, requested_by="test").id

    def ended() -> bool:
        with Session(engine) as session:
            return session.get_one(Job, kept).state == "succeeded"

    wait_for(ended)
    with Session(engine) as session:
        assert session.get(Job, lost) is None
        assert list(session.scalars(select(Job.id))) == [kept]
