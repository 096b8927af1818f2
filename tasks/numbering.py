"""Giving documents their numbers: gapless, in the account's format."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from billing.number_formats import (
    DocumentType,
    NumberReset,
    render_number,
    reset_for,
    series_of,
)
from models import Account
from models.number_series import take_numbers

# Whoever gives numbers shares it; whoever changes what they look like has it alone. The rows of
# the series cannot do that: a series that begins has none yet.
_KEEP_FORMATS = text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:formats, 0))")
_CHANGE_FORMATS = text("SELECT pg_advisory_xact_lock(hashtextextended(:formats, 0))")


@dataclass(frozen=True, slots=True)
class Number:
    """A document's number, and its place in its series; ``series_year`` is 0 where none starts again."""

    text: str
    sequence: int
    series_year: int


def number_documents(
    session: Session, account: Account, document: DocumentType, issued_on: Sequence[date]
) -> list[Number]:
    """The next numbers for documents of these dates of issue, in their order.

    The series stay locked from here to the commit: call it as late as the work allows.
    """
    session.execute(_KEEP_FORMATS, {"formats": _formats_of(account.id)})
    # Read again: the account may have been read before another format was chosen.
    chosen = session.execute(
        select(Account.number_format, Account.credit_note_format, Account.number_reset).where(
            Account.id == account.id
        )
    ).one()
    number_format = (
        chosen.number_format if document == DocumentType.INVOICE else chosen.credit_note_format
    )
    reset = reset_for(number_format, NumberReset(chosen.number_reset))
    years = [series_of(account.id, document, reset, day).year or 0 for day in issued_on]
    # By year, so that two who number documents of the same two years never wait in a ring.
    following = {
        year: take_numbers(session, account.id, document, year, count)
        for year, count in sorted(Counter(years).items())
    }
    numbers = []
    for day, year in zip(issued_on, years, strict=True):
        sequence = following[year]
        following[year] += 1
        numbers.append(Number(render_number(number_format, sequence, day), sequence, year))
    return numbers


def lock_formats(session: Session, account_id: UUID) -> None:
    """Wait for all who give numbers of this account, and keep others waiting until the commit."""
    session.execute(_CHANGE_FORMATS, {"formats": _formats_of(account_id)})


def _formats_of(account_id: UUID) -> str:
    return f"number formats of {account_id}"
