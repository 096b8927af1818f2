from datetime import date, timedelta

from sqlalchemy import Engine

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account
from tasks.calls import Gateways
from tests.cards import SOFT, a_client_with, an_open_invoice, sweep
from tests.cli.conftest import Command
from tests.worlds import NOW


def test_recovery_shows_what_became_of_failed_tries(
    command: Command,
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
) -> None:
    an_open_invoice(engine, account, a_client_with(engine, account, stripe_sandbox, SOFT))
    sweep(engine, vendors)
    days = ("--from", NOW.date().isoformat(), "--to", NOW.date().isoformat())

    document = command("recovery", *days, "--json").document

    assert document["account"] == account.name
    assert document["data"][0] == {
        "currency": "usd",
        "outcome": "failed",
        "invoices": 1,
        "amount": 1000,
        "rate": "1.0000",
    }
    assert {one["outcome"]: one["amount"] for one in document["data"]} == {
        "failed": 1000,
        "recovered": 0,
        "open": 1000,
        "given_up": 0,
        "withdrawn": 0,
    }
    shown = command("recovery", *days)
    assert shown.code == 0
    assert "First tries that failed from 2026-06-01 to 2026-06-01, USD" in shown.stdout
    assert "100.0%" in shown.stdout


def test_days_without_failures_say_so(command: Command, account: Account) -> None:
    later = (NOW.date() + timedelta(days=1)).isoformat()

    answer = command("recovery", "--account", account.name, "--from", later, "--to", later)

    assert (answer.code, answer.stdout) == (
        0,
        f"no first automatic try failed from {later} to {later}\n",
    )


def test_wrong_days_are_refused_by_name(command: Command, account: Account) -> None:
    assert account.name
    for arguments, named in (
        (("--from", "soon"), "--from"),
        (("--from", date(2026, 6, 2).isoformat(), "--to", "2026-06-01"), "--to"),
    ):
        answer = command("recovery", *arguments)
        assert answer.code == 2
        assert named in answer.stderr
