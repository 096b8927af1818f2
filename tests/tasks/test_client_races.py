"""Who locks many clients at once: always in the same order, and the later change holds."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select, text, update
from sqlalchemy.orm import Session

from billing.cycles import BillingCycle, boundary_instant, time_zone
from models import Account, BillingPeriod, BillingRun, Client
from models.client import clients_for_update
from tasks.accounts import change_account, create_account
from tasks.billing_pages import bill_page
from tasks.clients import NewClient, create_clients
from tasks.outcomes import Done
from tests.waiting import wait_for
from tests.worlds import NOW, audited, perform, together

ROUNDS = 10
MAY = datetime(2026, 5, 1, 12, tzinfo=UTC)
JUNE = date(2026, 6, 1)


def twelve_clients(engine: Engine) -> tuple[Account, list[UUID]]:
    """An account of its own and the ids of its clients, whose rows lie in the opposite order."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = create_account(session, f"Bluebird {uuid4()}")
        new = [NewClient(name="Ada Imports", billing_cycle=BillingCycle.MONTHLY)] * 12
        ids = sorted(client.id for client in create_clients(session, account, new, now=MAY))
        for position, client_id in enumerate(reversed(ids)):
            # In an index of the account's clients as well, so that no scan finds them by id.
            change = update(Client).values(external_ref=f"box-{position:02}")
            session.execute(change.where(Client.id == client_id))
    return account, ids


def move(engine: Engine, account: Account, zone: str) -> None:
    with Session(engine) as session, session.begin():
        change_account(session, account.id, {"time_zone": zone}, now=NOW)


def a_page_of(engine: Engine, account: Account, clients: list[UUID]) -> Callable[[], Any]:
    """What bills May for these clients."""
    run = BillingRun(account_id=account.id, as_of_at=NOW, created_at=NOW)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        session.add(run)
    return partial(
        perform,
        engine,
        bill_page,
        account,
        run_id=run.id,
        boundary=JUNE,
        first_client=clients[0],
        last_client=clients[-1],
    )


def open_ends(engine: Engine, account: Account) -> tuple[set[datetime], set[datetime]]:
    """When the account's open periods end, and when they should in the zone it is in now."""
    with Session(engine) as session:
        zone = time_zone(session.get_one(Account, account.id).time_zone)
        still_open = session.scalars(
            select(BillingPeriod).where(
                BillingPeriod.account_id == account.id, BillingPeriod.period_end > JUNE
            )
        ).all()
    assert len(still_open) == 12
    assert {one.state for one in still_open} == {"open"}
    return (
        {one.ends_at for one in still_open},
        {boundary_instant(one.period_end, zone) for one in still_open},
    )


def test_an_accounts_new_zone_locks_its_clients_in_id_order(engine: Engine) -> None:
    account, ids = twelve_clients(engine)
    with Session(engine) as first, ThreadPoolExecutor(1) as threads:
        first.scalars(clients_for_update(ids[:1])).all()
        moving = threads.submit(move, engine, account, "America/Chicago")
        wait_for(lambda: waits_for_a_lock(engine))

        with Session(engine) as others:
            free = clients_for_update(ids[1:]).with_for_update(key_share=True, skip_locked=True)
            assert len(others.scalars(free).all()) == 11
        first.rollback()
        moving.result(timeout=10)


def waits_for_a_lock(engine: Engine) -> bool:
    with engine.begin() as connection:
        return bool(
            connection.scalar(text("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
        )


@pytest.mark.parametrize("zone", ["America/Chicago", "Asia/Tokyo"])
def test_a_page_and_an_accounts_new_zone_wait_for_each_other_in_no_ring(
    engine: Engine, zone: str
) -> None:
    for _ in range(ROUNDS):
        account, ids = twelve_clients(engine)
        outcomes = together(a_page_of(engine, account, ids), partial(move, engine, account, zone))
        assert outcomes == [Done({"periods": 12, "failed": 0}), None]
        ends, expected = open_ends(engine, account)
        assert ends == expected
        assert audited(engine, account) == []


def test_of_two_new_zones_at_once_the_later_one_holds_for_every_client(engine: Engine) -> None:
    for _ in range(ROUNDS):
        account, _ = twelve_clients(engine)
        outcomes = together(
            partial(move, engine, account, "America/Chicago"),
            partial(move, engine, account, "Asia/Tokyo"),
        )
        assert outcomes == [None, None]
        ends, expected = open_ends(engine, account)
        assert ends == expected
        assert audited(engine, account) == []
