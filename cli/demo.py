"""``duecourse demo``: the sample month billed end to end by real servers and processes."""

import csv
import os
import secrets
import shutil
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.cycles import BillingCycle, boundary_after
from cli import interrupts
from cli.billing import bill_what_is_due
from cli.context import Context, open_context
from cli.demo_pages import show
from cli.demo_report import DemoReport, Sums
from cli.failures import FOUND_A_PROBLEM, SettingsProblem
from cli.importing import ImportOptions, ImportReport, import_charges
from cli.output import AsJson, Output
from cli.sample_month import SampleMonth, Warehouse, last_full_month, sample_month, write_csv
from cli.stack import (
    DEFAULT_DIRECTORY,
    Stack,
    check_environment,
    deaf_to_signals,
    owner_lock,
)
from gateways.sandbox.processes import hold
from models import Account, Client, Invoice, InvoiceLine
from models.database import database_now
from tasks import audits
from tasks.clients import NewClient, create_clients
from tasks.trial_balances import trial_balance

DEMO_FOLDER = "demo-"
DEMOS_KEPT = 5
# Lines of the invoice that is shown in full: enough to see, few enough to read.
SAMPLE_LINES = (9, 14)
_CENT = Decimal("0.01")
_SERVERS = ("DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "PORT", "DUECOURSE_API_KEY")


def demo(
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            help="A new directory for the stack; else one under ./var.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start everything embedded, bill a prep centre's last month, and show what happened.

    Nothing is left running. Exits with 1 unless the books, the invoices and an independent sum
    over the files agree to the cent.
    """
    output = Output(as_json=as_json)
    began = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if name not in _SERVERS}
    check_environment(environment)
    directory = _new_directory(directory, output)
    interrupts.interrupt_on(signal.SIGTERM)
    with _started(directory, environment, output) as stack:
        started = time.monotonic()
        with open_context(directory) as context:
            report = _bill_sample_month(context, output, stack, directory)
        report.seconds["starting"] = started - began
        stopping = time.monotonic()
    report.seconds["stopping"] = time.monotonic() - stopping
    report.seconds["in all"] = time.monotonic() - began
    output.document(report.as_json())
    show(output, report)
    if not report.ok:
        raise typer.Exit(FOUND_A_PROBLEM)


@contextmanager
def _started(directory: Path, environment: Mapping[str, str], output: Output) -> Iterator[Stack]:
    """A stack of nothing but our own servers, stopped whatever happens."""
    stack = Stack(
        directory,
        port=None,
        environment=environment,
        stopping=threading.Event(),
        say=lambda text: output.note(f"[yellow]{escape(text)}"),
    )
    with output.status("starting PostgreSQL, Redis, web, scheduler, dispatcher, worker"):
        stack.start()
    try:
        yield stack
    finally:
        with deaf_to_signals(), output.status("stopping everything"):
            stack.stop()


def _bill_sample_month(
    context: Context, output: Output, stack: Stack, directory: Path
) -> DemoReport:
    month = sample_month(last_full_month(datetime.now(UTC)))
    boundary = boundary_after(month.first_day, anchor_day=1)
    files = {one: directory / f"charges-{one.name.lower()}.csv" for one in month.rows}
    for warehouse, path in files.items():
        write_csv(path, month.rows[warehouse])
    pids = stack.pids
    imports = {
        warehouse.name: _import(context, output, warehouse, month, path)
        for warehouse, path in files.items()
    }
    with context.transaction() as session:
        account = context.account(session, None)
    billed = bill_what_is_due(context, account.id, output, as_of=boundary, tend=stack.tend)
    interrupts.check()
    with context.transaction() as session:
        return DemoReport(
            month=month.first_day,
            boundary=boundary,
            directory=directory,
            files={warehouse.name: path for warehouse, path in files.items()},
            url=stack.url,
            pids=pids,
            imports=imports,
            billed=billed,
            expected=_sums_of_files(list(files.values())),
            invoiced=_sums_of_invoices(session, account),
            trial_balance=trial_balance(session, account.id),
            differences=audits.audit(session, account.id),
            revenue=_revenue(session, account),
            sample=_sample_invoice(session, account),
            seconds={
                "importing": sum(one.seconds for one in imports.values()),
                "billing": billed.seconds,
            },
        )


def _import(
    context: Context, output: Output, warehouse: Warehouse, month: SampleMonth, path: Path
) -> ImportReport:
    """Import one warehouse's file, and create the clients that it does not name."""
    options = ImportOptions(billing_cycle=BillingCycle.MONTHLY, time_zone=warehouse.time_zone)
    with (
        context.transaction() as session,
        path.open("rb") as file,
        output.progress() as bars,
    ):
        account = context.account(session, None)
        report = import_charges(
            session,
            account,
            file,
            options,
            lambda stage, done, total: bars.update(f"{stage} {path.name}", done, total),
        )
        create_clients(
            session,
            account,
            [
                NewClient(
                    name=name,
                    external_ref=name,
                    time_zone=warehouse.time_zone,
                    billing_cycle=BillingCycle.MONTHLY,
                    billing_starts_on=month.first_day,
                )
                for name in month.idle[warehouse]
            ],
            now=database_now(session),
        )
    return report


def _sums_of_files(paths: list[Path]) -> Sums:
    """What each client owes in each currency, read and computed apart from all other code."""
    sums: Sums = defaultdict(Decimal)
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                amount = Decimal(row["quantity"]) * Decimal(row["unit_price"])
                sums[row["client"], row["currency"]] += amount.quantize(_CENT, ROUND_HALF_UP)
    return dict(sums)


def _sums_of_invoices(session: Session, account: Account) -> Sums:
    rows = session.execute(
        select(Client.external_ref, Invoice.currency, func.sum(Invoice.total))
        .join(Client, Client.id == Invoice.client_id)
        .where(Invoice.account_id == account.id)
        .group_by(Client.external_ref, Invoice.currency)
    )
    return {(client or "", currency): total * _CENT for client, currency, total in rows}


def _revenue(session: Session, account: Account) -> dict[str, Counter[str]]:
    """Minor units by currency and description."""
    rows = session.execute(
        select(Invoice.currency, InvoiceLine.description, func.sum(InvoiceLine.amount))
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .where(Invoice.account_id == account.id)
        .group_by(Invoice.currency, InvoiceLine.description)
        .order_by(Invoice.currency)
    )
    revenue: dict[str, Counter[str]] = defaultdict(Counter)
    for currency, description, amount in rows:
        revenue[currency][description] = int(amount)
    return dict(revenue)


def _sample_invoice(session: Session, account: Account) -> tuple[Invoice, list[InvoiceLine]]:
    """A typical invoice, with its lines: of those that are short enough, the most varied."""
    invoice = session.scalars(
        select(Invoice)
        .join(InvoiceLine, InvoiceLine.invoice_id == Invoice.id)
        .where(Invoice.account_id == account.id)
        .group_by(Invoice.id)
        .order_by(
            func.count().between(*SAMPLE_LINES).desc(),
            func.count(InvoiceLine.description.distinct()).desc(),
            Invoice.number,
        )
        .limit(1)
    ).one()
    lines = session.scalars(
        select(InvoiceLine)
        .where(InvoiceLine.invoice_id == invoice.id)
        .order_by(InvoiceLine.position)
    ).all()
    return invoice, list(lines)


def _new_directory(wanted: Path | None, output: Output) -> Path:
    """An empty directory. Without a wish: one under ./var, where older demos make room."""
    if wanted is not None:
        if wanted.exists() and any(wanted.iterdir()):
            raise SettingsProblem(f"--dir: {wanted} is not empty; the demo wants a new directory")
        wanted.mkdir(mode=0o711, parents=True, exist_ok=True)
        return wanted
    removed = _remove_old_demos()
    if removed:
        output.note(f"removed the oldest demos: {', '.join(escape(str(one)) for one in removed)}")
    # Not mkdtemp: PostgreSQL, as another user where we are root, must pass through it.
    directory = DEFAULT_DIRECTORY / f"{DEMO_FOLDER}{secrets.token_hex(3)}"
    directory.mkdir(mode=0o711, parents=True)
    return directory


def _remove_old_demos() -> list[Path]:
    """Remove all but the demos that were started last, by the demo or again by ``up``.

    A directory without an owner's lock is another demo's that is about to start; under the lock,
    nobody can start in the one that is removed.
    """
    opened: dict[Path, float] = {}
    for demo_folder in DEFAULT_DIRECTORY.glob(f"{DEMO_FOLDER}*"):
        with suppress(FileNotFoundError):
            opened[demo_folder] = owner_lock(demo_folder).stat().st_mtime
    removed = []
    for old in sorted(opened, key=opened.__getitem__, reverse=True)[DEMOS_KEPT:]:
        with suppress(FileNotFoundError):  # Another demo is faster at removing it.
            lock = hold(owner_lock(old))
            if lock is not None:
                shutil.rmtree(old, ignore_errors=True)
                os.close(lock)
                if not old.exists():
                    removed.append(old)
    return removed
