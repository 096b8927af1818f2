"""Charges and mails of one worker process, whose vendors take their time to answer."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from benchmarks.measurement import Measurement
from benchmarks.processes import processes, seconds_until
from billing.cycles import BillingCycle
from gateways.sandbox.sendgrid.faults import Fault, FaultKind
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from models import Mail, Payment
from models.database import connect
from models.schema import migrate
from tasks.accounts import create_account
from tasks.audits import audit
from tasks.billing_runs import request_run
from tasks.clients import NewClient, create_clients
from tests.processes import SECRET_KEY
from tests.worlds import work

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CLIENTS = 300
CLIENTS_ONE_BY_ONE = 30

STRIPE_SECONDS = 0.3
SENDGRID_SECONDS = 0.1

# As in the Procfile.
PAYMENTS_THREADS = 32
MAIL_THREADS = 8

_ONE_CHARGE_EACH = text("""
INSERT INTO charges (account_id, client_id, charged_on, description, quantity, unit_price, amount,
                     currency)
SELECT account_id, id, '2026-05-02', 'FNSKU labelling', 40, 0.25, 1000, 'usd'
  FROM clients WHERE account_id = :account
""")

_ONE_CARD_FOR_ALL = text("""
INSERT INTO billing_methods (account_id, client_id, stripe_customer, payment_method)
SELECT account_id, id, :customer, :payment_method FROM clients WHERE account_id = :account
""")


@dataclass(frozen=True, slots=True)
class VendorCalls:
    """One thread first, as the baseline; then the threads that are used."""

    charges: list[Measurement]
    mails: list[Measurement]


def measure_vendor_calls(database_url: str, redis_url: str, directory: Path) -> VendorCalls:
    """Each client's card is charged once; each gets its invoice, and a receipt, with a document."""
    engine = connect(
        database_url.replace("postgresql://", "postgresql+psycopg://"),
        process="bench",
        connections=5,
    )
    with engine.begin() as connection:
        migrate(connection)
    calls = VendorCalls([], [])
    servers = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    with _vendors(directory) as (stripe_url, vendors):
        # What is measured is ours: the local Stripe has no limit.
        environment = {**servers, **vendors, "DUECOURSE_STRIPE_RATE": "10000"}
        for clients, one_thread in ((CLIENTS_ONE_BY_ONE, True), (CLIENTS, False)):
            account = _billed(engine, stripe_url, clients)
            threads = 1 if one_thread else PAYMENTS_THREADS
            seconds = _drained(environment, "payments", threads, _paid(engine, account), clients)
            calls.charges.append(Measurement(_named(threads), clients, seconds))
            threads = 1 if one_thread else MAIL_THREADS
            seconds = _drained(environment, "mail", threads, _sent(engine, account), clients * 2)
            calls.mails.append(Measurement(_named(threads), clients * 2, seconds))
            with Session(engine) as session:
                assert audit(session, account) == []
    engine.dispose()
    return calls


@contextmanager
def _vendors(directory: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A local Stripe and SendGrid that take their time: Stripe's URL, and a worker's settings."""
    with (
        StripeSandbox(directory / "stripe") as stripe,
        SendGridSandbox(directory / "sendgrid") as sendgrid,
        closing(sendgrid.control()) as control,
    ):
        stripe.control.add_fault(
            "delay", times=None, path="/v1/payment_intents*", seconds=STRIPE_SECONDS
        )
        late = Fault(
            kind=FaultKind.LATE_REPLY,
            times=(CLIENTS + CLIENTS_ONE_BY_ONE) * 2,
            seconds=SENDGRID_SECONDS,
        )
        control.fail(late)
        yield (
            stripe.url,
            {
                "SECRET_KEY": SECRET_KEY,
                "STRIPE_SECRET_KEY": "sk_test_benchmark",
                "STRIPE_API_BASE": stripe.url,
                "SENDGRID_API_KEY": "SG.benchmark",
                "SENDGRID_API_BASE": sendgrid.url,
            },
        )


def _billed(engine: Engine, stripe_url: str, clients: int) -> UUID:
    """An account whose clients all have a card, and an invoice that is to be charged to it."""
    card = make_cardholder(stripe_url)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        account = create_account(session, f"{clients} clients")
        new = [
            NewClient(
                name=f"Client {n}",
                email=f"client-{n}@example.com",
                billing_cycle=BillingCycle.MONTHLY,
                billing_starts_on=date(2026, 5, 1),
            )
            for n in range(clients)
        ]
        create_clients(session, account, new, now=datetime(2026, 5, 1, tzinfo=UTC))
        session.execute(_ONE_CHARGE_EACH, {"account": account.id})
        session.execute(
            _ONE_CARD_FOR_ALL,
            {
                "account": account.id,
                "customer": card.customer,
                "payment_method": card.payment_method,
            },
        )
        request_run(session, account.id, now=NOW, requested_by="benchmark")
    work(engine, now=NOW)
    return account.id


def _drained(
    environment: Mapping[str, str], queue: str, threads: int, done: Callable[[], int], count: int
) -> float:
    """How long one process of so many threads works on a queue; from the first to the last."""
    worker = ["-m", "workers.main", "--queues", queue, "--threads", str(threads)]
    with processes([worker, ["-m", "workers.dispatcher"]], environment):
        return seconds_until(done, count)


def _paid(engine: Engine, account: UUID) -> Callable[[], int]:
    payments = select(func.count()).where(Payment.account_id == account)

    def count() -> int:
        with engine.connect() as connection:
            return connection.scalar(payments) or 0

    return count


def _sent(engine: Engine, account: UUID) -> Callable[[], int]:
    accepted = select(func.count()).where(Mail.account_id == account, Mail.state == "accepted")

    def count() -> int:
        with engine.connect() as connection:
            return connection.scalar(accepted) or 0

    return count


def _named(threads: int) -> str:
    return "one process of one thread" if threads == 1 else f"one process of {threads} threads"
