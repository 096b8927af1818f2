import json
from pathlib import Path

from cli.stack import is_running
from tests.cli.test_up import home, is_left, run

__all__ = ["home"]


def test_the_sample_month_is_billed_end_to_end_and_everything_agrees(home: Path) -> None:
    stack = home / "demo"
    answer = run("demo", "--dir", stack, "--json")
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
    assert report["seconds"]["in all"] < 60
    assert not is_left(stack)
    assert not is_running(stack)

    again = run("demo", "--dir", stack)
    assert again.returncode == 2
    assert "is not empty" in again.stderr
