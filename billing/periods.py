"""The periods of one client: which are written down, when they end, and why one is not billed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

from billing.cycles import Cadence, Period, boundary_instant

MAX_WAITING_WRITTEN = 24
"""Waiting periods written down at once. Two years of months back are seen whole; a start in the
last century does not write hundreds of rows for every client."""


class PeriodState(StrEnum):
    """What became of a period."""

    OPEN = "open"
    DRAFTED = "drafted"
    BILLED = "billed"
    EMPTY = "empty"
    HELD = "held"
    SKIPPED = "skipped"
    FAILED = "failed"


class PeriodReason(StrEnum):
    """Why a period waits, or was not billed."""

    BEFORE_ACTIVATION = "before_activation"
    SWITCHED_TO_MANUAL = "switched_to_manual"
    DRAFT_DELETED = "draft_deleted"
    CHARGES_ON_MANUAL_DRAFT = "charges_on_manual_draft"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class PlannedPeriod:
    """A period to write down, with its instants in UTC and the reason it waits, if it does.

    ``starts_at`` and ``ends_at`` may be equal: a changed zone can leave a short period no time,
    and some zones skipped a whole day.
    """

    period: Period
    starts_at: datetime
    ends_at: datetime
    reason: PeriodReason | None


# Clients that are imported together share their start, and with it the plan.
@lru_cache(maxsize=256)
def first_periods(
    start: date, *, cadence: Cadence, zone: ZoneInfo, activated_at: datetime
) -> tuple[PlannedPeriod, ...]:
    """The periods to write down when a client goes on the cycle, oldest first.

    All that ended at or before ``activated_at``, at most ``MAX_WAITING_WRITTEN`` of them, wait
    for an explicit run; then the first that ends later, which the scheduler bills. When more
    have ended there is a hole before that last one: ``following_period`` fills it as the
    earlier ones are billed.
    """
    waiting: list[PlannedPeriod] = []
    first = cadence.period_from(start)
    planned = _plan(first, boundary_instant(start, zone), zone, activated_at)
    while planned.reason is not None:
        if len(waiting) < MAX_WAITING_WRITTEN:
            waiting.append(planned)
        planned = following_period(
            planned.period,
            cadence=cadence,
            zone=zone,
            activated_at=activated_at,
            ended_at=planned.ends_at,
        )
    return (*waiting, planned)


def following_period(
    ended: Period,
    *,
    cadence: Cadence,
    zone: ZoneInfo,
    activated_at: datetime,
    ended_at: datetime | None = None,
) -> PlannedPeriod:
    """The period after ``ended``; it waits if it ended at or before ``activated_at``.

    ``ended_at`` is the instant at which ``ended`` was recorded to end, and this one starts
    there. Without it, this one starts at its local boundary, which is the same instant unless
    the client's zone changed after ``ended`` was over.
    """
    starts_at = boundary_instant(ended.end, zone) if ended_at is None else ended_at
    return _plan(cadence.period_from(ended.end), starts_at, zone, activated_at)


def periods_between(
    ended: Period,
    until: date,
    *,
    cadence: Cadence,
    zone: ZoneInfo,
    activated_at: datetime,
    ended_at: datetime | None = None,
) -> Iterator[PlannedPeriod]:
    """The periods after ``ended`` that start before ``until``, each where the last one ended.

    ``ended_at`` is what it is to ``following_period``. Where ``until`` is the start of a period
    of the same chain they fill the hole before it; ``date.max`` asks for the chain without end.
    """
    while ended.end < until:
        planned = following_period(
            ended,
            cadence=cadence,
            zone=zone,
            activated_at=activated_at,
            ended_at=ended_at,
        )
        yield planned
        ended, ended_at = planned.period, planned.ends_at


def moved_to_zone(period: Period, starts_at: datetime, zone: ZoneInfo) -> datetime:
    """When the period ends after its client's zone became ``zone``.

    Its dates and its start stay, so that nothing is billed twice; and it never ends before it
    starts.
    """
    return max(starts_at, boundary_instant(period.end, zone))


def _plan(
    period: Period, starts_at: datetime, zone: ZoneInfo, activated_at: datetime
) -> PlannedPeriod:
    ends_at = moved_to_zone(period, starts_at, zone)
    waits = ends_at <= activated_at
    return PlannedPeriod(
        period, starts_at, ends_at, PeriodReason.BEFORE_ACTIVATION if waits else None
    )
