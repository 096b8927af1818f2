from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from models import Account, Client
from models.database import database_now
from tasks.billing_runs import request_run
from tasks.enqueueing import enqueue
from tasks.pruning import prune
from tests.chaos.hosts import Host, why_not
from tests.processes import Stack
from tests.waiting import wait_for
from tests.worlds import a_charge, a_client, audited, invoices_of

WORKER = ("workers.main", "--queues", "billing,ops", "--threads", "2")


@pytest.fixture
def hosts(database_url: str, stack: Stack, tmp_path: Path) -> Iterator[list[Host]]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    servers = {"postgres": database_url, "redis": stack.redis.url}
    with ExitStack() as ends:
        yield [ends.enter_context(Host(name, servers, tmp_path)) for name in ("one", "two")]


def test_a_host_that_is_cut_off_in_the_middle_of_a_page_does_no_harm(
    engine: Engine, account: Account, database_url: str, stack: Stack, hosts: list[Host]
) -> None:
    clients = [_monthly_client(engine, account) for _ in range(5)]
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": stack.redis.url,
        "DUECOURSE_LEASE_SECONDS": "2",
    }
    stack.start("dispatcher")
    cut_off, other = hosts
    cut_off.start(*WORKER, environment=environment)

    with Session(engine) as holding:
        holding.execute(select(Client).where(Client.id == clients[0].id).with_for_update())
        with Session(engine) as session, session.begin():
            request_run(session, account.id, now=database_now(session), requested_by="test")
        # The page has begun and waits for the client's lock: it is in the middle of its work.
        wait_for(lambda: _jobs(engine, "kind = 'bill_page' AND state = 'running'") == 1)
        cut_off.cut_off()
        other.start(*WORKER, environment=environment)
        wait_for(lambda: _jobs(engine, "kind = 'bill_page' AND rescues = 1") == 1)
    wait_for(lambda: _jobs(engine, "kind = 'bill_due_periods' AND state = 'succeeded'") == 1)
    cut_off.heal()

    assert [invoice.total for invoice in invoices_of(engine, account)] == [1_000] * 5
    assert audited(engine, account) == []
    # Both work: what one does is seen by the other, and each takes its part.
    _keep_both_busy(engine)


def _keep_both_busy(engine: Engine) -> None:
    """Ask for jobs until two workers have done some."""

    def both_worked() -> bool:
        with Session(engine) as session, session.begin():
            for _ in range(20):
                enqueue(session, prune, account_id=None, requested_by="test")
        query = (
            "SELECT count(DISTINCT worker) FROM jobs WHERE kind = 'prune' AND worker IS NOT NULL"
        )
        with engine.connect() as connection:
            return bool(connection.execute(text(query)).scalar_one() == 2)

    wait_for(both_worked)


def _monthly_client(engine: Engine, account: Account) -> Client:
    today = datetime.now(UTC).date()
    start = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    began = datetime.combine(start, datetime.min.time(), UTC)
    client = a_client(engine, account, now=began, billing_cycle="monthly", billing_starts_on=start)
    a_charge(engine, client, start)
    return client


def _jobs(engine: Engine, condition: str) -> int:
    with engine.connect() as connection:
        query = f"SELECT count(*) FROM jobs WHERE {condition}"  # noqa: S608 - conditions above
        return int(connection.execute(text(query)).scalar_one())
