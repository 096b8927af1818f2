"""Billing cycles: which local days begin a period, and at what instant a local day begins."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from billing.errors import InvalidInput

MAX_PERIODS_PER_RUN = 60
"""Periods of one client that one billing run takes; the rest follow in the next."""

SEMIMONTHLY_DAYS = (1, 15)
"""The days of the month that begin a semimonthly period."""

# In the time zone folder of many systems, but no place on earth: the machine's own setting,
# and the database's placeholder for a machine that has none.
_NOT_ZONES = frozenset({"localtime", "Factory"})


class BillingCycle(StrEnum):
    """When a client is billed without being asked."""

    MANUAL = "manual"
    MONTHLY = "monthly"
    SEMIMONTHLY = "semimonthly"
    WEEKLY = "weekly"


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open span of local dates: ``start`` is billed, ``end`` belongs to the next."""

    start: date
    end: date

    def __post_init__(self) -> None:
        """Refuse a span without a day.

        Raises:
            ValueError: ``end`` is not after ``start``.
        """
        if self.end <= self.start:
            raise ValueError(f"a period from {self.start} cannot end on {self.end}")


@dataclass(frozen=True, slots=True)
class Cadence:
    """A cycle that bills by itself, and the day it is counted from.

    ``anchor_day`` is a day of the month on a monthly cycle, and an ISO weekday (1 is Monday) on a
    weekly one. A semimonthly cycle has its own days, the 1st and the 15th, whatever the anchor.
    """

    cycle: BillingCycle
    anchor_day: int = 1

    def __post_init__(self) -> None:
        """Refuse what has no boundaries.

        Raises:
            InvalidInput: The cycle has no such ``anchor_day``.
            ValueError: The cycle is manual.
        """
        match self.cycle:
            case BillingCycle.MANUAL:
                raise ValueError("a manual cycle has no boundaries")
            case BillingCycle.WEEKLY if not 1 <= self.anchor_day <= 7:
                raise InvalidInput(
                    "anchor_day", "must be 1 (Monday) to 7 (Sunday) on a weekly cycle"
                )
            case _ if not 1 <= self.anchor_day <= 31:
                raise InvalidInput("anchor_day", "must be a day of the month, 1 to 31")

    def boundary_after(self, day: date) -> date:
        """The first boundary strictly after ``day``.

        Computed from the anchor, never by adding a month to the last boundary: an anchor of 31
        falls on 28 February and comes back on 31 March.
        """
        match self.cycle:
            case BillingCycle.WEEKLY:
                return day + timedelta(days=(self.anchor_day - day.isoweekday() - 1) % 7 + 1)
            case BillingCycle.SEMIMONTHLY:
                days: tuple[int, ...] = SEMIMONTHLY_DAYS
            case _:
                days = (self.anchor_day,)
        this_month = (_day_in(day.year, day.month, one) for one in days)
        following = next((boundary for boundary in this_month if boundary > day), None)
        return following or _day_in(day.year + day.month // 12, day.month % 12 + 1, days[0])

    def period_from(self, start: date) -> Period:
        """The period that begins on ``start``, short where that is not a boundary."""
        return Period(start, self.boundary_after(start))


def boundary_instant(day: date, zone: ZoneInfo) -> datetime:
    """The first instant, in UTC, at which the zone's calendar shows ``day`` or later.

    That is local midnight; the first of two where the clock is set back over it; the end of the
    gap where it is set forward over it; and for a day that a zone never had (Apia's 30 December
    2011), the start of the day that came instead.
    """
    midnight = datetime.combine(day, time.min, tzinfo=zone)
    instant = midnight.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return instant
    # Midnight was skipped. Read with the offset that holds after the gap it lies before the
    # change, read with the one from before the gap it lies at the change or later.
    before = midnight.replace(fold=1).astimezone(UTC)
    low, high = 0, int((instant - before).total_seconds())
    while low < high:
        middle = (low + high) // 2
        if local_date(before + timedelta(seconds=middle), zone) >= day:
            high = middle
        else:
            low = middle + 1
    return before + timedelta(seconds=high)


def local_date(instant: datetime, zone: ZoneInfo) -> date:
    """The date on the zone's calendar at ``instant``.

    Raises:
        ValueError: The instant has no time zone, so it names no instant.
    """
    if instant.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    return instant.astimezone(zone).date()


def time_zone(name: str, field: str = "time_zone") -> ZoneInfo:
    """The zone of an IANA name, spelled exactly.

    Raises:
        InvalidInput: The name is not in the IANA time zone database.
    """
    if name not in _zone_names():
        raise InvalidInput(field, "must be an IANA time zone name, such as America/Chicago")
    return ZoneInfo(name)


@cache  # Listing them reads a file for every zone.
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) - _NOT_ZONES


def _day_in(year: int, month: int, day: int) -> date:
    """That day of the month, or its last where it is shorter."""
    return date(year, month, min(day, calendar.monthrange(year, month)[1]))
