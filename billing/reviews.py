"""The review of a billing period's draft: how long it stays open before it is finalized."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from billing.errors import InvalidInput

MAX_REVIEW_HOURS = 90 * 24
"""Longest window: past a quarter, nobody is reviewing."""

AT_ONCE = 0
"""The window of those whose drafts nobody reviews."""


@dataclass(frozen=True, slots=True)
class WaitingDraft:
    """A billing period's draft; ``review_ends_at`` is None where a person finalizes it."""

    invoice_id: UUID
    boundary: date
    review_ends_at: datetime | None


def require_review_hours(hours: object) -> None:
    """Check that ``hours`` can be a window.

    Raises:
        InvalidInput: It is not a whole number of hours, 0 to ``MAX_REVIEW_HOURS``.
    """
    if type(hours) is not int or not 0 <= hours <= MAX_REVIEW_HOURS:
        raise InvalidInput("review_hours", f"must be 0 to {MAX_REVIEW_HOURS} hours")


def review_hours_for(*, account: int | None, client: int | None, by_person: bool) -> int | None:
    """How long a client's drafts are reviewed, in hours; None where a person finalizes them.

    Args:
        account: The account's hours; None where a person finalizes.
        client: The client's own; None where it has none.
        by_person: Whether a person finalizes this client's, whatever the account says.
    """
    if by_person:
        return None
    return account if client is None else client


def review_end(drafted_at: datetime, hours: int | None) -> datetime | None:
    """When a draft is finalized by itself: the window runs from the moment it is made."""
    return None if hours is None else drafted_at + timedelta(hours=hours)


def ripe(drafts: Iterable[WaitingDraft], now: datetime) -> Sequence[WaitingDraft]:
    """Which of one client's drafts are finalized by themselves now, oldest boundary first.

    Those whose window is over; but none before an older one, so that numbers follow dates: it
    waits as long as that one does, be it for a person. Drafts of one boundary do not wait for
    each other.
    """
    oldest_first = sorted(drafts, key=lambda draft: (draft.boundary, draft.invoice_id))
    first_not_over = next(
        (draft.boundary for draft in oldest_first if not _is_over(draft, now)), date.max
    )
    return [
        draft for draft in oldest_first if draft.boundary <= first_not_over and _is_over(draft, now)
    ]


def _is_over(draft: WaitingDraft, now: datetime) -> bool:
    return draft.review_ends_at is not None and draft.review_ends_at <= now
