"""``duecourse reconcile``: whether our record of money and Stripe's agree."""

from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import Annotated

import typer
from sqlalchemy import select

from billing.instants import date_or_instant
from cli.context import AccountName, Context, StackDirectory, open_context
from cli.differences import Given, difference_document, differences_table
from cli.failures import FOUND_A_PROBLEM
from cli.output import AsJson, Output, count
from cli.patience import Patience
from models import Reconciliation, ReconciliationDifference
from models.database import database_now
from tasks.acknowledging import acknowledgements_of
from tasks.reconciling import request_reconciliation, window_since


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
        record, found, given = _found(context, asked)
    is_ok = all(one.repaired or one.id in given for one in found)
    output.document(
        {
            "account": account.name,
            "reconciliation": str(record.id),
            "since": record.since.isoformat(),
            "until": record.until.isoformat(),
            "payments": record.payments,
            "refunds": record.refunds,
            "disputes": record.disputes,
            "ok": is_ok,
            "differences": [difference_document(one, given) for one in found],
        }
    )
    compared = f"{count(record.payments, 'payment')} and {count(record.refunds, 'refund')} compared"
    if not found:
        output.say(f"[green]✓[/] {compared}, no difference found")
        return
    _show(output, compared, found, given)
    if not is_ok:
        raise typer.Exit(FOUND_A_PROBLEM)


def _found(
    context: Context, asked: Reconciliation
) -> tuple[Reconciliation, Sequence[ReconciliationDifference], Given]:
    with context.transaction() as session:
        record = session.get_one(Reconciliation, asked.id)
        found = session.scalars(
            select(ReconciliationDifference)
            .where(ReconciliationDifference.reconciliation_id == record.id)
            .order_by(ReconciliationDifference.id)
        ).all()
        return record, found, acknowledgements_of(session, found)


def _show(
    output: Output, compared: str, found: Sequence[ReconciliationDifference], given: Given
) -> None:
    output.show(differences_table(found, given))
    repaired = sum(one.repaired for one in found)
    told = f"{compared}; {repaired:,} of {count(len(found), 'difference')} repaired"
    output.say(f"{told}, {len(given):,} acknowledged" if given else told)
    if repaired + len(given) < len(found):
        output.say(
            "[dim]what is in order all the same: duecourse differences acknowledge ID --reason TEXT"
        )
