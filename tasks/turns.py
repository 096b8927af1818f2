"""Turns at a Stripe account: it is asked no faster than it lets itself be, by all hosts together."""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from billing.turns import BULK_PATIENCE, PERSONS_PATIENCE, next_turn
from gateways.cards import TooManyRequests
from models import StripeLimit
from models.stripe_limit import OF_THE_DEPLOYMENT
from tasks.kinds import Run
from tasks.outcomes import Snooze

HELD_AT_LEAST = timedelta(seconds=1)
LONGEST_HOLD = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class MayAsk:
    """It may be asked, after a moment."""

    after: timedelta = timedelta()

    def wait(self) -> None:
        """Let the moment come. No transaction is open meanwhile."""
        time.sleep(self.after.total_seconds())


_LOCK = text("""
SELECT next_at, held_until FROM stripe_limits WHERE merchant_id = :merchant FOR UPDATE
""")

# After the lock, so that all is as its last holder left it; this job's own moment is used up.
_READ = text("""
WITH used AS (DELETE FROM stripe_turns WHERE job_id = :job RETURNING at)
SELECT clock.now, (SELECT at FROM used) AS promised,
       (SELECT taken_until FROM stripe_lanes
         WHERE (merchant_id, account_id, is_bulk) = (:merchant, :account, :is_bulk)) AS taken_until,
       (SELECT count(*) FROM stripe_lanes
         WHERE merchant_id = :merchant AND taken_until > clock.now
           AND (account_id, is_bulk) <> (:account, :is_bulk)) AS other_lanes
  FROM (SELECT clock_timestamp() AS now) AS clock
""")

_WRITE = text("""
WITH lane AS (
    INSERT INTO stripe_lanes (merchant_id, account_id, is_bulk, taken_until)
    VALUES (:merchant, :account, :is_bulk, :taken_until)
        ON CONFLICT (merchant_id, account_id, is_bulk)
        DO UPDATE SET taken_until = EXCLUDED.taken_until
), promised AS (
    INSERT INTO stripe_turns (job_id, merchant_id, at)
    SELECT :job, :merchant, :at WHERE NOT :is_now
)
UPDATE stripe_limits SET next_at = :free_at WHERE merchant_id = :merchant
""")


def take_turn(
    session: Session, run: Run, *, merchant_id: UUID | None, account_id: UUID, is_bulk: bool
) -> MayAsk | Snooze:
    """A turn of a job's at a Stripe account, or when to come back for it.

    Take it last before what is asked is written down: from here to the commit all others who want
    to ask that Stripe account wait, so that each statement in between is one that all of them wait
    for. The moment to come back for is kept by the commit, too.
    """
    if run.stripe_rate is None:
        return MayAsk()
    session.flush()
    lane: dict[str, Any] = {
        "merchant": merchant_id or OF_THE_DEPLOYMENT,
        "account": account_id,
        "is_bulk": is_bulk,
        "job": run.job_id,
    }
    limit = session.execute(_LOCK, lane).one_or_none()
    if limit is None:
        _write_limit(session, lane["merchant"])
        limit = session.execute(_LOCK, lane).one()
    seen = session.execute(_READ, lane).one()
    held_until = max(seen.now, limit.held_until or seen.now)
    turn = next_turn(
        seen.now,
        run.stripe_rate,
        free_at=max(limit.next_at, held_until),
        taken_until=max(seen.taken_until or seen.now, held_until),
        promised=seen.promised,
        lanes=1 + seen.other_lanes,
        patience=BULK_PATIENCE if is_bulk else PERSONS_PATIENCE,
    )
    session.execute(
        _WRITE,
        {
            **lane,
            "taken_until": turn.taken_until,
            "free_at": turn.free_at,
            "at": turn.at,
            "is_now": turn.is_now,
        },
    )
    after = max(turn.at - seen.now, timedelta())
    return MayAsk(after) if turn.is_now else Snooze(after)


def hold_back(session: Session, merchant_id: UUID | None, reason: Exception) -> None:
    """Leave a Stripe account alone for as long as it says, if it was asked too much."""
    if not isinstance(reason, TooManyRequests):
        return
    limit = _lock_limit(session, merchant_id or OF_THE_DEPLOYMENT)
    now = session.scalars(select(func.clock_timestamp())).one()
    told = min(reason.retry_after or HELD_AT_LEAST, LONGEST_HOLD)
    limit.held_until = max(limit.held_until or now, now + max(told, HELD_AT_LEAST))
    session.flush()


def _lock_limit(session: Session, merchant_id: UUID) -> StripeLimit:
    _write_limit(session, merchant_id)
    return session.get_one(StripeLimit, merchant_id, with_for_update=True, populate_existing=True)


def _write_limit(session: Session, merchant_id: UUID) -> None:
    session.execute(insert(StripeLimit).values(merchant_id=merchant_id).on_conflict_do_nothing())
