"""Automatic top-ups: when a client's card is charged to fill its credit again, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from billing.card_amounts import MINIMUMS, minimum_charge
from billing.currencies import currency_code
from billing.declines import STOPS_AUTOMATIC_TRIES, DeclineClass
from billing.errors import InvalidInput
from billing.money import MAX_AMOUNT

PAUSE_AFTER_DECLINE = timedelta(hours=1)

MAX_DECLINES = 4
"""Declines in a row after which top-ups are off."""


@dataclass(frozen=True, slots=True)
class AutoTopUp:
    """A client's setting, in ``currency``'s minor units: ``auto_top_up`` makes one that works."""

    threshold: int
    target: int
    currency: str


@dataclass(frozen=True, slots=True)
class TopUpTries:
    """What became of the top-ups since the last one that was paid.

    As new, also after the client's setting or card changed: nothing was declined.
    """

    declines: int = 0
    declined_at: datetime | None = None
    is_off: bool = False


class TopUpHold(StrEnum):
    """Why no charge is made."""

    # The balance is not below the threshold.
    ENOUGH = "enough"
    # One is under way, or waits for the client.
    OPEN = "open"
    # Declined too often, or for good.
    OFF = "off"
    # Declined a short while ago.
    PAUSED = "paused"


def auto_top_up(*, threshold: int, target: int, currency: str) -> AutoTopUp:
    """A setting under which every top-up can be charged, in ``currency``'s minor units.

    The smallest one comes when the balance is one unit below the threshold: Stripe's minimum has
    to fit between there and the target.

    Raises:
        InvalidInput: The threshold is not above zero (a balance that is used up is not below
            zero), the target is too close to it or above ``MAX_AMOUNT``, or Stripe does not
            charge in the currency. The field is ``auto_top_up.`` and its name.
    """
    code = currency_code(currency, "auto_top_up.currency")
    try:
        least = minimum_charge(code)
    except InvalidInput as error:
        raise InvalidInput("auto_top_up.currency", error.message) from error
    if threshold < 1:
        raise InvalidInput(
            "auto_top_up.threshold", "must be above zero: a balance below it is topped up"
        )
    if target <= threshold:
        raise InvalidInput("auto_top_up.target", "must be above the threshold")
    if target > MAX_AMOUNT:
        raise InvalidInput("auto_top_up.target", f"must be at most {MAX_AMOUNT:,}")
    if target - (threshold - 1) < least:
        raise InvalidInput(
            "auto_top_up.target",
            f"must be at least {threshold - 1 + least:,}: "
            f"a card is charged {least:,} {code.upper()} minor units or more",
        )
    return AutoTopUp(threshold, target, code)


def next_top_up(
    setting: AutoTopUp, *, balance: int, has_open: bool, tries: TopUpTries, now: datetime
) -> int | TopUpHold:
    """What to charge now, in minor units, or why nothing.

    The charge brings the balance to the target; where Stripe takes no such amount, as near below
    it as can be, which is at the threshold or above.

    Args:
        setting: The client's.
        balance: The client's in the setting's currency, signed, in minor units. A charge under
            way is not in it.
        has_open: Whether a top-up has no outcome yet.
        tries: What became of the ones before.
        now: When it would be charged.
    """
    if balance >= setting.threshold:
        return TopUpHold.ENOUGH
    if has_open:
        return TopUpHold.OPEN
    if tries.is_off:
        return TopUpHold.OFF
    if tries.declined_at is not None and now < tries.declined_at + PAUSE_AFTER_DECLINE:
        return TopUpHold.PAUSED
    wanted = setting.target - balance
    return wanted - wanted % _step(setting.currency)


def after_decline(tries: TopUpTries, kind: DeclineClass, at: datetime) -> TopUpTries:
    """What is known after one more decline: off by the fourth in a row, or by one for good.

    For good is what stops automatic tries of a card elsewhere, too: it is ruled out, or wrong.
    """
    declines = tries.declines + 1
    is_off = tries.is_off or declines >= MAX_DECLINES or kind in STOPS_AUTOMATIC_TRIES
    return TopUpTries(declines, at, is_off)


def is_told(tries: TopUpTries) -> bool:
    """Whether the client is told of the decline that led to ``tries``: of the first in a row."""
    return tries.declines == 1


def _step(currency: str) -> int:
    """What an amount must be a multiple of for Stripe to take it."""
    # Stripe names no minimum where that is above 1: there the smallest amount is the step.
    return 1 if currency in MINIMUMS else minimum_charge(currency)
