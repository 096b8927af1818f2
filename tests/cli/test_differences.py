import pytest
from sqlalchemy import Engine

from models import Account
from tests.cli.conftest import Command
from tests.reconciliations import a_difference, a_reconciliation


@pytest.fixture
def difference(engine: Engine, account: Account) -> str:
    """A refund made at Stripe's own pages, ``re_1``; it stands."""
    a_reconciliation(engine, account)
    return str(a_difference(engine))


@pytest.mark.parametrize("by_stripe_s_id", [True, False])
def test_a_difference_is_acknowledged_and_that_is_withdrawn(
    command: Command, difference: str, *, by_stripe_s_id: bool
) -> None:
    named = "re_1" if by_stripe_s_id else difference
    assert command("audit").code == 1

    answer = command("differences", "acknowledge", named, "--reason", "By hand [12]")

    assert answer.code == 0
    assert "refund_made_elsewhere of re_1 is acknowledged" in answer.stdout
    assert "by cli: By hand [12]" in command("differences", "list").stdout
    assert command("audit").code == 0
    answer = command("differences", "withdraw", named)
    assert answer.code == 0
    assert "refund_made_elsewhere of re_1 is told again" in answer.stdout
    assert command("audit").code == 1


def test_they_are_listed_by_whether_they_are_acknowledged(
    engine: Engine, command: Command, difference: str
) -> None:
    a_difference(engine, "re_2")
    given = command("differences", "acknowledge", "re_1", "--reason", "By hand", "--json").document
    assert (given["id"], given["acknowledgement"]["reason"]) == (difference, "By hand")

    for options, listed in (
        ([], ["re_1", "re_2"]),
        (["--acknowledged"], ["re_1"]),
        (["--open"], ["re_2"]),
    ):
        found = command("differences", "list", *options, "--json").document["differences"]
        assert [one["stripe_id"] for one in found] == listed


@pytest.mark.usefixtures("difference")
def test_what_cannot_be_is_refused_in_one_line(command: Command) -> None:
    unknown = command("differences", "acknowledge", "re_9", "--reason", "x")
    assert (unknown.code, unknown.stderr) == (1, "duecourse: no difference re_9\n")
    blank = command("differences", "acknowledge", "re_1", "--reason", " ")
    assert (blank.code, blank.stderr) == (2, "duecourse: --reason: must not be empty\n")
    nobody = command("differences", "withdraw", "re_1")
    assert (nobody.code, nobody.stderr) == (
        1,
        "duecourse: nobody has acknowledged this difference\n",
    )
    assert command("differences", "acknowledge", "re_1").code == 2
