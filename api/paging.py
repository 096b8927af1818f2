"""Lists in pages, newest first, by keyset: a page stays right while rows are added before it."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from api.fields import FORBID_UNKNOWN
from api.shapes import Page
from billing.errors import InvalidInput

MAX_LIMIT = 200

Row = TypeVar("Row")
Report = TypeVar("Report")
Key = TypeVar("Key", UUID, date)


class Paging(BaseModel):
    """What every list takes; each adds its filters."""

    model_config = FORBID_UNKNOWN

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


def _cursor(value: object) -> str:
    return urlsafe_b64encode(str(value).encode()).decode().rstrip("=")


def _from_cursor(cursor: str, read: Callable[[str], Key]) -> Key:
    try:
        return read(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode())
    except ValueError:
        raise InvalidInput("cursor", "must be the next_cursor of a page of this list") from None
