"""Closing the books: what was reported of a month stays so, whatever is posted later."""

from datetime import date, timedelta

from billing.errors import InvalidInput

_DAY = timedelta(days=1)


def first_open_day(bears: date, closed_through: date | None) -> date:
    """The day for which an entry counts that ``bears`` a date.

    That date; or, where the books are closed through it, the first day on which they are open.
    """
    if closed_through is None or bears > closed_through:
        return bears
    return closed_through + _DAY


def require_open_day(field: str, day: date, closed_through: date | None) -> None:
    """Check that the books are open on a day that somebody named.

    Raises:
        InvalidInput: They are not (``books_closed``).
    """
    if first_open_day(day, closed_through) != day:
        raise InvalidInput(
            field,
            f"must be after {closed_through}, through which the books are closed",
            code="books_closed",
        )


def require_closing(
    wanted: date | None, closed_through: date | None, *, today: date
) -> date | None:
    """The day through which the books are closed from now on.

    Only ever later, and only through a day that is over: today's money is still being booked.

    Raises:
        InvalidInput: It is not so.
    """
    if wanted == closed_through:
        return wanted
    if wanted is None or (closed_through is not None and wanted < closed_through):
        raise InvalidInput(
            "books_closed_through",
            f"must not be before {closed_through}: books that were closed stay closed",
            code="books_closed",
        )
    if wanted >= today:
        raise InvalidInput("books_closed_through", f"must be before today, {today}")
    return wanted
