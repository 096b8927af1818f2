"""``duecourse import``: charges from a CSV file."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from billing.cycles import BillingCycle, time_zone
from cli.context import AccountName, StackDirectory, open_context
from cli.failures import FOUND_A_PROBLEM
from cli.importing import ImportOptions, ImportReport, import_charges
from cli.output import AsJson, Output, count, table

BAD_ROWS_SHOWN = 200


def import_file(
    *,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            readable=True,
            metavar="FILE.csv",
            help="Columns: client, charged_on, description, quantity, unit_price, currency, "
            "external_ref.",
        ),
    ],
    billing_cycle: Annotated[
        BillingCycle, typer.Option(help="For clients that are created.")
    ] = BillingCycle.MANUAL,
    zone: Annotated[
        str | None,
        typer.Option(
            "--time-zone",
            help="For clients that are created; else the account's.",
            metavar="ZONE",
            show_default=False,
        ),
    ] = None,
    auto_collect: Annotated[
        bool | None,
        typer.Option(
            "--auto-collect/--no-auto-collect",
            help="For clients that are created: charge their cards by themselves; else as the "
            "account has it.",
            show_default=False,
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Keep the good rows although there are bad ones.")
    ] = False,
    directory: StackDirectory = None,
    account_name: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """Record the charges of a CSV file, creating the clients that it names.

    All in one transaction. A row that is there already, with the same content, is counted and not
    repeated, so a file can be imported again.
    """
    output = Output(as_json=as_json)
    options = ImportOptions(
        billing_cycle=billing_cycle,
        time_zone=None if zone is None else time_zone(zone, "--time-zone").key,
        auto_collect=auto_collect,
        skip_bad=skip_bad,
    )
    with (
        open_context(directory) as context,
        context.session() as session,
        file.open("rb") as opened,
        output.progress() as bars,
    ):
        account = context.account(session, account_name)
        report = import_charges(session, account, opened, options, bars.update)
        if report.kept:
            session.commit()
    output.document({"file": str(file), "account": account.name, **report.as_json()})
    _show(output, report)
    if report.bad:
        raise typer.Exit(FOUND_A_PROBLEM)


def _show(output: Output, report: ImportReport) -> None:
    if report.bad:
        bad = table("Bad rows", "line", "reason", numbers=("line",))
        for one in report.bad[:BAD_ROWS_SHOWN]:
            bad.add_row(str(one.line), Text(one.reason))
        output.show(bad)
        if len(report.bad) > BAD_ROWS_SHOWN:
            output.say(f"and {len(report.bad) - BAD_ROWS_SHOWN:,} more bad rows; --json lists all")
    if not report.kept:
        output.say(
            f"[red]nothing kept[/]: {len(report.bad):,} bad of {count(report.rows, 'row')}; correct "
            "them, or keep the others with --skip-bad"
        )
        return
    per_second = f", {report.rows / report.seconds:,.0f} rows/s" if report.seconds else ""
    output.say(
        f"{count(report.created, 'charge')} recorded, {report.already_there:,} already there, "
        f"{len(report.bad):,} bad, {count(report.clients_created, 'client')} created "
        f"[dim]({count(report.rows, 'row')} in {report.seconds:.1f} s{per_second})"
    )
