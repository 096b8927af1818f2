"""Turns at a Stripe account: it is asked no faster than it lets itself be, by all hosts together."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from billing.turns import BULK_PATIENCE, PERSONS_PATIENCE, next_turn
from gateways.cards import CardsUnavailable, TooManyRequests
from models import StripeLane, StripeLimit, StripeTurn
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


def take_turn(
    session: Session, run: Run, *, merchant_id: UUID | None, account_id: UUID, is_bulk: bool
) -> MayAsk | Snooze:
    """A turn of a job's at a Stripe account, or when to come back for it.

    Take it last before what is asked is written down: from here to the commit all others who want
    to ask that Stripe account wait. The moment to come back for is kept by the commit, too.
    """
    if run.stripe_rate is None:
        return MayAsk()
    at_merchant = merchant_id or OF_THE_DEPLOYMENT
    limit = _lock_limit(session, at_merchant)
    now = session.scalars(select(func.clock_timestamp())).one()
    held_until = max(now, limit.held_until or now)
    lane = _lane(session, at_merchant, account_id, is_bulk=is_bulk, now=now)
    promised = session.scalar(
        delete(StripeTurn).where(StripeTurn.job_id == run.job_id).returning(StripeTurn.at)
    )
    turn = next_turn(
        now,
        run.stripe_rate,
        free_at=max(limit.next_at, held_until),
        taken_until=max(lane.taken_until, held_until),
        promised=promised,
        lanes=_busy_lanes(session, lane, now),
        patience=BULK_PATIENCE if is_bulk else PERSONS_PATIENCE,
    )
    limit.next_at, lane.taken_until = turn.free_at, turn.taken_until
    after = max(turn.at - now, timedelta())
    if turn.is_now:
        session.flush()
        return MayAsk(after)
    session.add(StripeTurn(job_id=run.job_id, merchant_id=at_merchant, at=turn.at))
    session.flush()
    return Snooze(after)


def hold_back(session: Session, merchant_id: UUID | None, reason: CardsUnavailable) -> None:
    """Leave a Stripe account alone for as long as it says, if it was asked too much."""
    if not isinstance(reason, TooManyRequests):
        return
    limit = _lock_limit(session, merchant_id or OF_THE_DEPLOYMENT)
    now = session.scalars(select(func.clock_timestamp())).one()
    told = min(reason.retry_after or HELD_AT_LEAST, LONGEST_HOLD)
    limit.held_until = max(limit.held_until or now, now + max(told, HELD_AT_LEAST))
    session.flush()


def _lock_limit(session: Session, merchant_id: UUID) -> StripeLimit:
    session.execute(insert(StripeLimit).values(merchant_id=merchant_id).on_conflict_do_nothing())
    return session.get_one(StripeLimit, merchant_id, with_for_update=True, populate_existing=True)


def _lane(
    session: Session, merchant_id: UUID, account_id: UUID, *, is_bulk: bool, now: datetime
) -> StripeLane:
    """An account's lane, as the last holder of the limit's lock left it."""
    key = {"merchant_id": merchant_id, "account_id": account_id, "is_bulk": is_bulk}
    session.execute(insert(StripeLane).values(**key, taken_until=now).on_conflict_do_nothing())
    return session.get_one(StripeLane, (merchant_id, account_id, is_bulk), populate_existing=True)


def _busy_lanes(session: Session, lane: StripeLane, now: datetime) -> int:
    """How many lanes have given moments to come away, with this one."""
    others = session.scalar(
        select(func.count()).where(
            StripeLane.merchant_id == lane.merchant_id,
            StripeLane.taken_until > now,
            (StripeLane.account_id != lane.account_id) | (StripeLane.is_bulk != lane.is_bulk),
        )
    )
    return 1 + (others or 0)
