"""A short part of ``make chaos``: a few faults of each sort, by two seeds."""

import pytest

from tests.chaos.run import run

PROCESSES = (
    "crash_at_points",
    "kill_at_random",
    "flush_redis",
    "end_database_sessions",
    "crash_at_points",
)
VENDORS = (
    "lose_charge_answers",
    "break_stripe",
    "repeat_webhooks",
    "lose_mail_replies",
    "break_sendgrid",
)


@pytest.mark.parametrize(("seed", "faults"), [(1, PROCESSES), (2, VENDORS)])
def test_whatever_dies_nothing_is_lost_and_nothing_happens_twice(
    seed: int, faults: tuple[str, ...]
) -> None:
    report = run(seed, clients=30, faults=len(faults), per_second=8.0, only=faults)

    assert report.violations == []
    assert report.jobs > 100
