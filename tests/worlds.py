"""Things that many tests need made, and work done without processes."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models import Account, Client, Queue, job_ledger
from tasks.catalogue import KINDS
from tasks.charges import NewCharge, Recorded, record_charges
from tasks.clients import NewClient, create_clients
from tasks.leases import LeaseKeeper
from tasks.running import Runner

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=15)


def work(engine: Engine, *, now: datetime | None = None, limit: int = 10_000) -> int:
    """Run ready jobs in this thread, with the real runner, until none is ready; how many ran.

    With ``now``, every run believes that this is the time.
    """
    clock = None if now is None else lambda: now
    leases = LeaseKeeper(engine, lease=LEASE, run_limit=timedelta(minutes=10))
    runner = Runner(engine, leases, worker="test", lease=LEASE, clock=clock)
    ran = 0
    while True:
        with engine.begin() as connection:
            queues = connection.scalars(select(Queue.name)).all()
        bells = []
        for queue in queues:
            with engine.begin() as connection:
                job_ledger.promote_due(connection)
                bells += job_ledger.dispatch(connection, queue, window=64) or []
        if not bells:
            return ran
        for bell in bells:
            runner.run(KINDS[bell.kind], bell.job_id)
            ran += 1
            assert ran <= limit, "jobs make more jobs without end"


def a_client(
    engine: Engine, account: Account, *, now: datetime = NOW, name: str = "Ada Imports", **fields: Any
) -> Client:
    """A committed client."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return create_clients(session, account, [NewClient(name=name, **fields)], now=now)[0]


def a_charge(
    engine: Engine,
    client: Client,
    charged_on: date,
    price: str = "10.00",
    **fields: Any,
) -> UUID:
    """A committed charge of ``price`` US dollars."""
    return charges(engine, client, [(charged_on, price)], **fields)[0]


def charges(
    engine: Engine, client: Client, dated: Sequence[tuple[date, str]], **fields: Any
) -> list[UUID]:
    """Committed charges, one for each date and unit price."""
    new = [
        NewCharge(
            **{
                "client_id": client.id,
                "description": "FNSKU labelling",
                "currency": "usd",
                "charged_on": charged_on,
                "unit_price": Decimal(price),
                **fields,
            }
        )
        for charged_on, price in dated
    ]
    with Session(engine) as session, session.begin():
        answers = record_charges(session, client.account_id, new)
    recorded = [answer for answer in answers if isinstance(answer, Recorded)]
    assert len(recorded) == len(new), answers
    return [answer.charge_id for answer in recorded]
