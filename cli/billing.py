"""``duecourse bill``: a billing run, asked for, waited for, and told about."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.markup import escape
from rich.text import Text
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.instants import date_or_instant
from billing.job_states import FINAL, JobState
from billing.money import format_amount
from billing.periods import PeriodState
from cli.context import AccountName, Context, StackDirectory, open_context
from cli.failures import FOUND_A_PROBLEM
from cli.following_up import FollowUp, follow_up, show_follow_up
from cli.output import AsJson, Output, count, table
from cli.patience import COUNTING_SHARE, JobFailed, Patience
from models import BillingPeriod, BillingRun, Client, Job
from models.billing_period import due_in
from models.database import database_now
from tasks.billing_runs import request_run
from tasks.run_reports import RunProgress, progress_of

LISTED = 50
"""Rows of a table that people see; --json lists all."""
INTERRUPTED = 130
WORKED_IN = frozenset({"billing"})
"""The queues of a run's jobs."""

AsOf = datetime | date | None


@dataclass(slots=True)
class BillReport:
    """What became of everything that was due.

    ``clients`` counts each client's periods by state; ``held``, ``skipped`` and ``failures`` are
    those that were not billed, with why; ``invoiced`` holds, by currency, how many invoices and
    their total in minor units, ``drafted`` those that are reviewed first; ``unfinished`` says why
    a run ended before its work did.
    """

    runs: list[UUID] = field(default_factory=list)
    clients: dict[tuple[UUID, str], Counter[str]] = field(default_factory=dict)
    held: list[dict[str, str]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    invoiced: dict[str, Counter[str]] = field(default_factory=dict)
    drafted: dict[str, Counter[str]] = field(default_factory=dict)
    unfinished: str | None = None
    seconds: float = 0.0

    @property
    def found_a_problem(self) -> bool:
        """Whether something that was due is not billed."""
        return bool(self.failures or self.unfinished)

    @property
    def invoices(self) -> int:
        """How many were made, in all currencies."""
        return sum(one["invoices"] for one in self.invoiced.values())

    @property
    def periods(self) -> Counter[str]:
        """How many there are of each state, of all clients."""
        return sum(self.clients.values(), Counter[str]())

    def add(self, progress: RunProgress) -> None:
        """Count one more run's invoices in."""
        for ours, theirs in (
            (self.invoiced, progress.invoiced),
            (self.drafted, progress.drafted),
        ):
            for currency, counts in theirs.items():
                ours.setdefault(currency, Counter()).update(counts)

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "runs": [str(run) for run in self.runs],
            "periods": _by_state(self.periods),
            "clients": [
                {"client": str(client_id), "name": name, "periods": _by_state(periods)}
                for (client_id, name), periods in self.clients.items()
            ],
            "held": self.held,
            "skipped": self.skipped,
            "failures": self.failures,
            "unfinished": self.unfinished,
            "invoiced": {currency: dict(one) for currency, one in self.invoiced.items()},
            "drafted": {currency: dict(one) for currency, one in self.drafted.items()},
            "seconds": round(self.seconds, 3),
        }


_TOLD = (
    PeriodState.BILLED,
    PeriodState.DRAFTED,
    PeriodState.EMPTY,
    PeriodState.HELD,
    PeriodState.SKIPPED,
    PeriodState.FAILED,
)


def _by_state(periods: Counter[str]) -> dict[str, int]:
    return {state.value: periods[state] for state in _TOLD}


def _wait(
    context: Context,
    patience: Patience,
    run_id: UUID,
    job_id: UUID,
    on_progress: Callable[[int, int], None],
) -> str | None:
    """Wait until a run has ended; why it ended before its work did, if so."""
    count_at = 0.0
    while True:
        with context.transaction() as session:
            run = session.get_one(BillingRun, run_id)
            job = session.get_one(Job, job_id)
            if job.state in FINAL:
                return None if job.state == JobState.SUCCEEDED else str(JobFailed(job))
            now = time.monotonic()
            if now >= count_at:
                progress = progress_of(session, run)
                done = sum(progress.periods.values())
                on_progress(done, done + progress.due)
                spent = time.monotonic() - now
                count_at = now + spent / COUNTING_SHARE
        patience.wait(WORKED_IN)


def bill_what_is_due(
    context: Context,
    account_id: UUID,
    output: Output,
    *,
    as_of: AsOf = None,
    client_id: UUID | None = None,
    tend: Callable[[], None] = lambda: None,
) -> BillReport:
    """Run after run until nothing is due up to ``as_of``; each takes what one run may.

    Raises:
        InvalidInput: ``as_of`` lies in the future.
        NotFound: The account has no such client.
    """
    began = time.monotonic()
    report = BillReport()
    patience = Patience(context, output, tend)
    before = 0
    with output.progress() as bars:
        while report.unfinished is None:
            with context.transaction() as session:
                now = database_now(session)
                # Later runs of this command go no further than the first.
                as_of = now if as_of is None else as_of
                requested = request_run(
                    session,
                    account_id,
                    now=now,
                    requested_by="cli",
                    as_of=as_of,
                    client_id=client_id,
                )
            run = requested.run
            report.runs.append(run.id)
            report.unfinished = _wait(
                context,
                patience,
                run.id,
                requested.job_id,
                lambda done, total, before=before: bars.update(  # type: ignore[misc]  # A default of a lambda cannot be annotated.
                    "billing periods", before + done, before + total
                ),
            )
            with context.transaction() as session:
                progress = progress_of(session, session.get_one(BillingRun, run.id))
                report.add(progress)
                before += sum(progress.periods.values())
                if not _more_is_due(session, run):
                    break
        bars.update("billing periods", before, before)
    with context.transaction() as session:
        _tell_outcomes(session, report)
    report.seconds = time.monotonic() - began
    return report


def bill(
    *,
    as_of_text: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            metavar="TIME",
            help="Bill what is due up to this date (midnight in each client's zone) or instant "
            "(2026-06-01T00:00:00Z); now by default.",
            show_default=False,
        ),
    ] = None,
    client: Annotated[
        UUID | None, typer.Option(help="Only this client's periods.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be billed; change nothing.")
    ] = False,
    wait_all: Annotated[
        bool, typer.Option("--wait-all", help="Wait for cards and mails too, and tell of them.")
    ] = False,
    directory: StackDirectory = None,
    account_name: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """Bill every period that is due, wait for it, and say what became of each."""
    if dry_run and wait_all:
        raise typer.BadParameter("a dry run leaves nothing to wait for", param_hint="--wait-all")
    as_of = None if as_of_text is None else date_or_instant(as_of_text, "--as-of")
    output = Output(as_json=as_json)
    followed: FollowUp | None = None
    with open_context(directory) as context:
        with context.transaction() as session:
            account = context.account(session, account_name)
        try:
            if dry_run:
                _preview(context, output, account.id, as_of, client)
                return
            report = bill_what_is_due(context, account.id, output, as_of=as_of, client_id=client)
            if wait_all:
                followed = follow_up(context, account.id, report.runs, output)
        except KeyboardInterrupt as interrupt:
            output.note("the work goes on without us: `duecourse jobs list` shows how far it is")
            raise typer.Exit(INTERRUPTED) from interrupt
    followed_json = {} if followed is None else {"followed_up": followed.as_json()}
    output.document({"as_of": as_of, "account": account.name, **report.as_json(), **followed_json})
    show_report(output, report)
    if followed is not None:
        show_follow_up(output, followed)
    if report.found_a_problem or (followed is not None and followed.found_a_problem):
        raise typer.Exit(FOUND_A_PROBLEM)


def show_report(output: Output, report: BillReport) -> None:
    """Tell people what became of every period, and what was invoiced."""
    outcomes = table("Billing periods", "outcome", "periods", numbers=("periods",))
    for state in _TOLD:
        colour = "red" if state == PeriodState.FAILED and report.periods[state] else ""
        outcomes.add_row(state.value, f"{report.periods[state]:,}", style=colour)
    invoices = table("Invoices", "currency", "invoices", "total", numbers=("invoices", "total"))
    for kept, style in ((report.invoiced, ""), (report.drafted, "dim")):
        for currency, counts in sorted(kept.items()):
            total = format_amount(counts["total"], currency)
            what = currency if kept is report.invoiced else f"{currency}, in review"
            invoices.add_row(what, f"{counts['invoices']:,}", total, style=style)
    output.show(outcomes, invoices)
    _show_undone(output, "Held periods", report.held, "reason")
    _show_undone(output, "Skipped periods", report.skipped, "reason")
    _show_undone(output, "Failed periods", report.failures, "error")
    if report.unfinished:
        output.say(f"[red]not finished[/]: {escape(report.unfinished)}")
    output.say(f"[dim]{count(report.invoices, 'invoice')} in {report.seconds:.1f} s")


def _show_undone(output: Output, title: str, undone: list[dict[str, str]], why: str) -> None:
    if not undone:
        return
    rows = table(title, "client", "id", "from", "to", "why")
    for one in undone[:LISTED]:
        rows.add_row(
            Text(one["name"]),
            one["client"],
            one["period_start"],
            one["period_end"],
            Text(one[why]),
        )
    output.show(rows)
    if len(undone) > LISTED:
        output.say(f"and {len(undone) - LISTED:,} more; --json lists all")


def _preview(
    context: Context, output: Output, account_id: UUID, as_of: AsOf, client_id: UUID | None
) -> None:
    """A dry run, made by a worker like any other run."""
    began = time.monotonic()
    with context.transaction() as session:
        requested = request_run(
            session,
            account_id,
            now=database_now(session),
            requested_by="cli",
            as_of=as_of,
            client_id=client_id,
            dry_run=True,
        )
    run_id = requested.run.id
    patience = Patience(context, output, lambda: None)
    unfinished = _wait(context, patience, run_id, requested.job_id, lambda _done, _total: None)
    with context.transaction() as session:
        found = session.get_one(BillingRun, run_id).preview
    if found is None:
        output.document({"dry_run": True, "run": str(run_id), "unfinished": unfinished})
        output.say(f"[red]not finished[/]: {escape(str(unfinished))}")
        raise typer.Exit(FOUND_A_PROBLEM)
    seconds = round(time.monotonic() - began, 3)
    output.document({"dry_run": True, "run": str(run_id), **found, "seconds": seconds})
    _show_preview(output, found)


def _show_preview(output: Output, found: dict[str, Any]) -> None:
    numbers = ("charges", "total", "credit", "card")
    rows = table("Would be invoiced", "client", "from", "to", *numbers, "outcome", numbers=numbers)
    for one in found["invoices"][:LISTED]:
        rows.add_row(
            Text(one["name"]),
            one["period_start"],
            one["period_end"],
            f"{one['charges']:,}",
            format_amount(one["total"], one["currency"]),
            _amount_if_any(one["credit"], one["currency"]),
            _amount_if_any(one["card"], one["currency"]),
            _FORESEEN[one["outcome"]],
        )
    output.show(rows)
    if len(found["invoices"]) > LISTED:
        output.say(f"and {len(found['invoices']) - LISTED:,} more; --json lists all")
    totals = found["totals"]
    for kept, words in (("invoiced", ""), ("drafted", ", for review"), ("on_hold", ", held")):
        for currency, one in totals[kept].items():
            total = format_amount(one["total"], currency)
            output.say(
                f"{count(one['invoices'], 'invoice')}, {total}{words}{_paid_by(one, currency)}"
            )
    held = f" and {totals['held']:,} held" if totals["held"] else ""
    output.say(
        f"{count(totals['periods'], 'period')} due, {totals['empty']:,} of them empty{held}; "
        "nothing moved"
    )


_FORESEEN = {"billed": "finalized", "drafted": "reviewed", "held": "held: paused"}
"""What becomes of an invoice, in people's words."""


def _amount_if_any(amount: int, currency: str) -> str:
    return format_amount(amount, currency) if amount else ""


def _paid_by(sums: dict[str, int], currency: str) -> str:
    """How much of some invoices credit and cards will pay."""
    ways = [
        f"{format_amount(sums[way], currency)} by {way}" for way in ("credit", "card") if sums[way]
    ]
    return f"; {' and '.join(ways)}" if ways else ""


def _tell_outcomes(session: Session, report: BillReport) -> None:
    """Fill in what became of every period that the report's runs worked on."""
    ours = (
        select(BillingPeriod)
        .join(Client, Client.id == BillingPeriod.client_id)
        .where(BillingPeriod.run_id.in_(report.runs))
        .order_by(Client.name, Client.id)
    )
    counted = session.execute(
        ours.with_only_columns(Client.id, Client.name, BillingPeriod.state, func.count()).group_by(
            Client.id, Client.name, BillingPeriod.state
        )
    )
    for client_id, name, state, number in counted:
        report.clients.setdefault((client_id, name), Counter())[state] = number
    for state, undone, why in (
        (PeriodState.HELD, report.held, "reason"),
        (PeriodState.SKIPPED, report.skipped, "reason"),
        (PeriodState.FAILED, report.failures, "error"),
    ):
        found = session.execute(
            ours.with_only_columns(Client.name, BillingPeriod)
            .where(BillingPeriod.state == state)
            .order_by(BillingPeriod.period_start)
        )
        undone += [
            {
                "client": str(period.client_id),
                "name": name,
                "period_start": period.period_start.isoformat(),
                "period_end": period.period_end.isoformat(),
                why: getattr(period, why) or "",
            }
            for name, period in found
        ]


def _more_is_due(session: Session, run: BillingRun) -> bool:
    """Whether periods wait that the finished run was not allowed to take; not its failures."""
    waits = BillingPeriod.state.in_((PeriodState.OPEN, PeriodState.HELD))
    waiting = due_in(run, capped=False).where(waits)
    return session.scalar(select(waiting.with_only_columns(BillingPeriod.id).exists())) or False
