import heapq
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest

from billing.turns import (
    BULK_PATIENCE,
    PERSONS_PATIENCE,
    SHARE_OF_RATE,
    next_turn,
)

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
RATE = 25.0
EVERY = timedelta(seconds=1 / (RATE * SHARE_OF_RATE))


class StripeAccount:
    """A Stripe account, and those who want to ask it."""

    def __init__(self) -> None:
        self.free_at = NOON
        self.taken_until: dict[str, datetime] = {}
        self.sent: list[tuple[datetime, str]] = []
        self.runs = 0

    def ask(
        self,
        now: datetime,
        lane: str,
        promised: datetime | None = None,
        patience: timedelta = BULK_PATIENCE,
    ) -> datetime | None:
        """Asked, or when to come back."""
        self.runs += 1
        others = [name for name, until in self.taken_until.items() if until > now and name != lane]
        turn = next_turn(
            now,
            RATE,
            free_at=self.free_at,
            taken_until=self.taken_until.get(lane, now),
            promised=promised,
            lanes=1 + len(others),
            patience=patience,
        )
        self.free_at, self.taken_until[lane] = turn.free_at, turn.taken_until
        if turn.is_now:
            assert now <= turn.at <= now + patience
            self.sent.append((turn.at, lane))
            return None
        return turn.at

    def run(self, jobs: list[tuple[datetime, str]], *, late: timedelta = timedelta()) -> None:
        """All of them, each as late as a busy dispatcher would be."""
        random = Random(7)  # noqa: S311 - it spreads what comes late
        waiting: list[tuple[datetime, int, str, datetime | None]] = [
            (at, number, lane, None) for number, (at, lane) in enumerate(jobs)
        ]
        heapq.heapify(waiting)
        while waiting:
            at, number, lane, promised = heapq.heappop(waiting)
            again = self.ask(at, lane, promised)
            if again is not None:
                heapq.heappush(waiting, (again + random.random() * late, number, lane, again))

    def most_in_a_second(self) -> int:
        times = sorted(at for at, _ in self.sent)
        return max(
            sum(at <= other < at + timedelta(seconds=1) for other in times[index : index + 100])
            for index, at in enumerate(times)
        )


@pytest.mark.parametrize("late", [timedelta(), timedelta(milliseconds=200)])
def test_a_backlog_comes_back_one_by_one_and_once(late: timedelta) -> None:
    stripe = StripeAccount()

    stripe.run([(NOON, "ada")] * 10_000, late=late)

    assert len(stripe.sent) == 10_000
    assert stripe.runs <= 20_500
    assert stripe.most_in_a_second() <= RATE
    lasted = max(at for at, _ in stripe.sent) - NOON
    assert lasted <= 10_050 * EVERY


def test_one_accounts_backlog_keeps_no_other_waiting() -> None:
    stripe = StripeAccount()
    small = [(NOON + timedelta(seconds=5), "bob")] * 100

    stripe.run([(NOON, "ada")] * 2_000 + small, late=timedelta(milliseconds=100))

    times = {lane: [at for at, of in stripe.sent if of == lane] for lane in ("ada", "bob")}
    assert {lane: len(sent) for lane, sent in times.items()} == {"ada": 2_000, "bob": 100}
    # With half of the rate they are through in eight seconds.
    assert max(times["bob"]) - small[0][0] <= timedelta(seconds=20)
    assert stripe.most_in_a_second() <= RATE


def test_whoever_comes_back_after_a_standstill_is_spread_again() -> None:
    stripe = StripeAccount()
    promised = [stripe.ask(NOON, "ada") for _ in range(500)]
    later = NOON + timedelta(hours=1)

    stripe.run([(later, "ada")] * 0)
    again = [stripe.ask(later, "ada", at) for at in promised if at is not None]

    waiting = sorted(at for at in again if at is not None)
    assert len(waiting) >= 480
    assert all(b - a >= EVERY for a, b in pairwise(waiting))


def test_a_persons_click_goes_before_a_backlog() -> None:
    stripe = StripeAccount()
    for _ in range(1_000):
        stripe.ask(NOON, "ada")

    assert stripe.ask(NOON, "ada, people", patience=PERSONS_PATIENCE) is None
