"""Who may ask Stripe when: evenly, at a rate, and nobody for nothing."""

from dataclasses import dataclass
from datetime import datetime, timedelta

SHARE_OF_RATE = 0.95
"""What is sent evenly does not arrive evenly: a little less than the rate never comes to more."""

BULK_PATIENCE = timedelta(milliseconds=250)
PERSONS_PATIENCE = timedelta(seconds=1)
"""How far ahead a moment may be that is waited for with the call ready, and not come back for.

What people wait for may look further ahead than what comes by the thousand: it goes before that.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What somebody who wants to ask is told.

    Attributes:
        at: When to ask, or to come back: nobody else is told that moment of this lane.
        is_now: Whether to ask then; else to come back.
        free_at: When the Stripe account may be asked next.
        taken_until: Up to when moments of the lane are given away.
    """

    at: datetime
    is_now: bool
    free_at: datetime
    taken_until: datetime


def next_turn(
    now: datetime,
    rate: float,
    *,
    free_at: datetime,
    taken_until: datetime,
    promised: datetime | None,
    lanes: int,
    patience: timedelta,
) -> Turn:
    """The turn of somebody who wants to ask now.

    Those who cannot are given moments one after the other, at the rate, which ``lanes`` share that
    have somebody waiting: so they come back one by one, each to a moment of its own. Whoever comes
    back too late, or when others were faster, is given the next one.

    Args:
        now: The time.
        rate: How often a second the Stripe account may be asked.
        free_at: When it may be asked next, by all who have asked so far.
        taken_until: Up to when moments of this lane are given away.
        promised: The moment that was given to this one before.
        lanes: How many there are with somebody waiting, with this one.
        patience: How far ahead a moment may be that need not be come back for.
    """
    every = timedelta(seconds=1 / (rate * SHARE_OF_RATE))
    apart = every * max(lanes, 1)
    moment = promised
    if moment is None:
        moment = max(now, taken_until)
        taken_until = moment + apart
    if moment <= now + patience:
        at = max(now, moment, free_at)
        if at <= now + patience:
            return Turn(at=at, is_now=True, free_at=at + every, taken_until=taken_until)
        moment = max(free_at, taken_until)
        taken_until = moment + apart
    return Turn(at=moment, is_now=False, free_at=free_at, taken_until=taken_until)
