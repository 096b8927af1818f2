"""Lists in pages, newest first, by keyset: a page stays right while rows are added before it."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from api.shapes import Page
from billing.errors import InvalidInput

MAX_LIMIT = 200
NAME = "^[a-z][a-z0-9_-]*$"
"""The names of queues and schedules."""


class Named(Protocol):
    """A row that its list is ordered by the name of."""

    @property
    def name(self) -> str:
        """Unique in the list."""


Row = TypeVar("Row")
NamedRow = TypeVar("NamedRow", bound=Named)
Report = TypeVar("Report")
Key = TypeVar("Key", UUID, date)
Parsed = TypeVar("Parsed")


class Paging(BaseModel):
    """What every list takes; each adds its filters."""

    limit: int = Field(default=50, ge=1, le=MAX_LIMIT, description="Objects on a page.")
    cursor: str | None = Field(
        default=None, description="The `next_cursor` of the page before; none for the first."
    )


@dataclass(frozen=True, slots=True)
class Slice(Generic[Row]):
    """The rows of one page, and the cursor of the next."""

    rows: Sequence[Row]
    next_cursor: str | None

    def page(self, report: Callable[[Row], Report]) -> Page[Report]:
        """The page that shows each row as ``report`` does."""
        return Page(data=[report(row) for row in self.rows], next_cursor=self.next_cursor)


def newest_first(
    session: Session,
    rows: Select[Row],
    key: InstrumentedAttribute[Key],
    paging: Paging,
    *,
    read: Callable[[str], Key],
) -> Slice[Row]:
    """The page that ``paging`` asks for, by ``key`` descending.

    Raises:
        InvalidInput: The cursor is not of this list.
    """
    if paging.cursor is not None:
        rows = rows.where(key < _from_cursor(paging.cursor, read))
    # One more than asked for tells whether there is a next page.
    found = session.scalars(rows.order_by(key.desc()).limit(paging.limit + 1)).all()
    page = found[: paging.limit]
    more = len(found) > paging.limit
    return Slice(page, _cursor(getattr(page[-1], key.key)) if more else None)


def by_name(rows: Iterable[NamedRow], paging: Paging) -> Slice[NamedRow]:
    """The page that ``paging`` asks for of a short list that is at hand as a whole.

    Raises:
        InvalidInput: The cursor is not of this list.
    """
    after = "" if paging.cursor is None else _from_cursor(paging.cursor, _name)
    left = sorted((row for row in rows if row.name > after), key=lambda row: row.name)
    page = left[: paging.limit]
    more = len(left) > paging.limit
    return Slice(page, _cursor(page[-1].name) if more else None)


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ValueError(text)
    return text


def _cursor(value: object) -> str:
    return urlsafe_b64encode(str(value).encode()).decode().rstrip("=")


def _from_cursor(cursor: str, read: Callable[[str], Parsed]) -> Parsed:
    try:
        return read(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode())
    except ValueError:
        raise InvalidInput("cursor", "must be the next_cursor of a page of this list") from None
