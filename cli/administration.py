"""Setting a stack up: schema, accounts, keys; and its schedules."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text
from sqlalchemy import func, select

from cli.context import AccountName, StackDirectory, open_context
from cli.output import AsJson, Output, instant, table
from models import ApiKey, Schedule, ScheduleFire, Scope
from models.schema import is_current
from models.schema import migrate as migrate_schema
from tasks.accounts import create_account

accounts = typer.Typer(no_args_is_help=True, help="The businesses that bill.")
api_keys = typer.Typer(no_args_is_help=True, help="Keys for the HTTP API.")


def migrate(directory: StackDirectory = None, as_json: AsJson = False) -> None:
    """Bring the database's schema to this version's."""
    output = Output(as_json=as_json)
    with open_context(directory) as context, context.engine.begin() as connection:
        was_current = is_current(connection)
        revision = migrate_schema(connection)
    output.document({"revision": revision, "changed": not was_current})
    what = "is at" if was_current else "was brought to"
    output.say(f"[green]✓[/] the schema {what} revision {revision}")


@accounts.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    time_zone: Annotated[
        str, typer.Option(help="Whose midnights bound periods, such as America/Chicago.")
    ] = "UTC",
    currency: Annotated[str, typer.Option(help="ISO 4217, such as usd.")] = "usd",
    directory: StackDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Create an account."""
    output = Output(as_json=as_json)
    with open_context(directory) as context, context.transaction() as session:
        account = create_account(session, name, time_zone=time_zone, currency=currency)
    output.document(
        {
            "id": str(account.id),
            "name": account.name,
            "time_zone": account.time_zone,
            "currency": account.currency,
        }
    )
    output.say(
        f"[green]✓[/] account {escape(account.name)} ({account.time_zone}, {account.currency}): "
        f"{account.id}"
    )


@api_keys.command("create")
def create_key(
    scopes: Annotated[
        str, typer.Option(help="What the key may do: any of read, write, ops, with commas.")
    ] = "read,write",
    directory: StackDirectory = None,
    account_name: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key. Its text is shown once and never stored."""
    output = Output(as_json=as_json)
    wanted = _scopes(scopes)
    with open_context(directory) as context, context.transaction() as session:
        account = context.account(session, account_name)
        key, secret = ApiKey.issue(account.id, wanted)
        session.add(key)
        session.flush()
    output.document(
        {"id": str(key.id), "account": account.name, "scopes": key.scopes, "key": secret}
    )
    output.say(
        f"[green]✓[/] a key of {escape(account.name)} for {', '.join(key.scopes)}; it is shown "
        "only now:"
    )
    output.say(secret)


def schedules(directory: StackDirectory = None, as_json: AsJson = False) -> None:
    """Show what happens by itself, when it last did and when it will next."""
    output = Output(as_json=as_json)
    last = (
        select(func.max(ScheduleFire.fire_at))
        .where(ScheduleFire.schedule == Schedule.name)
        .correlate(Schedule)
        .scalar_subquery()
    )
    with open_context(directory) as context, context.transaction() as session:
        rows = session.execute(select(Schedule, last).order_by(Schedule.name)).all()
    output.document(
        {
            "schedules": [
                {
                    "name": one.name,
                    "cron": one.cron,
                    "time_zone": one.time_zone,
                    "kind": one.kind,
                    "description": one.description,
                    "next_fire_at": one.next_fire_at,
                    "last_fire_at": last_fire_at,
                    "paused_at": one.paused_at,
                }
                for one, last_fire_at in rows
            ]
        }
    )
    listed = table("Schedules", "name", "cron", "next", "last", "what it does")
    for one, last_fire_at in rows:
        following = instant(one.next_fire_at) if one.paused_at is None else "[yellow]paused"
        listed.add_row(
            one.name,
            f"{one.cron} {one.time_zone}",
            following,
            instant(last_fire_at),
            Text(one.description),
        )
    output.show(listed)
    if not rows:
        output.say("none yet: a scheduler writes them down when it first starts")


def _scopes(text_: str) -> set[Scope]:
    try:
        return {Scope(scope.strip()) for scope in text_.split(",")}
    except ValueError as error:
        raise typer.BadParameter(
            f"{error}: any of {', '.join(Scope)}, with commas", param_hint="--scopes"
        ) from error
