"""Billing cycles: which local days begin a period, and at what instant a local day begins."""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from billing.errors import InvalidInput

MAX_PERIODS_PER_RUN = 60
"""Periods of one client that one billing run takes; the rest follow in the next."""

# In the time zone folder of many systems, but no place on earth: the machine's own setting,
# and the database's placeholder for a machine that has none.
_NOT_ZONES = frozenset({"localtime", "Factory"})


class BillingCycle(StrEnum):
    """When a client is billed without being asked."""

    MANUAL = "manual"
    MONTHLY = "monthly"


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


def boundary_after(day: date, anchor_day: int) -> date:
    """The first monthly boundary strictly after ``day``.

    Computed from the anchor, never by adding a month to the last boundary: an anchor of 31
    falls on 28 February and comes back on 31 March.

    Raises:
        InvalidInput: ``anchor_day`` is not 1 to 31.
    """
    if not 1 <= anchor_day <= 31:
        raise InvalidInput("anchor_day", "must be a day of the month, 1 to 31")
    boundary = _anchor_in(day.year, day.month, anchor_day)
    if boundary > day:
        return boundary
    return _anchor_in(day.year + day.month // 12, day.month % 12 + 1, anchor_day)


def period_from(start: date, anchor_day: int) -> Period:
    """The period that begins on ``start``, short where that is not a boundary.

    Raises:
        InvalidInput: ``anchor_day`` is not 1 to 31.
    """
    return Period(start, boundary_after(start, anchor_day))


def periods_from(start: date, anchor_day: int) -> Iterator[Period]:
    """The endless chain of periods from ``start``, each beginning where the last one ended.

    Raises:
        InvalidInput: ``anchor_day`` is not 1 to 31.
    """
    while True:
        period = period_from(start, anchor_day)
        yield period
        start = period.end


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


def _anchor_in(year: int, month: int, anchor_day: int) -> date:
    last_day = calendar.monthrange(year, month)[1]
    return date(year, month, min(anchor_day, last_day))
