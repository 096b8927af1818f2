"""What a document's number looks like, and which series it is counted in."""

import re
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from uuid import UUID

from billing.errors import InvalidInput, RuleViolation

DEFAULT_FORMAT = "INV-{seq:06}"

CREDIT_NOTE_FORMAT = "CN-{seq:06}"

MAX_SEQUENCE = 10**12 - 1
"""Largest sequence number: twelve digits, also where another system put a date in front."""

MAX_NEXT_NUMBER = 10**11 - 1
"""Largest one that a series may begin with: one that began near its end would soon be stuck."""

MAX_NUMBER_LENGTH = 40
"""Characters that a number may come to with the longest sequence number: one line of a table."""

_SEQUENCE = re.compile(r"\{seq(?::0([1-9]|1[0-2]))?\}")
_FORMAT = re.compile(rf"(?:{_SEQUENCE.pattern}|\{{year\}}|\{{month\}}|[A-Za-z0-9/._-])*")


class DocumentType(StrEnum):
    """A kind of numbered document; each has its own gapless series per account."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"


class NumberReset(StrEnum):
    """When the numbers of a document type start again from 1."""

    NEVER = "never"
    # With the year of issue.
    YEARLY = "yearly"


@dataclass(frozen=True, slots=True)
class NumberPattern:
    """Which numbers a format could give: ``regex`` matches the whole of one, and nothing else.

    It means the same to Python and to PostgreSQL. ``sequence`` and ``year`` say which of its
    groups, counted from 1, holds them; ``year`` is None where the format does not bear it.
    """

    regex: str
    sequence: int
    year: int | None


@dataclass(frozen=True, slots=True)
class Series:
    """What is counted without a gap. ``year`` is None where numbers never start again."""

    account_id: UUID
    document: DocumentType
    year: int | None


def require_number_format(text: str, reset: NumberReset) -> str:
    """``text``, if it is a format under which a series gives no number twice.

    It holds ASCII letters, digits, ``-``, ``_``, ``/`` and ``.``, and these tokens:

    - ``{seq}``, the sequence number, exactly once; ``{seq:06}`` fills it with zeros to six digits
      (1 to 12), and a longer one is written out;
    - ``{year}`` and ``{month}``, four and two digits of the date of issue. The year has to be
      there where ``reset`` is yearly. All but the sequence number have a fixed width, so two
      different ones never look alike.

    Check it again when the reset changes.

    Raises:
        InvalidInput: It is not so, or its numbers could be longer than ``MAX_NUMBER_LENGTH``. The
            field is ``number_format``.
    """
    if not _FORMAT.fullmatch(text):
        raise InvalidInput(
            "number_format",
            "must consist of the tokens {seq} or {seq:06} (1 to 12 digits), {year} and {month}, "
            "of ASCII letters and digits, and of - _ / .",
        )
    if len(_SEQUENCE.findall(text)) != 1:
        raise InvalidInput("number_format", "must contain {seq}, or {seq:06}, exactly once")
    if reset == NumberReset.YEARLY and "{year}" not in text:
        raise InvalidInput(
            "number_format",
            "must contain {year} where numbers start again every year: they would repeat",
        )
    if len(render_number(text, MAX_SEQUENCE, date.max)) > MAX_NUMBER_LENGTH:
        raise InvalidInput(
            "number_format",
            f"must give numbers of at most {MAX_NUMBER_LENGTH} characters, "
            f"also for {MAX_SEQUENCE:,}",
        )
    return text


def render_number(number_format: str, sequence: int, issued_on: date) -> str:
    """The number of the ``sequence``-th document of its series, issued on that date.

    ``number_format`` is one that ``require_number_format`` has let pass.

    Raises:
        ValueError: ``sequence`` is not 1 to ``MAX_SEQUENCE``.
    """
    if not 1 <= sequence <= MAX_SEQUENCE:
        raise ValueError(f"a series of documents runs from 1 to {MAX_SEQUENCE:,}")
    return number_format.format(
        seq=sequence, year=f"{issued_on.year:04}", month=f"{issued_on.month:02}"
    )


def number_pattern(number_format: str) -> NumberPattern:
    """What every number of ``number_format`` looks like, whatever its date.

    Only the sequence number has no fixed width, so each number is read in one way.
    ``number_format`` is one that ``require_number_format`` has let pass.
    """
    regex, groups, sequence, year = "", 0, 0, None
    for part in re.split(r"(\{[^}]*\})", number_format):
        if token := _SEQUENCE.fullmatch(part):
            groups += 1
            sequence = groups
            regex += _digits(int(token[1] or 1))
        elif part == "{year}" and year is None:
            groups += 1
            year = groups
            regex += "((?!0000)[0-9]{4})"
        elif part == "{year}":
            regex += rf"(?:\{year})"
        elif part == "{month}":
            regex += "(?:0[1-9]|1[0-2])"
        else:
            regex += part.replace(".", r"\.")
    return NumberPattern(regex, sequence, year)


def _digits(width: int) -> str:
    """A sequence number, filled with zeros to ``width``, or longer; none is above the largest."""
    exact = f"[0-9]{{{width}}}"
    longest = len(str(MAX_SEQUENCE))
    return f"({exact}|[1-9][0-9]{{{width},{longest - 1}}})" if width < longest else f"({exact})"


def reset_for(number_format: str, reset: NumberReset) -> NumberReset:
    """When numbers of this format start again, where their account wishes for ``reset``.

    Without the year in them they would repeat: they go on.
    """
    return reset if "{year}" in number_format else NumberReset.NEVER


def series_of(
    account_id: UUID, document: DocumentType, reset: NumberReset, issued_on: date
) -> Series:
    """The series that a document issued on that date is counted in.

    One issued in December and finalized in January belongs to the old year, as its number says.
    """
    return Series(account_id, document, issued_on.year if reset == NumberReset.YEARLY else None)


def require_next_number(sequence: int, *, is_used: bool) -> int:
    """``sequence``, if a series may begin with it.

    ``is_used`` says whether the series has given a number yet: from then on it has no gaps.

    Raises:
        InvalidInput: It is not 1 to ``MAX_NEXT_NUMBER``. The field is ``next_number``.
        RuleViolation: The series has begun (``number_series_used``).
    """
    if not 1 <= sequence <= MAX_NEXT_NUMBER:
        raise InvalidInput("next_number", f"must be 1 to {MAX_NEXT_NUMBER:,}")
    if is_used:
        raise RuleViolation(
            "number_series_used", "the series has begun, and goes on from its last number"
        )
    return sequence
