"""``duecourse recovery``: what each step of dunning brought in."""

from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from rich.bar import Bar

from billing.cycles import local_date
from billing.instants import iso_date
from billing.money import format_amount
from billing.recovery import days_asked_for
from cli.context import AccountName, StackDirectory, open_context
from cli.output import AsJson, Output, table
from models.database import database_now
from tasks.recovery import recovery_report

BAR_WIDTH = 24
_SUMS = frozenset({"failed", "recovered"})
_COLOURS = {"failed": "white", "recovered": "green", "open": "yellow", "given_up": "red"}
_STEP_COLOUR = "cyan"


def recovery(
    first_text: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DAY",
            help="The first day, such as 2026-06-01; by default 90 days up to the last one.",
            show_default=False,
        ),
    ] = None,
    last_text: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="DAY",
            help="The last day, which is in it; by default today.",
            show_default=False,
        ),
    ] = None,
    directory: StackDirectory = None,
    account_name: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """Show what became of invoices whose first automatic try failed, and which step recovered what."""
    output = Output(as_json=as_json)
    first = None if first_text is None else iso_date(first_text, "--from")
    last = None if last_text is None else iso_date(last_text, "--to")
    with open_context(directory) as context, context.transaction() as session:
        account = context.account(session, account_name)
        today = local_date(database_now(session), ZoneInfo(account.time_zone))
        first, last = days_asked_for(first, last, today=today)
        report = recovery_report(session, account, first, last)
    output.document(
        {
            "account": account.name,
            "from": first.isoformat(),
            "to": last.isoformat(),
            "data": [
                {
                    "currency": currency,
                    "outcome": outcome,
                    "invoices": part.invoices,
                    "amount": part.amount,
                    "rate": str(part.rate_of(of.failed)),
                }
                for currency, of in report.items()
                for outcome, part in of.outcomes.items()
            ],
        }
    )
    if not report:
        output.say(f"no first automatic try failed from {first} to {last}")
    for currency, of in report.items():
        rows = table(
            f"First tries that failed from {first} to {last}, {currency.upper()}",
            *("what became of them", "", "invoices", "amount", "rate"),
            numbers=("invoices", "amount", "rate"),
        )
        for outcome, part in of.outcomes.items():
            rows.add_row(
                outcome.replace("_", " "),
                Bar(
                    max(of.failed.amount, 1),
                    0,
                    part.amount,
                    width=BAR_WIDTH,
                    color=_COLOURS.get(outcome, _STEP_COLOUR),
                ),
                f"{part.invoices:,}",
                format_amount(part.amount, currency),
                f"{part.rate_of(of.failed):.1%}",
                style="bold" if outcome in _SUMS else None,
            )
        output.show(rows)
