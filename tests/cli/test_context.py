import os
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from cli.context import read_settings_file
from gateways.sandbox.processes import hold
from models import Account, ApiKey, Scope
from tasks.accounts import create_account
from tests.cli.conftest import Command

OUTSIDE = {"DATABASE_URL": None, "REDIS_URL": None}
"""An environment that names no stack."""


@pytest.fixture
def other(engine: Engine) -> Account:
    """A second account."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return create_account(session, "Alder Fulfilment")


def a_running_stack(directory: Path, database_url: str, **settings: str) -> int:
    """What `up` leaves in its directory while it runs; the descriptor that holds its lock."""
    directory.mkdir(parents=True)
    lines = {"DATABASE_URL": database_url, "REDIS_URL": "redis://127.0.0.1:1/0", **settings}
    (directory / "duecourse.env").write_text(
        "".join(f"{name}='{value}'\n" for name, value in lines.items())
    )
    lock = hold(directory / "up.lock")
    assert lock is not None
    return lock


def test_the_directory_of_a_running_stack_is_taken_before_the_environment(
    command: Command, account: Account, database_url: str, tmp_path: Path
) -> None:
    lock = a_running_stack(tmp_path / "a stack", database_url)
    answer = command(
        "audit",
        "--dir",
        tmp_path / "a stack",
        "--json",
        DATABASE_URL="postgresql://nobody@nowhere/x",
    )
    assert answer.document["account"] == account.name
    os.close(lock)
    answer = command("audit", "--dir", tmp_path / "a stack")
    assert answer.code == 2
    assert "no stack runs in" in answer.stderr
    assert "duecourse up --dir" in answer.stderr


def test_a_stacks_vendors_are_its_own_whatever_the_environment_says(
    command: Command,
    database_url: str,
    tmp_path: Path,
    vendor_settings: dict[str, str],
) -> None:
    lock = a_running_stack(tmp_path / "local", database_url, **vendor_settings)
    bare = a_running_stack(tmp_path / "bare", database_url)
    real = {
        "STRIPE_SECRET_KEY": "sk_live_real",
        "SENDGRID_API_KEY": "SG.real",
        "SECRET_KEY": "of-another-stack-and-long-enough",
    }

    def checks(stack: str) -> dict[str, str]:
        document = command("doctor", "--dir", tmp_path / stack, "--json", **real).document
        return {one["name"]: one["found"] for one in document["checks"]}

    assert checks("local")["stripe"] == f"{vendor_settings['STRIPE_API_BASE']} answers"
    assert checks("local")["sendgrid events"] == "SENDGRID_WEBHOOK_KEY is set"
    assert checks("local")["secret key"] == "SECRET_KEY is set"
    assert checks("bare")["secret key"] == "SECRET_KEY is not set"
    assert checks("bare")["stripe"] == "STRIPE_SECRET_KEY is not set"
    assert checks("bare")["sendgrid"] == "SENDGRID_API_KEY is not set"
    os.close(lock)
    os.close(bare)


def test_a_stack_that_is_still_starting_is_not_talked_to(
    command: Command, database_url: str, tmp_path: Path
) -> None:
    lock = a_running_stack(tmp_path / "stack", database_url)
    (tmp_path / "stack" / "duecourse.env").unlink()
    answer = command("audit", "--dir", tmp_path / "stack")
    os.close(lock)
    assert answer.code == 2
    assert "is not ready yet" in answer.stderr


def test_without_any_setting_a_stack_in_var_is_found(
    command: Command, account: Account, database_url: str, tmp_path: Path
) -> None:
    answer = command("audit", **OUTSIDE)
    assert answer.code == 2
    assert answer.stderr == (
        "duecourse: no stack to talk to: start one with `duecourse up`, or give --dir, "
        "or set DATABASE_URL\n"
    )
    lock = a_running_stack(tmp_path / "var", database_url)
    answer = command("audit", "--json", **OUTSIDE)
    os.close(lock)
    assert answer.document["account"] == account.name


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"DATABASE_URL": "mysql://x/y"}, "DATABASE_URL: must look like postgresql://"),
        ({"REDIS_URL": None}, "REDIS_URL: is not set"),
        ({"PORT": "many"}, "PORT: must be a whole number"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(
    command: Command, environment: dict[str, str | None], complaint: str
) -> None:
    answer = command("audit", **environment)
    assert answer.code == 2
    assert complaint in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_database_that_is_not_there_is_one_line_that_names_the_setting(
    command: Command,
) -> None:
    nowhere = "postgresql://x:secret@127.0.0.1:1/x"
    for arguments in (["audit"], ["bill"], ["queues"], ["migrate"], ["account", "create", "A"]):
        answer = command(*arguments, DATABASE_URL=nowhere)
        assert answer.code == 1
        assert answer.stderr.startswith("duecourse: DATABASE_URL: the database cannot be reached")
        assert "secret" not in answer.stderr
        assert len(answer.stderr.splitlines()) == 1


def test_a_failure_is_also_a_document_for_programs(command: Command) -> None:
    answer = command("audit", "--json", DATABASE_URL="postgresql://x@127.0.0.1:1/x")
    assert answer.code == 1
    assert "DATABASE_URL: the database cannot be reached" in answer.document["error"]


def test_the_only_account_needs_no_name(command: Command, account: Account) -> None:
    assert command("audit", "--json").document["account"] == account.name


@pytest.mark.usefixtures("account")
def test_of_several_accounts_one_must_be_named(command: Command, other: Account) -> None:
    answer = command("audit")
    assert answer.code == 2
    assert f"there are Alder Fulfilment ({other.id}), Bluebird Prep (" in answer.stderr
    for called in (other.name, str(other.id)):
        answer = command("audit", "--account", called, "--json")
        assert answer.document["account"] == other.name
    answer = command("audit", "--account", "Nobody")
    assert answer.code == 2
    assert "there is no account Nobody" in answer.stderr


def test_an_api_key_names_its_account(
    command: Command, account: Account, other: Account, engine: Engine
) -> None:
    key, text = ApiKey.issue(other.id, {Scope.READ})
    with Session(engine) as session, session.begin():
        session.add(key)
    answer = command("audit", "--json", DUECOURSE_API_KEY=text)
    assert answer.document["account"] == other.name
    named = command("audit", "--json", "--account", account.name, DUECOURSE_API_KEY=text)
    assert named.document["account"] == account.name
    wrong = command("audit", DUECOURSE_API_KEY=f"{text}x")
    assert wrong.code == 2
    assert "DUECOURSE_API_KEY: is no valid key" in wrong.stderr


def test_a_database_without_accounts_says_what_to_do(command: Command) -> None:
    answer = command("bill")
    assert answer.code == 2
    assert "duecourse account create NAME" in answer.stderr


def test_a_settings_file_is_read_as_a_shell_would(tmp_path: Path) -> None:
    path = tmp_path / "duecourse.env"
    path.write_text("DATABASE_URL='postgresql://a:b&c@host/d?x=y z'\nPORT=80\n\n")
    assert read_settings_file(path) == {
        "DATABASE_URL": "postgresql://a:b&c@host/d?x=y z",
        "PORT": "80",
    }
