"""Days and instants as people and programs write them: one form each, nothing guessed."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time

from billing.errors import InvalidInput

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def iso_date(text: str, field: str) -> date:
    """A day written ``2026-01-31``.

    Raises:
        InvalidInput: It is written otherwise, or the calendar has no such day.
    """
    # fromisoformat alone would also take 20260131 and 2026-W05-6.
    if not _DATE.fullmatch(text):
        raise InvalidInput(field, "must be a date such as 2026-01-31")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(field, f"there is no day {text}") from error


def date_or_instant(text: str, field: str) -> date | datetime:
    """A day as in ``iso_date``, or an instant as in RFC 3339, with its offset.

    Raises:
        InvalidInput: It is neither, or not from ``EARLIEST`` to before ``LATEST``.
    """
    if not _DATE.fullmatch(text):
        return instant(text, field)
    day = iso_date(text, field)
    _within(datetime.combine(day, time(), UTC), field)
    return day


def instant(text: str, field: str) -> datetime:
    """An instant as in RFC 3339, with its offset.

    Raises:
        InvalidInput: It is written otherwise, or not from ``EARLIEST`` to before ``LATEST``.
    """
    return _within(_parsed(text, field), field)


def _within(parsed: datetime, field: str) -> datetime:
    if not EARLIEST <= parsed < LATEST:
        raise InvalidInput(field, f"must be from {EARLIEST.date()} to before {LATEST.date()}")
    return parsed


def _parsed(text: str, field: str) -> datetime:
    try:
        if _INSTANT.fullmatch(text):
            return datetime.fromisoformat(text.upper())
    except ValueError:
        pass
    raise InvalidInput(
        field,
        "must be a date such as 2026-06-01, or an instant with its offset, "
        "such as 2026-06-01T00:00:00Z",
    )
