"""``duecourse differences``: where Stripe's record differs from ours, and what is known of that."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from sqlalchemy.orm import Session

from billing.errors import NotFound
from billing.money import format_amount
from cli.context import AccountName, StackDirectory, open_context
from cli.output import AsJson, Output, count, instant, table
from models import Account, DifferenceAcknowledgement, ReconciliationDifference
from models.database import database_now
from models.reconciliation import is_acknowledged, standing_differences
from tasks.acknowledging import (
    acknowledge_difference,
    acknowledgements_of,
    withdraw_acknowledgement,
)

differences = typer.Typer(
    no_args_is_help=True, help="Differences from Stripe's record: list, and acknowledge."
)

Given = Mapping[UUID, DifferenceAcknowledgement]
"""By difference, the acknowledgement that holds for it."""

LISTED = 50
"""Differences that people see; --json lists all."""

_Named = Annotated[
    str,
    typer.Argument(
        metavar="DIFFERENCE", help="Its id, or Stripe's of what it is about, such as re_1Pq7Lx."
    ),
]


@differences.command("list")
def list_differences(
    *,
    acknowledged: Annotated[
        bool | None,
        typer.Option(
            "--acknowledged/--open",
            help="Those that somebody has acknowledged, or those that nobody has.",
            show_default=False,
        ),
    ] = None,
    directory: StackDirectory = None,
    account_name: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """List what reconciling found, could not mend and still stands, oldest first."""
    output = Output(as_json=as_json)
    with open_context(directory) as context, context.transaction() as session:
        account = context.account(session, account_name)
        standing = standing_differences(account.id).order_by(ReconciliationDifference.id)
        if acknowledged is not None:
            standing = standing.where(is_acknowledged() if acknowledged else ~is_acknowledged())
        found = session.scalars(standing).all()
        given = acknowledgements_of(session, found)
    output.document(
        {
            "account": account.name,
            "differences": [difference_document(one, given) for one in found],
        }
    )
    output.show(differences_table(found, given))


@differences.command("acknowledge")
def acknowledge(
    named: _Named,
    reason: Annotated[str, typer.Option(help="Why the two records may differ here.")],
    directory: StackDirectory = None,
    account_name: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """Have the audit name a difference no more, as long as neither side of it changes."""
    output = Output(as_json=as_json)
    with open_context(directory) as context, context.transaction() as session:
        account = context.account(session, account_name)
        found = acknowledge_difference(
            session, account.id, _id_of(session, account, named), reason, requested_by="cli"
        )
        given = acknowledgements_of(session, [found])
    output.document(difference_document(found, given))
    output.say(f"[green]✓[/] {found.difference} of {escape(found.stripe_id)} is acknowledged")


@differences.command("withdraw")
def withdraw(
    named: _Named,
    directory: StackDirectory = None,
    account_name: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw what acknowledges a difference: the audit names it again."""
    output = Output(as_json=as_json)
    with open_context(directory) as context, context.transaction() as session:
        account = context.account(session, account_name)
        found = withdraw_acknowledgement(
            session,
            account.id,
            _id_of(session, account, named),
            requested_by="cli",
            now=database_now(session),
        )
        given = acknowledgements_of(session, [found])
    output.document(difference_document(found, given))
    output.say(f"[green]✓[/] {found.difference} of {escape(found.stripe_id)} is told again")


def _id_of(session: Session, account: Account, named: str) -> UUID:
    """The difference that is named by its id, or the newest that stands of a thing at Stripe."""
    try:
        return UUID(named)
    except ValueError:
        found = session.scalars(
            standing_differences(account.id)
            .where(ReconciliationDifference.stripe_id == named)
            .order_by(ReconciliationDifference.id.desc())
            .limit(1)
        ).one_or_none()
    if found is None:
        raise NotFound("difference", named)
    return found.id


def differences_table(found: Sequence[ReconciliationDifference], given: Given) -> Table:
    """The first of these differences, for people."""
    rows = table(
        count(len(found), "difference"),
        "difference", "at Stripe", "ours", "theirs", "repaired", "acknowledged",
    )  # fmt: skip
    for one in found[:LISTED]:
        rows.add_row(
            one.difference,
            Text(one.stripe_id),
            _told(one.ours, one.our_amount, one.currency),
            _told(one.theirs, one.their_amount, one.currency),
            "[green]✓[/]" if one.repaired else "[red]✗[/]",
            Text(_acknowledged(given[one.id]) if one.id in given else ""),
        )
    return rows


def difference_document(one: ReconciliationDifference, given: Given) -> dict[str, Any]:
    """One of them, for programs."""
    acknowledgement = given.get(one.id)
    return {
        "id": str(one.id),
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
        "acknowledgement": None
        if acknowledgement is None
        else {
            "reason": acknowledgement.reason,
            "acknowledged_by": acknowledgement.acknowledged_by,
            "acknowledged_at": acknowledgement.acknowledged_at,
        },
    }


def _told(state: str | None, amount: int | None, currency: str) -> str:
    if state is None:
        return "[dim]nothing[/]"
    return f"{state} {format_amount(amount, currency)}" if amount else state


def _acknowledged(given: DifferenceAcknowledgement) -> str:
    return f"{instant(given.acknowledged_at)} by {given.acknowledged_by}: {given.reason}"
