"""Charges and mails of one worker process, whose vendors take their time to answer.

Stripe is ``benchmarks.quick_stripe``: with the sandbox, half of what is measured would be that.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from benchmarks import quick_stripe
from benchmarks.measurement import Measurement
from benchmarks.processes import cpu_seconds, ended, processes, seconds_until
from billing.cycles import BillingCycle
from gateways.sandbox.sendgrid.faults import Fault, FaultKind
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
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
CLIENTS = 900
CLIENTS_ONE_BY_ONE = 30
WARM_AFTER_PARTS = 6

STRIPE_SECONDS = 0.3
SENDGRID_SECONDS = 0.1

# As in the Procfile.
PAYMENTS_THREADS = 64
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
    """One thread first, as the baseline; then the threads that are used; then those on one core."""

    charges: list[Measurement]
    mails: list[Measurement]


@dataclass(frozen=True, slots=True)
class _Process:
    """A worker process, as a line of a Procfile; what else runs may use its core, too."""

    queue: str
    threads: int
    is_kept_to_one_core: bool = False

    @property
    def name(self) -> str:
        threads = "one thread" if self.threads == 1 else f"{self.threads} threads"
        kept = ", kept to one core" if self.is_kept_to_one_core else ""
        return f"one process of {threads}{kept}"

    @property
    def command(self) -> list[str]:
        return ["-m", "workers.main", "--queues", self.queue, "--threads", str(self.threads)]


_ONE_THREAD = (CLIENTS_ONE_BY_ONE, _Process("payments", 1), _Process("mail", 1))
_AS_IN_THE_PROCFILE = (
    CLIENTS,
    _Process("payments", PAYMENTS_THREADS),
    _Process("mail", MAIL_THREADS),
)
_CHARGING_ON_ONE_CORE = (
    CLIENTS,
    _Process("payments", PAYMENTS_THREADS, is_kept_to_one_core=True),
    # Setting a document is no work of Python's: a mail process uses all the cores that it gets.
    None,
)
_PROCESSES: list[tuple[int, _Process, _Process | None]] = [
    _ONE_THREAD,
    _AS_IN_THE_PROCFILE,
    # A system that keeps no process to a core, such as macOS, has no such function.
    *([_CHARGING_ON_ONE_CORE] if hasattr(os, "sched_setaffinity") else []),
]


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
    with _vendors(directory) as vendors:
        # What is measured is ours: the quick Stripe has no limit.
        environment = {**servers, **vendors, "DUECOURSE_STRIPE_RATE": "10000"}
        for clients, charging, mailing in _PROCESSES:
            account = _billed(engine, clients)
            calls.charges.append(_drained(environment, charging, _paid(engine, account), clients))
            if mailing is not None:
                calls.mails.append(
                    _drained(environment, mailing, _sent(engine, account), clients * 2)
                )
            with Session(engine) as session:
                assert audit(session, account) == []
    engine.dispose()
    return calls


@contextmanager
def _vendors(directory: Path) -> Iterator[dict[str, str]]:
    """A Stripe and a SendGrid that take their time, as a worker's settings."""
    with (
        _stripe() as stripe_url,
        SendGridSandbox(directory / "sendgrid") as sendgrid,
        closing(sendgrid.control()) as control,
    ):
        late = Fault(
            kind=FaultKind.LATE_REPLY,
            times=(CLIENTS + CLIENTS_ONE_BY_ONE) * 2,
            seconds=SENDGRID_SECONDS,
        )
        control.fail(late)
        yield {
            "SECRET_KEY": SECRET_KEY,
            "STRIPE_SECRET_KEY": "sk_test_benchmark",
            "STRIPE_API_BASE": stripe_url,
            "SENDGRID_API_KEY": "SG.benchmark",
            "SENDGRID_API_BASE": sendgrid.url,
        }


@contextmanager
def _stripe() -> Iterator[str]:
    """The quick Stripe in a process of its own; its URL."""
    listening = socket.create_server((quick_stripe.HOST, 0), backlog=PAYMENTS_THREADS)
    descriptor = listening.fileno()
    command = ["-m", "benchmarks.quick_stripe", str(descriptor), str(STRIPE_SECONDS)]
    server = subprocess.Popen([sys.executable, *command], pass_fds=[descriptor])
    try:
        yield f"http://{quick_stripe.HOST}:{listening.getsockname()[1]}"
    finally:
        ended(server)
        listening.close()


def _billed(engine: Engine, clients: int) -> UUID:
    """An account whose clients all have a card, and an invoice that is to be charged to it."""
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
            {"account": account.id, "customer": "cus_benchmark", "payment_method": "pm_benchmark"},
        )
        request_run(session, account.id, now=NOW, requested_by="benchmark")
    work(engine, now=NOW)
    return account.id


def _drained(
    environment: Mapping[str, str], worker: _Process, done: Callable[[], int], count: int
) -> Measurement:
    """How long one process works on a queue, and for how much of it, once it is warm.

    What it does at first is left out: it starts, and builds every statement for the first time.
    """
    with processes([worker.command, ["-m", "workers.dispatcher"]], environment) as (process, _):
        if worker.is_kept_to_one_core:
            # As ``taskset`` does, while it has not begun any thread.
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        seconds_until(done, count // WARM_AFTER_PARTS)
        left = count - done()
        before = cpu_seconds(process.pid)
        seconds = seconds_until(done, count)
        after = cpu_seconds(process.pid)
    cpu = None if before is None or after is None else after - before
    return Measurement(worker.name, left, seconds, cpu)


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
