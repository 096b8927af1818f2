from importlib.metadata import metadata

import pytest

from cli.main import app
from tests.cli.conftest import Command


def test_the_version_is_the_installed_ones(command: Command) -> None:
    answer = command("--version")
    assert answer.code == 0
    assert answer.stdout == f"duecourse {metadata('duecourse')['Version']}\n"


def test_help_lists_every_command_and_promises_what_there_is(command: Command) -> None:
    answer = command("--help")
    assert answer.code == 0
    assert "Turns recorded charges into invoices, by durable jobs." in answer.stdout
    for name in (one.name for one in app.registered_commands if one.name):
        assert name in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonsense", "--json"], "No such command 'nonsense'"),
        (["jobs", "nonsense", "--json"], "No such command 'nonsense'"),
        (["bill", "--as-of", "foo", "--json"], "--as-of: must be a date such as"),
        (["bill", "--client", "x", "--json"], "Invalid value for '--client'"),
        (["import", "/nope.csv", "--json"], "does not exist"),
        (["--json", "bill"], "No such option"),
    ],
)
def test_wrong_usage_is_also_a_document_for_programs(
    command: Command, arguments: list[str], complaint: str
) -> None:
    answer = command(*arguments)
    assert answer.code == 2
    assert complaint in answer.document["error"]
    assert answer.stderr
