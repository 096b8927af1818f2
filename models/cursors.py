"""Cursors of PostgreSQL connections, as SQLAlchemy uses them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import psycopg
from typing_extensions import override


class UndescribedCursor(psycopg.Cursor[Any]):
    """Describes an answer's columns once somebody looks at them.

    SQLAlchemy asks each answer for its description and only wants to know whether there is one: it
    remembers the columns of every statement that it builds. Made in full every time, an object and
    three calls for each of 250 columns, that was a twentieth of what a charge cost a worker.
    """

    @property
    @override
    def description(self) -> Sequence[psycopg.Column] | None:  # type: ignore[override]  # PEP 249 asks for a sequence.
        """The answer's columns; ``None`` if it is none of rows."""
        if self.pgresult is None or not self.pgresult.nfields:
            return super().description
        return _Columns(lambda: super(UndescribedCursor, self).description or [])


class _Columns(Sequence[psycopg.Column]):
    """Columns that are described when they are looked at, while their answer is the cursor's."""

    def __init__(self, describe: Callable[[], list[psycopg.Column]]) -> None:
        self._describe = describe

    @overload
    def __getitem__(self, index: int) -> psycopg.Column: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[psycopg.Column]: ...
    @override
    def __getitem__(self, index: int | slice) -> psycopg.Column | Sequence[psycopg.Column]:
        return self._describe()[index]

    @override
    def __iter__(self) -> Iterator[psycopg.Column]:
        return iter(self._describe())

    @override
    def __len__(self) -> int:
        return len(self._describe())
