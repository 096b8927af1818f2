"""Billing a month of clients with ten charges each: set-wise pages against one at a time."""

import time
from datetime import UTC, date, datetime

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from benchmarks.measurement import Measurement
from billing.cycles import BillingCycle
from models import BillingRun
from models.database import connect
from models.schema import migrate
from tasks import billing_runs
from tasks.accounts import create_account
from tasks.audits import audit
from tasks.billing_runs import request_run
from tasks.clients import NewClient, create_clients
from tasks.run_reports import progress_of
from tests.worlds import work

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CLIENTS = 10_000
CLIENTS_ONE_BY_ONE = 500

_TEN_CHARGES_EACH = text("""
INSERT INTO charges (account_id, client_id, charged_on, description, quantity, unit_price, amount,
                     currency)
SELECT account_id, id, date '2026-05-01' + n, 'FNSKU labelling', 10, 0.275, 275, 'usd'
  FROM clients CROSS JOIN generate_series(1, 10) AS n WHERE account_id = :account
""")


def measure_pages(database_url: str) -> list[Measurement]:
    """One client at a time first, as the baseline; then pages of the size that is used."""
    engine = connect(
        database_url.replace("postgresql://", "postgresql+psycopg://"),
        process="bench",
        connections=5,
    )
    with engine.begin() as connection:
        migrate(connection)
    page_size = billing_runs.PAGE_SIZE
    measurements = [
        _measure(engine, "a page of one client", CLIENTS_ONE_BY_ONE, 1),
        _measure(engine, f"pages of {page_size:,} clients", CLIENTS, page_size),
    ]
    engine.dispose()
    return measurements


def _measure(engine: Engine, name: str, clients: int, page_size: int) -> Measurement:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = create_account(session, name)
        new = [
            NewClient(
                name=f"Client {n}",
                billing_cycle=BillingCycle.MONTHLY,
                billing_starts_on=date(2026, 5, 1),
            )
            for n in range(clients)
        ]
        create_clients(session, account, new, now=datetime(2026, 5, 1, tzinfo=UTC))
        session.execute(_TEN_CHARGES_EACH, {"account": account.id})
        run = request_run(session, account.id, now=NOW, requested_by="benchmark").run.id
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    usual, billing_runs.PAGE_SIZE = billing_runs.PAGE_SIZE, page_size
    try:
        started = time.perf_counter()
        work(engine, now=NOW, limit=clients * 2)
        seconds = time.perf_counter() - started
    finally:
        billing_runs.PAGE_SIZE = usual
    with Session(engine) as session:
        billed = session.get_one(BillingRun, run)
        progress = progress_of(session, billed)
        assert progress.invoiced == {"usd": {"invoices": clients, "total": clients * 2_750}}
        assert audit(session, account.id) == []
    return Measurement(name, clients, seconds)
