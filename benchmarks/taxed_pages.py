"""One page of a thousand clients with sixty charges each: with taxes against without."""

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from benchmarks.measurement import Measurement
from billing.cycles import BillingCycle
from models import BillingRun
from models.database import connect
from models.schema import migrate
from tasks.accounts import change_account, create_account
from tasks.audits import audit
from tasks.billing_runs import PAGE_SIZE, request_run
from tasks.clients import NewClient, create_clients
from tasks.run_reports import progress_of
from tasks.tax_rates import create_tax_rate
from tests.worlds import work

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CLIENTS = PAGE_SIZE

PAGES: tuple[tuple[str, tuple[tuple[str, bool], ...]], ...] = (
    ("no taxes", ()),
    ("one rate", (("20", False),)),
    ("three rates, one of them in the prices", (("20", False), ("7.3333", False), ("6", True))),
)
"""What each bears: percents, and whether prices contain them."""

ROUNDS = 3
"""The best of them counts: whatever else runs on the machine only ever adds to it."""

_SIXTY_CHARGES_EACH = text("""
INSERT INTO charges (account_id, client_id, charged_on, description, quantity, unit_price, amount,
                     currency)
SELECT account_id, id, date '2026-05-01' + n % 31, 'FNSKU labelling', n, 0.37, 37 * n, 'usd'
  FROM clients CROSS JOIN generate_series(1, 60) AS n WHERE account_id = :account
""")


def measure_taxed_pages(database_url: str) -> list[Measurement]:
    """Without taxes first, as the baseline."""
    engine = connect(
        database_url.replace("postgresql://", "postgresql+psycopg://"),
        process="bench",
        connections=5,
    )
    with engine.begin() as connection:
        migrate(connection)
    rounds = [[_measure(engine, name, rates) for name, rates in PAGES] for _ in range(ROUNDS)]
    engine.dispose()
    return [min(of_page, key=lambda one: one.seconds) for of_page in zip(*rounds, strict=True)]


def _measure(engine: Engine, name: str, rates: Sequence[tuple[str, bool]]) -> Measurement:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = create_account(session, name)
        borne = [
            create_tax_rate(
                session,
                account.id,
                name=f"Tax {number}",
                percent=Decimal(percent),
                inclusive=is_inclusive,
                valid_from=date(2020, 1, 1),
            ).id
            for number, (percent, is_inclusive) in enumerate(rates)
        ]
        change_account(session, account.id, {"tax_rates": borne}, now=NOW)
        new = [
            NewClient(
                name=f"Client {n}",
                billing_cycle=BillingCycle.MONTHLY,
                billing_starts_on=date(2026, 5, 1),
            )
            for n in range(CLIENTS)
        ]
        create_clients(session, account, new, now=datetime(2026, 5, 1, tzinfo=UTC))
        session.execute(_SIXTY_CHARGES_EACH, {"account": account.id})
        run = request_run(session, account.id, now=NOW, requested_by="benchmark").run.id
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    started = time.perf_counter()
    work(engine, now=NOW)
    seconds = time.perf_counter() - started
    with Session(engine) as session:
        billed = session.get_one(BillingRun, run)
        assert progress_of(session, billed).invoiced["usd"]["invoices"] == CLIENTS
        assert audit(session, account.id) == []
    return Measurement(name, CLIENTS, seconds)
