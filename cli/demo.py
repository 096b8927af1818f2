"""``duecourse demo``: the sample month billed end to end by real servers and processes."""

import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.markup import escape
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.cycles import BillingCycle, Cadence
from billing.mails import MailState
from cli import interrupts
from cli.billing import bill_what_is_due
from cli.context import Context, open_context
from cli.demo_checks import agreements
from cli.demo_figures import mail_about, revenue, sample_invoice, sums_of_invoices
from cli.demo_pages import show
from cli.demo_report import DemoReport, Sample
from cli.demo_setup import make_payers, record_month, sums_of_files
from cli.failures import FOUND_A_PROBLEM, SettingsProblem
from cli.following_up import wait_for_all, what_followed
from cli.output import AsJson, Output
from cli.patience import POLL_SECONDS
from cli.sample_month import last_full_month, sample_month
from cli.stack import (
    DEFAULT_DIRECTORY,
    VENDORS,
    Stack,
    check_environment,
    deaf_to_signals,
    owner_lock,
)
from gateways.sandbox.processes import hold
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.typst_documents import TypstDocuments
from models import Account, Mail
from tasks import audits
from tasks.invoice_documents import filename, invoice_document
from tasks.trial_balances import trial_balance

DEMO_FOLDER = "demo-"
DEMOS_KEPT = 5
# Events of SendGrid come after the mails; without them the mails are told of as accepted.
EVENTS_WITHIN_SECONDS = 5.0
_NOT_OURS = frozenset(
    {
        "DATABASE_URL",
        "REDIS_URL",
        "PUBLIC_URL",
        "PORT",
        "DUECOURSE_API_KEY",
        *(name for vendor in VENDORS for name in vendor),
    }
)
"""Settings of other stacks: the demo uses none of their servers, and no real key."""


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

    Invoices are drafted, finalized, paid by credit and by card, and mailed; Stripe and SendGrid
    are local ones. Nothing is left running. Exits with 1 unless the books, the invoices, an
    independent sum over the files, and what Stripe and SendGrid logged agree item by item.
    """
    output = Output(as_json=as_json)
    began = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
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
    what = "PostgreSQL, Redis, a local Stripe and SendGrid, and six processes"
    with output.status(f"starting {what}"):
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
    boundary = Cadence(BillingCycle.MONTHLY).boundary_after(month.first_day)
    stripe_url = stack.settings["STRIPE_API_BASE"]
    sendgrid_url = stack.settings["SENDGRID_API_BASE"]
    pids = stack.pids
    prepared = record_month(context, output, month, directory)
    preparing = time.monotonic()
    make_payers(context, output, prepared, stripe_url=stripe_url, tend=stack.tend)
    preparing = time.monotonic() - preparing
    with context.transaction() as session:
        account = context.account(session, None)
    billed = bill_what_is_due(context, account.id, output, as_of=boundary, tend=stack.tend)
    collecting = wait_for_all(context, account.id, min(billed.runs), output, tend=stack.tend)
    _hear_events(context, account.id, stack)
    with context.transaction() as session:
        return DemoReport(
            month=month.first_day,
            boundary=boundary,
            directory=directory,
            prepared=prepared,
            url=stack.url,
            mails=stack.mails,
            pids=pids,
            billed=billed,
            followed=what_followed(session, account.id, billed.runs, seconds=collecting),
            expected=sums_of_files(list(prepared.files.values())),
            invoiced=sums_of_invoices(session, account),
            trial_balance=trial_balance(session, account.id),
            agreements=agreements(
                session, account.id, stripe_url=stripe_url, sendgrid_url=sendgrid_url
            ),
            differences=audits.audit(session, account.id),
            revenue=revenue(session, account),
            sample=_sample(session, account, directory, sendgrid_url),
            seconds={
                "importing": sum(one.seconds for one in prepared.imports.values()),
                "cards and deposits": preparing,
                "billing": billed.seconds,
                "charging and mailing": collecting,
            },
        )


def _hear_events(context: Context, account_id: UUID, stack: Stack) -> None:
    """Wait a little for SendGrid to tell that the mails it took were delivered."""
    unheard = select(func.count()).where(
        Mail.account_id == account_id, Mail.state == MailState.ACCEPTED
    )
    deadline = time.monotonic() + EVENTS_WITHIN_SECONDS
    while time.monotonic() < deadline:
        with context.transaction() as session:
            if not session.scalar(unheard):
                return
        interrupts.check()
        stack.tend()
        time.sleep(POLL_SECONDS)


def _sample(session: Session, account: Account, directory: Path, sendgrid_url: str) -> Sample:
    """An invoice to look at, its document as a file, and the mail that told of it."""
    invoice, lines = sample_invoice(session, account)
    document = TypstDocuments().render_invoice_pdf(invoice_document(session, invoice))
    path = directory / filename(invoice)
    path.write_bytes(document)
    mail = mail_about(session, invoice)
    folder = None
    if mail is not None:
        with closing(SendGridControl(sendgrid_url)) as sendgrid:
            folder = next((one.folder for one in sendgrid.mails(mail=str(mail.id))), None)
    return Sample(invoice, lines, path, folder)


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
