"""A charge was sent and its answer was lost: when to ask, how, and what silence means."""

from datetime import datetime, timedelta
from typing import Literal

KEY_LIFETIME = timedelta(hours=24)
"""How long Stripe surely remembers an idempotency key.

"You can remove keys from the system automatically after they're at least 24 hours old"
(https://docs.stripe.com/api/idempotent_requests).
"""

KEY_TRUSTED_FOR = KEY_LIFETIME - timedelta(hours=1)
"""How long we rely on it. The hour covers clocks that differ and a request that is slow."""

NEVER_ARRIVED_AFTER = timedelta(hours=24)
"""How long a charge is asked for before it is believed never to have reached Stripe."""

BELIEVED_MISSING_AFTER = timedelta(hours=24)
"""How long Stripe must not know a payment that it once told of. A wrong key is put right sooner."""

_FIRST_ASKS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(hours=1))


def next_ask(asked: int, at: datetime, since: datetime) -> datetime:
    """When to ask again: 1 minute, 5 minutes and 1 hour after ``since``, then every day after it.

    Args:
        asked: How often it was asked already, from 0.
        at: The last time it was asked, or now. The result is later: times that were missed are
            not made up for one by one.
        since: When the charge was sent.

    Raises:
        ValueError: ``asked`` is below 0.
    """
    if asked < 0:
        raise ValueError("asks are counted from 0")
    while since + _wait(asked) <= at:
        asked += 1
    return since + _wait(asked)


def ask_by(since: datetime, now: datetime) -> Literal["key", "metadata"]:
    """How to ask about a charge first sent at ``since``.

    ``key``: send it again under its idempotency key, which replays the first answer, or makes the
    charge if it never arrived. ``metadata``: look it up, and send nothing: a forgotten key would
    charge a second time.
    """
    return "key" if now - since < KEY_TRUSTED_FOR else "metadata"


def believed_never_arrived(since: datetime, now: datetime) -> bool:
    """Whether a charge sent at ``since`` that Stripe does not know by now was never made."""
    return now - since >= NEVER_ARRIVED_AFTER


def believed_missing(since: datetime, now: datetime) -> bool:
    """Whether a payment that Stripe has not known from ``since`` on will not be known again.

    It was there once, so this says nothing of whether money moved.
    """
    return now - since >= BELIEVED_MISSING_AFTER


def _wait(asked: int) -> timedelta:
    if asked < len(_FIRST_ASKS):
        return _FIRST_ASKS[asked]
    return timedelta(days=asked - len(_FIRST_ASKS) + 1)
