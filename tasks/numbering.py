"""Giving documents their numbers: gapless, in the account's format."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy.orm import Session

from billing.number_formats import DocumentType, NumberReset, render_number, series_of
from models import Account
from models.number_series import take_numbers


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
    number_format = (
        account.number_format if document == DocumentType.INVOICE else account.credit_note_format
    )
    reset = NumberReset(account.number_reset)
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
