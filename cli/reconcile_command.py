"""``duecourse reconcile``: whether our record of money and Stripe's agree."""

from datetime import UTC, datetime, time
from typing import Annotated, Any

import typer
from rich.text import Text
from sqlalchemy import select

from billing.instants import date_or_instant
from billing.money import format_amount
from cli.context import AccountName, Context, StackDirectory, open_context
from cli.failures import FOUND_A_PROBLEM
from cli.output import AsJson, Output, count, table
from cli.patience import Patience
from models import Reconciliation, ReconciliationDifference
from models.database import database_now
from tasks.reconciling import request_reconciliation, window_since

LISTED = 50
"""Differences that people see; --json lists all."""


def _since(text: str | None) -> datetime | None:
    if text is None:
        return None
    found = date_or_instant(text, "since")
    return found if isinstance(found, datetime) else datetime.combine(found, time(), UTC)


def reconcile(
    since: Annotated[
        str | None,
        typer.Option(
            help="Compare from here on: an instant, or a date (its midnight in UTC). "
            "By default the last four days."
        ),
    ] = None,
    directory: StackDirectory = None,
    account_name: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """Compare payments and refunds with Stripe's record; mend what only came late, list the rest."""
    output = Output(as_json=as_json)
    begin = _since(since)
    with open_context(directory) as context:
        with context.transaction() as session:
            account = context.account(session, account_name)
            window = window_since(begin, now=database_now(session))
            asked = request_reconciliation(session, account.id, window, requested_by="cli")
        with output.status("comparing with Stripe"):
            Patience(context, output, lambda: None).wait_for_jobs([asked.job_id])
        record, differences = _found(context, asked)
    output.document(
        {
            "account": account.name,
            "reconciliation": str(record.id),
            "since": record.since.isoformat(),
            "until": record.until.isoformat(),
            "payments": record.payments,
            "refunds": record.refunds,
            "disputes": record.disputes,
            "ok": all(one.repaired for one in differences),
            "differences": [_as_json(one) for one in differences],
        }
    )
    compared = f"{count(record.payments, 'payment')} and {count(record.refunds, 'refund')} compared"
    if not differences:
        output.say(f"[green]✓[/] {compared}, no difference found")
        return
    _show(output, compared, differences)
    if not all(one.repaired for one in differences):
        raise typer.Exit(FOUND_A_PROBLEM)


def _found(
    context: Context, asked: Reconciliation
) -> tuple[Reconciliation, list[ReconciliationDifference]]:
    with context.transaction() as session:
        record = session.get_one(Reconciliation, asked.id)
        differences = session.scalars(
            select(ReconciliationDifference)
            .where(ReconciliationDifference.reconciliation_id == record.id)
            .order_by(ReconciliationDifference.id)
        ).all()
        return record, list(differences)


def _show(output: Output, compared: str, differences: list[ReconciliationDifference]) -> None:
    rows = table(
        count(len(differences), "difference"),
        "difference", "at Stripe", "ours", "theirs", "repaired",
    )  # fmt: skip
    for one in differences[:LISTED]:
        rows.add_row(
            one.difference,
            Text(one.stripe_id),
            _told(one.ours, one.our_amount, one.currency),
            _told(one.theirs, one.their_amount, one.currency),
            "[green]✓[/]" if one.repaired else "[red]✗[/]",
        )
    output.show(rows)
    repaired = sum(one.repaired for one in differences)
    output.say(f"{compared}; {repaired:,} of {count(len(differences), 'difference')} repaired")


def _told(state: str | None, amount: int | None, currency: str) -> str:
    if state is None:
        return "[dim]nothing[/]"
    return f"{state} {format_amount(amount, currency)}" if amount else state


def _as_json(one: ReconciliationDifference) -> dict[str, Any]:
    return {
        "difference": one.difference,
        "repaired": one.repaired,
        "stripe_id": one.stripe_id,
        "client": None if one.client_id is None else str(one.client_id),
        "invoice": None if one.invoice_id is None else str(one.invoice_id),
        "currency": one.currency,
        "ours": one.ours,
        "our_amount": one.our_amount,
        "theirs": one.theirs,
        "their_amount": one.their_amount,
    }
