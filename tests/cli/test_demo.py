import json
import os
from pathlib import Path

import pytest

from cli import demo
from cli.output import Output
from cli.stack import is_running, owner_lock
from gateways.sandbox.processes import hold
from tests.cli.conftest import Command
from tests.cli.test_up import home, is_left, run, run_for

__all__ = ["home"]

# It takes 15 seconds where nothing else runs.
DEMO_SECONDS = 180.0


def test_the_sample_month_is_billed_end_to_end_and_everything_agrees(home: Path) -> None:
    stack = home / "demo"
    real_keys = {"STRIPE_SECRET_KEY": "sk_live_never", "SENDGRID_API_KEY": "SG.never"}
    answer = run_for(DEMO_SECONDS, "demo", "--dir", stack, "--json", **real_keys)
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    assert report["ok"] is True
    assert report["files_agree"] is True
    assert report["books_agree"] is True
    assert report["audit"]["differences"] == []
    assert sum(one["created"] for one in report["imports"].values()) == 5_000
    periods = report["billed"]["periods"]
    assert periods["billed"] + periods["empty"] == 200
    assert periods["empty"] > 0
    assert periods["failed"] == 0
    assert set(report["totals"]) == {"usd", "gbp"}
    for sums in report["totals"].values():
        assert sums["files"] == sums["invoices"] == sums["revenue_booked"] > 0
    followed = report["followed_up"]
    assert followed["adds_up"] is True
    assert followed["invoiced"] == {
        currency: sums["invoices"] for currency, sums in report["totals"].items()
    }
    assert {one["outcome"] for one in followed["outcomes"]} >= {
        "applied",
        "card",
        "declined",
        "needs_action",
        "in_flight",
        "no_billing_method",
    }
    declined = {
        (one["decline_code"], one["next_try_on"] is not None)
        for one in followed["outcomes"]
        if one["outcome"] == "declined"
    }
    assert declined >= {("insufficient_funds", True), ("stolen_card", False)}
    mails = {(one["kind"], one["sent"], one["reason"]) for one in followed["mails"]}
    assert mails >= {
        ("invoice_ready", True, None),
        ("invoice_ready", False, "no_email"),
        ("invoice_ready", False, "switched_off"),
        ("payment_failed", True, None),
        ("receipt", True, None),
    }
    agreements = {one["what"]: one for one in report["agreements"]}
    assert {name for name, one in agreements.items() if one["ok"]} == set(agreements)
    by_card = agreements["paid by card"]["said"]
    assert by_card["payments"] == by_card["ledger: stripe"] == by_card["Stripe's own log"]
    assert all(total > 0 for total in by_card["payments"].values())
    assert Path(report["sample"]["document"]).read_bytes().startswith(b"%PDF")
    folder = Path(report["sample"]["mail"])
    assert report["sample"]["invoice"] in (folder / "mail.html").read_text()
    assert report["seconds"]["in all"] < DEMO_SECONDS
    assert not is_left(stack)
    assert not is_running(stack)

    again = run("demo", "--dir", stack)
    assert again.returncode == 2
    assert "is not empty" in again.stderr


def test_the_demos_started_last_are_kept_and_what_is_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [Path("var") / f"demo-{number}" for number in range(8)]
    for age, folder in enumerate(folders):
        folder.mkdir(parents=True)
        owner_lock(folder).touch()
        os.utime(owner_lock(folder), (1_000_000 - age, 1_000_000 - age))
    unowned = Path("var") / "demo-about-to-start"
    unowned.mkdir()
    running = hold(owner_lock(folders[6]))
    assert running is not None
    owner_lock(folders[7]).touch()  # `up` was started in it since.

    new = demo._new_directory(None, Output(as_json=True))

    os.close(running)
    left = set(Path("var").iterdir())
    assert left == {new, unowned, *folders} - {folders[4], folders[5]}
    assert capsys.readouterr().err == "removed the oldest demos: var/demo-4, var/demo-5\n"


def test_a_wrong_setting_stops_the_demo_before_it_makes_anything(
    command: Command, tmp_path: Path
) -> None:
    answer = command("demo", "--json", DUECOURSE_LEASE_SECONDS="abc", PORT="not used")
    assert answer.code == 2
    assert answer.document["error"] == (
        "settings from the environment: DUECOURSE_LEASE_SECONDS: must be a number"
    )
    assert list(tmp_path.iterdir()) == []
