"""When a declined card is tried again."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from billing.cycles import local_date
from billing.errors import InvalidInput

DEFAULT_RETRY_DAYS = (3, 5, 7, 7)
"""Days from each automatic try to the next."""

RETRY_HOUR = 10
"""The hour of the client's day at which a card is tried again."""

MAX_TRIES_IN_30_DAYS = 15
"""Most tries of one payment on one card in 30 days, whoever makes them.

Visa's rule as Stripe enforces it ("Payment blocked due to excessive retries",
https://support.stripe.com/questions/payment-blocked-due-to-excessive-retries).
"""


class DunningFinal(StrEnum):
    """What becomes of an invoice whose scheduled tries are used up."""

    # It stays open, and is collected by hand.
    OPEN = "open"
    # It is written off.
    UNCOLLECTIBLE = "uncollectible"


def next_try(
    failed_at: datetime, failures: int, zone: ZoneInfo, days: Sequence[int] = DEFAULT_RETRY_DAYS
) -> datetime | None:
    """When to charge again, in UTC, after the ``failures``-th automatic failure (from 1).

    The days are counted on the client's calendar from the day of the try that failed, so the next
    one is always later. None when the schedule is used up.

    Raises:
        InvalidInput: One of the ``days`` is below 1.
        ValueError: ``failures`` is below 1, or ``failed_at`` has no time zone.
    """
    if failures < 1:
        raise ValueError("failures are counted from 1")
    if any(wait < 1 for wait in days):
        raise InvalidInput("retry_days", "must each be at least 1 day after the try before")
    if failures > len(days):
        return None
    return _retry_instant(local_date(failed_at, zone) + timedelta(days=days[failures - 1]), zone)


def tries_from(
    next_at: datetime, failures: int, zone: ZoneInfo, days: Sequence[int] = DEFAULT_RETRY_DAYS
) -> list[datetime]:
    """When a card is charged by itself from ``next_at`` on, if each of these tries is declined.

    ``failures`` are the automatic tries that were declined so far. The next one comes first.
    """
    tries = [next_at]
    while (at := next_try(tries[-1], failures + len(tries), zone, days)) is not None:
        tries.append(at)
    return tries


def _retry_instant(day: date, zone: ZoneInfo) -> datetime:
    """The retry hour of that day: the first of two, or where it is skipped, the gap's end."""
    wanted = datetime.combine(day, time(RETRY_HOUR), tzinfo=zone)
    instant = wanted.astimezone(UTC)
    if _wall_clock(instant, zone) == wanted.replace(tzinfo=None):
        return instant
    # Read with the offset from after the gap it lies before the change, read with the one from
    # before the gap it lies at the change or later.
    before = wanted.replace(fold=1).astimezone(UTC)
    seconds = range(int((instant - before).total_seconds()))
    return before + timedelta(
        seconds=bisect_left(
            seconds,
            wanted.replace(tzinfo=None),
            key=lambda second: _wall_clock(before + timedelta(seconds=second), zone),
        )
    )


def _wall_clock(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)
