"""Closing the books: from then on nothing is posted that counts for a day in them."""

from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.closing import require_closing, require_open_day
from billing.cycles import local_date
from models import Account
from tasks.posting import books_closed_through


def close_books(session: Session, account: Account, through: date | None, *, now: datetime) -> None:
    """Close an account's books through a day that is over, which is later than the last one.

    It waits for all that is being posted. Call it last: whoever posts next waits from here to the
    commit, with the locks that it holds.

    Raises:
        InvalidInput: The day is not over, or before the last one (``books_closed``).
    """
    session.flush()
    session.execute(select(Account.id).where(Account.id == account.id).with_for_update())
    account.books_closed_through = require_closing(
        through,
        account.books_closed_through,
        today=local_date(now, ZoneInfo(account.time_zone)),
    )


def require_open_books(session: Session, account_id: UUID, field: str, day: date | None) -> None:
    """Check that the books are open, until the transaction ends, on a day that somebody named.

    Raises:
        InvalidInput: They are not (``books_closed``).
    """
    if day is not None:
        closed = books_closed_through(session, [account_id])
        require_open_day(field, day, closed[account_id])
