import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Account, ApiKey, Schedule
from models.api_key import split_key
from scheduler.firing import write_schedules
from scheduler.schedules import SCHEDULES
from tests.cli.conftest import Command
from tests.worlds import NOW


def test_migrate_brings_an_empty_database_to_the_newest_schema(
    command: Command, server: str
) -> None:
    base = server.rpartition("/")[0]
    with psycopg.connect(f"{base}/postgres", autocommit=True) as admin:
        admin.execute("CREATE DATABASE never_migrated")
    url = f"{base}/never_migrated"
    before = command("account", "create", "Too early", DATABASE_URL=url)
    assert before.code == 1
    assert "run duecourse migrate" in before.stderr
    first = command("migrate", "--json", DATABASE_URL=url)
    second = command("migrate", "--json", DATABASE_URL=url)
    assert (first.document["changed"], second.document["changed"]) == (True, False)
    assert first.document["revision"] == second.document["revision"]
    assert command("account", "create", "In time", DATABASE_URL=url).code == 0


def test_an_account_is_created_with_its_zone_and_currency(
    command: Command, session: Session
) -> None:
    options = ("--time-zone", "Europe/London", "--currency", "GBP")
    answer = command("account", "create", "Harbour & Co [North]", *options, "--json")
    assert answer.code == 0
    account = session.scalars(select(Account)).one()
    assert answer.document == {
        "id": str(account.id),
        "name": "Harbour & Co [North]",
        "time_zone": "Europe/London",
        "currency": "gbp",
    }


@pytest.mark.parametrize(
    "options", [["--time-zone", "Mars/Olympus"], ["--currency", "gold"], ["--colour", "red"]]
)
def test_an_account_with_a_wrong_value_is_wrong_usage(command: Command, options: list[str]) -> None:
    answer = command("account", "create", "A", *options)
    assert answer.code == 2
    assert options[0] in answer.stderr


def test_an_api_key_is_shown_once_and_works(
    command: Command, account: Account, session: Session
) -> None:
    answer = command("api-key", "create", "--scopes", "read,ops", "--json")
    assert answer.document["scopes"] == ["ops", "read"]
    key = session.scalars(select(ApiKey)).one()
    assert str(key.id) == answer.document["id"]
    parts = split_key(answer.document["key"])
    assert parts is not None
    assert key.admits(parts[1])
    shown = command("api-key", "create", "--account", account.name)
    assert shown.stdout.splitlines()[-1].startswith("dck_")


@pytest.mark.usefixtures("account")
def test_an_unknown_scope_is_wrong_usage(command: Command) -> None:
    answer = command("api-key", "create", "--scopes", "read,everything")
    assert answer.code == 2
    assert "everything" in answer.stderr


def test_schedules_are_those_that_the_scheduler_wrote_down(
    command: Command, session: Session
) -> None:
    assert "none yet" in command("schedules").stdout
    write_schedules(session, SCHEDULES, now=NOW)
    session.commit()
    names = [one["name"] for one in command("schedules", "--json").document["schedules"]]
    assert "bill-due-periods" in names
    assert len(names) == len(SCHEDULES) == len(session.scalars(select(Schedule)).all())
    assert "Bill every client whose period has ended" in command("schedules").stdout
