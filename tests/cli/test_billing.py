import csv
import re
import threading
from collections import defaultdict
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.cycles import BillingCycle
from cli import billing, patience
from cli.output import Output
from models import Account, BillingPeriod, BillingRun, Client, Invoice
from tests.cli.conftest import Command, Working
from tests.money import deposit, with_a_card
from tests.waiting import wait_for
from tests.worlds import NOW, a_charge, a_client, bill, refuse_invoices_of

PURCHASES = Path(__file__).parent / "data" / "purchases.csv"
"""Real shops' shape: CRLF, a history of 18 months, a month that sums to zero, one free item."""

AS_OF = "1998-07-01"

NOTHING = dict.fromkeys(("billed", "drafted", "empty", "held", "skipped", "failed"), 0)

pytestmark = pytest.mark.usefixtures("account")


def monthly(engine: Engine, account: Account, starts_on: date, **fields: Any) -> Client:
    return a_client(
        engine, account, billing_cycle=BillingCycle.MONTHLY, billing_starts_on=starts_on, **fields
    )


def purchases_by_month() -> dict[tuple[str, str], int]:
    """Cents by customer and month, summed apart from all code under test."""
    sums: dict[tuple[str, str], int] = defaultdict(int)
    with PURCHASES.open(newline="") as file:
        for row in csv.DictReader(file):
            amount = Decimal(row["unit_price"]) * Decimal(row["quantity"]) * 100
            sums[row["client"], row["charged_on"][:7]] += int(amount)
    return dict(sums)


def test_a_history_of_purchases_becomes_one_invoice_for_every_month_with_any(
    command: Command, working: Working, session: Session
) -> None:
    imported = command(
        "import", PURCHASES, "--billing-cycle", "monthly", "--time-zone", "UTC", "--json"
    )
    assert imported.code == 0
    assert imported.document["created"] == 56
    expected = purchases_by_month()
    assert 0 in expected.values()

    with working():
        answer = command("bill", "--as-of", AS_OF, "--json")

    assert answer.code == 0
    assert answer.document["as_of"] == AS_OF
    assert answer.document["failures"] == []
    assert answer.document["periods"]["billed"] == len(expected)
    usd = answer.document["invoiced"]["usd"]
    assert usd == {"invoices": len(expected), "total": sum(expected.values())}
    billed = session.execute(
        select(Client.external_ref, BillingPeriod.period_start, Invoice.total)
        .join(BillingPeriod, BillingPeriod.id == Invoice.period_id)
        .join(Client, Client.id == Invoice.client_id)
    )
    assert {(ref, f"{start:%Y-%m}"): total for ref, start, total in billed} == expected
    first: dict[str, str] = {}
    for client, month in expected:
        first[client] = min(month, first.get(client, month))
    months = sum(
        (1998 - int(month[:4])) * 12 + 7 - int(month.removeprefix(month[:5]))
        for month in first.values()
    )
    assert answer.document["periods"]["empty"] == months - len(expected)

    with working():
        again = command("bill", "--as-of", AS_OF, "--json")
    assert again.document["invoiced"] == {}
    assert command("audit").code == 0


def test_people_see_outcomes_and_totals(
    command: Command, working: Working, engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, date(2026, 4, 1))
    a_charge(engine, client, date(2026, 4, 20), "1234.50")
    with working():
        answer = command("bill", "--as-of", "2026-06-01")
    assert answer.code == 0
    assert re.search(r"billed +1\n", answer.stdout)
    assert re.search(r"empty +1\n", answer.stdout)
    assert "1,234.50 USD" in answer.stdout


def test_only_the_named_client_is_billed(
    command: Command, working: Working, engine: Engine, account: Account
) -> None:
    one = monthly(engine, account, date(2026, 4, 1), name="One")
    monthly(engine, account, date(2026, 4, 1), name="Other")
    with working():
        answer = command("bill", "--as-of", "2026-05-01", "--client", str(one.id), "--json")
    assert sum(answer.document["periods"].values()) == 1


def test_an_instant_bills_what_has_ended_by_then(
    command: Command, working: Working, engine: Engine, account: Account
) -> None:
    monthly(engine, account, date(2026, 4, 1), time_zone="America/Chicago")
    with working():
        early = command("bill", "--as-of", "2026-05-01T04:59:59Z", "--json")
        late = command("bill", "--as-of", "2026-05-01T00:00:00-05:00", "--json")
    assert early.document["periods"]["empty"] == 0
    assert late.document["periods"]["empty"] == 1


def test_more_periods_than_one_run_takes_are_billed_by_further_runs(
    command: Command, working: Working, engine: Engine, account: Account
) -> None:
    monthly(engine, account, date(2019, 1, 1))
    with working():
        answer = command("bill", "--as-of", "2026-01-01", "--json")
    assert answer.code == 0
    assert answer.document["periods"]["empty"] == 84
    assert len(answer.document["runs"]) == 2


def test_a_dry_run_says_what_would_be_billed_and_moves_nothing(
    command: Command, working: Working, engine: Engine, account: Account, session: Session
) -> None:
    client = monthly(engine, account, date(2026, 4, 1), name="Bell & Sons")
    a_charge(engine, client, date(2026, 4, 20), "12.50")
    with working():
        answer = command("bill", "--as-of", "2026-06-01", "--dry-run", "--json")
        shown = command("bill", "--as-of", "2100-01-01", "--dry-run")
    assert answer.code == shown.code == 0
    (invoice,) = answer.document["invoices"]
    assert (invoice["name"], invoice["total"], invoice["currency"]) == ("Bell & Sons", 1250, "usd")
    assert answer.document["totals"]["empty"] == 1
    assert "Bell & Sons" in shown.stdout
    assert session.scalars(select(Invoice)).all() == []


def test_a_dry_run_tells_how_each_invoice_would_be_paid_reviewed_or_held(
    command: Command, working: Working, engine: Engine, account: Account
) -> None:
    since = date(2026, 4, 1)
    paid = monthly(engine, account, since, name="Paid")
    reviewed = monthly(engine, account, since, name="Reviewed", review_hours=24)
    held = monthly(engine, account, since, name="Held", paused={"billing": True})
    for client in (paid, reviewed, held):
        a_charge(engine, client, date(2026, 4, 20), "12.50")
    deposit(engine, account, paid, 450)
    with_a_card(engine, account, paid)
    with working():
        answer = command("bill", "--as-of", "2026-05-01", "--dry-run", "--json")
        shown = command("bill", "--as-of", "2026-05-01", "--dry-run").stdout

    outcomes = {one["name"]: one["outcome"] for one in answer.document["invoices"]}
    assert outcomes == {"Paid": "billed", "Reviewed": "drafted", "Held": "held"}
    assert answer.document["totals"]["invoiced"] == {
        "usd": {"invoices": 1, "total": 1250, "credit": 450, "card": 800}
    }
    assert re.search(r"Paid .* 12.50 USD +4.50 USD +8.00 USD +finalized", shown)
    assert re.search(r"Reviewed .* 12.50 USD +reviewed", shown)
    assert re.search(r"Held .* 12.50 USD +held: paused", shown)
    assert "1 invoice, 12.50 USD; 4.50 USD by credit and 8.00 USD by card" in shown
    assert "1 invoice, 12.50 USD, for review" in shown
    assert "1 invoice, 12.50 USD, held" in shown
    assert "3 periods due, 0 of them empty and 1 held; nothing moved" in shown


def test_what_is_reviewed_or_held_is_told_apart_from_what_is_invoiced(
    command: Command, working: Working, engine: Engine, account: Account
) -> None:
    reviewed = monthly(engine, account, date(2026, 4, 1), review_hours=24)
    held = monthly(engine, account, date(2026, 4, 1), name="Held", paused={"billing": True})
    for client in (reviewed, held):
        a_charge(engine, client, date(2026, 4, 20), "12.50")
    with working():
        answer = command("bill", "--as-of", "2026-05-01", "--json")
    assert answer.code == 0
    assert answer.document["periods"] == {**NOTHING, "drafted": 1, "held": 1}
    assert answer.document["invoiced"] == {}
    assert answer.document["drafted"] == {"usd": {"invoices": 1, "total": 1250}}
    [one] = answer.document["held"]
    assert (one["name"], one["reason"]) == ("Held", "paused")
    with working():
        again = command("bill", "--as-of", "2026-05-01", "--client", str(held.id))
    assert re.search(r"billed +1\n", again.stdout)


def test_a_period_that_fails_is_told_with_its_reason(
    command: Command, working: Working, engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, date(2026, 4, 1))
    a_charge(engine, client, date(2026, 4, 20))
    with engine.begin() as connection:
        # What a broken row of older data would do.
        connection.execute(
            text("ALTER TABLE invoice_lines ADD CONSTRAINT broken CHECK (amount < 0) NOT VALID")
        )
    with working():
        answer = command("bill", "--as-of", "2026-05-01", "--json")
    assert answer.code == 1
    assert answer.document["periods"]["failed"] == 1
    (failure,) = answer.document["failures"]
    assert failure["client"] == str(client.id)
    assert (failure["period_start"], failure["period_end"]) == ("2026-04-01", "2026-05-01")
    assert "broken" in failure["error"]
    with working():
        shown = command("bill", "--as-of", "2026-05-01")
    assert re.search(rf"{client.name} +{client.id} +2026-04-01 +2026-05-01 .*broken", shown.stdout)


def test_what_waits_behind_a_failure_is_not_asked_for_again_and_again(
    command: Command, working: Working, engine: Engine, account: Account
) -> None:
    client = monthly(engine, account, date(2026, 1, 1))
    a_charge(engine, client, date(2026, 1, 20))
    refuse_invoices_of(engine, client)
    with working():
        answer = command("bill", "--as-of", "2026-04-01", "--json")
    assert answer.code == 1
    assert len(answer.document["runs"]) == 1
    (counted,) = answer.document["clients"]
    assert counted["periods"] == {**NOTHING, "failed": 1}
    assert [one["period_start"] for one in answer.document["failures"]] == ["2026-01-01"]


def test_each_clients_periods_are_counted(
    command: Command, working: Working, engine: Engine, account: Account
) -> None:
    one = monthly(engine, account, date(2026, 3, 1), name="One")
    other = monthly(engine, account, date(2026, 4, 1), name="Other")
    a_charge(engine, one, date(2026, 3, 2))
    with working():
        answer = command("bill", "--as-of", "2026-05-01", "--json")
    assert answer.document["clients"] == [
        {"client": str(one.id), "name": "One", "periods": {**NOTHING, "billed": 1, "empty": 1}},
        {"client": str(other.id), "name": "Other", "periods": {**NOTHING, "empty": 1}},
    ]


def test_skipped_periods_are_told_with_their_reason_up_to_a_limit(
    engine: Engine,
    account: Account,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(billing, "LISTED", 1)
    monkeypatch.setenv("COLUMNS", "120")
    client = monthly(engine, account, date(2026, 3, 1), name="Waiting")
    run = bill(engine, account, now=NOW)
    skip = text(
        "UPDATE billing_periods SET state = 'skipped', reason = 'before_activation'"
        " WHERE run_id = :run"
    )
    session.execute(skip, {"run": run.id})
    report = billing.BillReport(runs=[run.id])
    billing._tell_outcomes(session, report)
    march, *later = report.skipped
    assert march == {
        "client": str(client.id),
        "name": "Waiting",
        "period_start": "2026-03-01",
        "period_end": "2026-04-01",
        "reason": "before_activation",
    }
    billing.show_report(Output(as_json=False), report)
    shown = capsys.readouterr().out
    assert re.search(rf"Waiting +{client.id} +2026-03-01 +2026-04-01 +before_activation", shown)
    assert "2026-05-01" not in shown
    assert f"and {len(later)} more; --json lists all" in shown


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warn at once of what is missing."""
    monkeypatch.setattr(patience, "WARN_AFTER_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_missing_worker_is_told_once_while_the_command_waits_on(
    command: Command, working: Working, engine: Engine, account: Account
) -> None:
    monthly(engine, account, date(2026, 4, 1))
    answers = []
    billing_thread = threading.Thread(
        target=lambda: answers.append(command("bill", "--as-of", "2026-05-01", "--json"))
    )
    billing_thread.start()

    def run_is_requested() -> bool:
        with Session(engine) as session:
            return session.scalar(select(BillingRun.id)) is not None

    wait_for(run_is_requested)
    assert not answers
    with working():
        billing_thread.join()
    assert answers[0].code == 0
    assert answers[0].stderr.count("no dispatcher is alive and no worker serves billing") == 1


def test_ctrl_c_leaves_the_run_going_and_says_so(
    command: Command,
    engine: Engine,
    account: Account,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monthly(engine, account, date(2026, 4, 1))

    def press(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.patience.time.sleep", press)
    answer = command("bill", "--as-of", "2026-05-01")
    assert answer.code == 130
    assert "the work goes on without us" in answer.stderr
    assert session.scalars(select(BillingRun)).one().finished_at is None


@pytest.mark.parametrize(
    ("arguments", "complaint", "code"),
    [
        (["--as-of", "tomorrow"], "--as-of: must be a date such as", 2),
        (["--as-of", "2026-W01-1"], "--as-of: must be a date such as", 2),
        (["--as-of", "20261101"], "--as-of: must be a date such as", 2),
        (["--as-of", "2026-06-01T00:00:00"], "an instant with its offset", 2),
        (["--as-of", "2100-01-01"], "--as-of: must not be in the future, except with --dry-run", 2),
        (["--client", "somebody"], "Invalid value for '--client'", 2),
        (["--client", "01a20395-acdc-7687-9796-0794a9885247"], "no client 01a20395", 1),
        (["--wait-all", "--dry-run"], "a dry run leaves nothing to wait for", 2),
    ],
)
def test_what_cannot_be_billed_is_refused(
    command: Command, arguments: list[str], complaint: str, code: int
) -> None:
    answer = command("bill", *arguments)
    assert answer.code == code
    assert complaint in answer.stderr
