"""Turns at a Stripe account: it is asked no faster than it lets itself be, by all hosts together."""

import time
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from gateways.cards import TooManyRequests
from models import StripeLimit
from models.stripe_limit import OF_THE_DEPLOYMENT
from tasks.kinds import Run
from tasks.outcomes import Snooze
from tasks.turnstile import Lane

HELD_AT_LEAST = timedelta(seconds=1)
LONGEST_HOLD = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class MayAsk:
    """It may be asked, after a moment."""

    after: timedelta = timedelta()

    def wait(self) -> None:
        """Let the moment come. No transaction is open meanwhile."""
        time.sleep(self.after.total_seconds())


def take_turn(
    run: Run, *, merchant_id: UUID | None, account_id: UUID, is_bulk: bool
) -> MayAsk | Snooze:
    """A turn of a job's at a Stripe account, or when to come back for it.

    Take it once it is known that there is something to ask. It is taken, and the moment to come
    back for is kept, whatever becomes of the caller's transaction.
    """
    if run.turnstile is None:
        return MayAsk()
    taken = run.turnstile.take(
        run.job_id, Lane(merchant_id or OF_THE_DEPLOYMENT, account_id, is_bulk)
    )
    after = max(taken.turn.at - taken.taken_at, timedelta())
    return MayAsk(after) if taken.turn.is_now else Snooze(after)


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
