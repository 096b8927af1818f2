"""What an account's numbers look like, where they begin, and that none is ever given again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.cycles import local_date
from billing.errors import InvalidInput, RuleViolation
from billing.number_formats import (
    MAX_NEXT_NUMBER,
    DocumentType,
    NumberReset,
    number_pattern,
    require_next_number,
    require_number_format,
    reset_for,
    series_of,
)
from models import Account
from models.number_series import NumberSeries, series_for_update
from tasks.numbering import lock_formats

NUMBER_SETTINGS = frozenset({"number_format", "credit_note_format", "number_reset", "next_number"})
"""The names of the fields that ``change_numbers`` takes."""

_FORMAT_FIELDS = {
    DocumentType.INVOICE: "number_format",
    DocumentType.CREDIT_NOTE: "credit_note_format",
}

# Of the numbers that look as if the format had given them, the highest of each series.
_HIGHEST = """
SELECT DISTINCT ON (year) year, sequence, number
  FROM (SELECT number, CASE WHEN :year > 0 THEN parts[:year]::int ELSE 0 END AS year,
               parts[:sequence]::bigint AS sequence
          FROM (SELECT number, regexp_match(number, :regex) AS parts
                  FROM {table} WHERE account_id = :account AND number IS NOT NULL) AS read
         WHERE parts IS NOT NULL) AS alike
 ORDER BY year, sequence DESC
"""
_HIGHEST_OF = {
    DocumentType.INVOICE: text(_HIGHEST.format(table="invoices")),
    DocumentType.CREDIT_NOTE: text(_HIGHEST.format(table="credit_notes")),
}


@dataclass(frozen=True, slots=True)
class _Highest:
    """The highest sequence number of a series that is read off a document, and its number."""

    sequence: int
    number: str


def change_numbers(
    session: Session, account: Account, changes: Mapping[str, Any], *, now: datetime
) -> None:
    """Change what an account's numbers look like, when they start again, and where they begin.

    A series that has given none yet is made to begin above every number that looks like its own.
    One that has goes on without a gap, so a format under which it would come to a number that
    exists is refused. So no number is given twice, and finalizing never finds its number taken.

    ``changes`` may hold ``NUMBER_SETTINGS``; ``next_number`` is the current series' of invoices.
    The caller holds the account's lock.

    Raises:
        InvalidInput: A value is wrong.
        RuleViolation: Numbers that exist could be given again (``number_format_taken``), or the
            series whose ``next_number`` is set has begun (``number_series_used``).
    """
    if not changes:
        return
    # Before anything is read: who gives a number meanwhile has given it by then.
    lock_formats(session, account.id)
    wanted = {
        name: changes.get(name, getattr(account, name))
        for name in (*_FORMAT_FIELDS.values(), "number_reset")
    }
    if wanted["number_reset"] not in list(NumberReset):
        raise InvalidInput("number_reset", f"must be one of {', '.join(NumberReset)}")
    reset = NumberReset(wanted["number_reset"])
    require_number_format(wanted["number_format"], reset)
    _require_credit_note_format(wanted["credit_note_format"])
    for document, field in _FORMAT_FIELDS.items():
        before = reset_for(getattr(account, field), NumberReset(account.number_reset))
        after = reset_for(wanted[field], reset)
        if (wanted[field], after) != (getattr(account, field), before):
            _carry_on(session, account.id, document, wanted[field], after)
    for name, value in wanted.items():
        setattr(account, name, value)
    if "next_number" in changes:
        _begin_with(session, account, changes["next_number"], now=now)
    session.flush()


def next_number(session: Session, account: Account, *, now: datetime) -> int:
    """The sequence number that the current series of invoices gives next."""
    key = (account.id, DocumentType.INVOICE, _current_year(account, now))
    series = session.get(NumberSeries, key, populate_existing=True)
    return 1 if series is None else series.next_number


def _require_credit_note_format(number_format: str) -> None:
    """Check a format of credit notes; those that do not bear the year never start again."""
    try:
        require_number_format(number_format, NumberReset.NEVER)
    except InvalidInput as error:
        raise InvalidInput("credit_note_format", error.message) from None


def _carry_on(
    session: Session,
    account_id: UUID,
    document: DocumentType,
    number_format: str,
    reset: NumberReset,
) -> None:
    """Have every series come to none of the numbers that exist."""
    series = _series(session, account_id, document)
    for year, highest in _highest(session, account_id, document, number_format, reset).items():
        known = series.get(year)
        if known is not None and highest.sequence < known.next_number:
            continue
        if (known is not None and known.is_used) or highest.sequence >= MAX_NEXT_NUMBER:
            raise _taken(number_format, highest)
        _begin(session, account_id, document, year, highest.sequence + 1)


def _begin_with(session: Session, account: Account, sequence: int, *, now: datetime) -> None:
    """Have the current series of invoices, which has given none yet, begin with ``sequence``."""
    document, year = DocumentType.INVOICE, _current_year(account, now)
    known = _series(session, account.id, document).get(year)
    require_next_number(sequence, is_used=known is not None and known.is_used)
    reset = NumberReset(account.number_reset)
    alike = _highest(session, account.id, document, account.number_format, reset).get(year)
    if alike is not None and alike.sequence >= sequence:
        raise _taken(account.number_format, alike)
    _begin(session, account.id, document, year, sequence)


def _begin(
    session: Session, account_id: UUID, document: DocumentType, year: int, sequence: int
) -> None:
    session.merge(
        NumberSeries(
            account_id=account_id,
            document=document,
            year=year,
            first_number=sequence,
            next_number=sequence,
        )
    )
    session.flush()


def _series(session: Session, account_id: UUID, document: DocumentType) -> dict[int, NumberSeries]:
    """By year: those that were begun, or told where to begin."""
    return {one.year: one for one in session.scalars(series_for_update(account_id, document))}


def _highest(
    session: Session,
    account_id: UUID,
    document: DocumentType,
    number_format: str,
    reset: NumberReset,
) -> dict[int, _Highest]:
    """By the year of their series, numbers that exist and that the format could give."""
    pattern = number_pattern(number_format)
    rows = session.execute(
        _HIGHEST_OF[document],
        {
            "account": account_id,
            "regex": f"^{pattern.regex}$",
            "sequence": pattern.sequence,
            "year": (pattern.year or 0) if reset == NumberReset.YEARLY else 0,
        },
    )
    return {row.year: _Highest(row.sequence, row.number) for row in rows}


def _taken(number_format: str, highest: _Highest) -> RuleViolation:
    return RuleViolation(
        "number_format_taken",
        f"the format {number_format} would come to {highest.number}, which is given already",
    )


def _current_year(account: Account, now: datetime) -> int:
    """The year of the series that an invoice issued today is counted in; 0 if there is one for all."""
    today: date = local_date(now, ZoneInfo(account.time_zone))
    reset = NumberReset(account.number_reset)
    return series_of(account.id, DocumentType.INVOICE, reset, today).year or 0
