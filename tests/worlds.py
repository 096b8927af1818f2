"""Things that many tests need made, and work done without processes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, event, select, text
from sqlalchemy.orm import Session

from models import Account, BillingPeriod, BillingRun, Client, Invoice, Queue, job_ledger
from tasks.audits import Difference, audit
from tasks.billing_runs import request_run, start_due_runs
from tasks.calls import Gateways, Step
from tasks.catalogue import KINDS
from tasks.charges import NewCharge, Recorded, record_charges
from tasks.clients import NewClient, change_client, create_clients
from tasks.enqueueing import enqueue
from tasks.kinds import JobKind, Run
from tasks.leases import LeaseKeeper
from tasks.running import Runner
from tasks.tax_rates import create_tax_rate
from tasks.top_ups import start_asked_for

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=15)

LIMIT_SECONDS = 180.0
"""How long things done at once may take: many times what they do, on a busy machine too."""


def work(
    engine: Engine,
    *,
    now: datetime | None = None,
    gateways: Gateways | None = None,
    queues: Sequence[str] = (),
    limit: int = 10_000,
) -> int:
    """Run ready jobs in this thread, with the real runner, until none is ready; how many ran.

    With ``now``, every run believes that this is the time. Only jobs of ``queues`` are run, if
    any are named; without ``gateways``, those of ``billing`` and ``ops``.
    """
    clock = None if now is None else lambda: now
    leases = LeaseKeeper(engine, lease=LEASE, run_limit=timedelta(minutes=10))
    runner = Runner(engine, leases, worker="test", lease=LEASE, gateways=gateways, clock=clock)
    ran = 0
    if not queues and gateways is None:
        queues = ("billing", "ops")
    elif not queues:
        with engine.begin() as connection:
            queues = connection.scalars(select(Queue.name)).all()
    while True:
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
    engine: Engine,
    account: Account,
    *,
    now: datetime = NOW,
    name: str = "Ada Imports",
    **fields: Any,
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


def a_rate(
    engine: Engine,
    account: Account,
    percent: str = "20",
    kind: str = "exclusive",
    *,
    name: str = "VAT",
    valid_from: date = date(2020, 1, 1),
    valid_to: date | None = None,
) -> UUID:
    """A committed tax rate, ``exclusive`` or ``inclusive``; nothing bears it yet."""
    with Session(engine) as session, session.begin():
        return create_tax_rate(
            session,
            account.id,
            name=name,
            percent=Decimal(percent),
            inclusive=kind == "inclusive",
            valid_from=valid_from,
            valid_to=valid_to,
        ).id


def change(engine: Engine, client: Client, *, now: datetime = NOW, **changes: Any) -> Client:
    """The client after a committed change."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = session.get_one(Account, client.account_id)
        return change_client(session, account, client.id, changes, now=now)


def perform(
    engine: Engine,
    kind: JobKind,
    account: Account | None,
    *,
    now: datetime = NOW,
    **arguments: Any,
) -> Step:
    """Do one job's work in a committed transaction; what it raises is raised here."""
    owner = None if account is None else account.id
    run = Run(job_id=uuid4(), account_id=owner, attempt=1, now=now, requested_by="test")
    with Session(engine, expire_on_commit=False) as session, session.begin():
        step = kind.body(run, session, **arguments)
        start_asked_for(session)
        return step


def bill(engine: Engine, account: Account, *, now: datetime, **options: Any) -> BillingRun:
    """An explicit run, worked to its end; ``options`` are those of ``request_run``."""
    with Session(engine) as session, session.begin():
        requested = request_run(session, account.id, now=now, requested_by="test", **options)
        run_id = requested.run.id
    work(engine, now=now)
    with Session(engine) as session:
        return session.get_one(BillingRun, run_id)


def tick(engine: Engine, *, now: datetime) -> None:
    """What the scheduler starts at ``now``, worked to its end."""
    with Session(engine) as session, session.begin():
        enqueue(session, start_due_runs, account_id=None, requested_by="test", fire_at=now)
    work(engine, now=now)


def refuse_invoices_of(engine: Engine, client: Client, *, errcode: str = "P0001") -> None:
    """From now on the database refuses every new invoice of this client, with this SQLSTATE."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION refuse_invoice() RETURNS trigger LANGUAGE plpgsql AS $fn$ BEGIN"
                f" RAISE EXCEPTION 'not this one' USING ERRCODE = '{errcode}'; END $fn$;"
                " CREATE TRIGGER refuse_invoice BEFORE INSERT ON invoices FOR EACH ROW"
                f" WHEN (NEW.client_id = '{client.id}') EXECUTE FUNCTION refuse_invoice()"
            )
        )


def allow_invoices_again(engine: Engine) -> None:
    """Take back ``refuse_invoices_of``."""
    with engine.begin() as connection:
        connection.execute(text("DROP FUNCTION refuse_invoice CASCADE"))


def invoices_of(engine: Engine, owner: Client | Account) -> list[Invoice]:
    """A client's or an account's invoices, by number; drafts come last."""
    mine = Invoice.client_id if isinstance(owner, Client) else Invoice.account_id
    with Session(engine) as session:
        found = session.scalars(select(Invoice).where(mine == owner.id)).all()
    return sorted(found, key=lambda invoice: (invoice.number is None, invoice.number, invoice.id))


def periods_of(engine: Engine, client: Client) -> list[BillingPeriod]:
    """A client's periods, oldest first."""
    with Session(engine) as session:
        return list(
            session.scalars(
                select(BillingPeriod)
                .where(BillingPeriod.client_id == client.id)
                .order_by(BillingPeriod.period_start)
            )
        )


def audited(engine: Engine, account: Account, *, now: datetime = NOW) -> list[Difference]:
    """Every difference that the audit finds in the account's books, as of ``now``."""
    with Session(engine) as session:
        return audit(session, account.id, now=now)


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """The statements sent to the server meanwhile."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Start all calls at once, each in a thread of its own; what each returned or raised."""
    barrier = Barrier(len(calls), timeout=10)

    def start(call: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever the call returns
        barrier.wait()
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the caller looks at what was raised
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return [
            one.result(timeout=LIMIT_SECONDS)
            for one in [threads.submit(start, call) for call in calls]
        ]
