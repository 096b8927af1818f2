"""Where turns are taken: those that a process wants at once, in one short transaction of its own."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from billing.turns import BULK_PATIENCE, PERSONS_PATIENCE, Turn, next_turn


class Lane(NamedTuple):
    """An account's bulk work, or what its people wait for, at a Stripe account."""

    merchant_id: UUID
    account_id: UUID
    is_bulk: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """A turn, and when it was taken."""

    turn: Turn
    taken_at: datetime


@dataclass(frozen=True, slots=True)
class _Wanted:
    job_id: UUID
    lane: Lane
    taken: Future[Taken]


_WRITE_LIMITS = text("""
INSERT INTO stripe_limits (merchant_id)
SELECT unnest(:merchants ::uuid[]) ON CONFLICT DO NOTHING
""")

# In the same order everywhere, so that two processes wait for each other only one way.
_LOCK = text("""
SELECT merchant_id, next_at, held_until FROM stripe_limits
 WHERE merchant_id = ANY(:merchants ::uuid[]) ORDER BY merchant_id FOR UPDATE
""")

# After the lock, so that all is as its last holder left it; a job's own moment is used up.
_READ = text("""
WITH used AS (DELETE FROM stripe_turns WHERE job_id = ANY(:jobs ::uuid[]) RETURNING job_id, at)
SELECT clock.now, used.at AS promised, lane.taken_until,
       (SELECT count(*) FROM stripe_lanes
         WHERE merchant_id = wanted.merchant_id AND taken_until > clock.now) AS lanes
  FROM (SELECT clock_timestamp() AS now) AS clock,
       unnest(:jobs ::uuid[], :merchants ::uuid[], :accounts ::uuid[], :are_bulk ::boolean[])
            WITH ORDINALITY AS wanted (job_id, merchant_id, account_id, is_bulk, place)
  LEFT JOIN used USING (job_id)
  LEFT JOIN stripe_lanes AS lane USING (merchant_id, account_id, is_bulk)
 ORDER BY place
""")

_WRITE = text("""
WITH lanes AS (
    INSERT INTO stripe_lanes (merchant_id, account_id, is_bulk, taken_until)
    SELECT * FROM unnest(:merchants ::uuid[], :accounts ::uuid[], :are_bulk ::boolean[],
                         :taken_until ::timestamptz[])
        ON CONFLICT (merchant_id, account_id, is_bulk)
        DO UPDATE SET taken_until = EXCLUDED.taken_until
), promised AS (
    INSERT INTO stripe_turns (job_id, merchant_id, at)
    SELECT * FROM unnest(:jobs ::uuid[], :jobs_merchants ::uuid[], :at ::timestamptz[])
)
UPDATE stripe_limits SET next_at = freed.at
  FROM unnest(:freed ::uuid[], :free_at ::timestamptz[]) AS freed (merchant_id, at)
 WHERE stripe_limits.merchant_id = freed.merchant_id
""")


class Turnstile:
    """Gives a process's jobs their turns at Stripe accounts, each of which is asked at ``rate``.

    All processes wait for each other's turns at the same Stripe account, so they are not taken in
    the jobs' own transactions, which go on: of what the threads of a process want, all that came
    while one transaction was under way is taken in the next. ``engine`` gives it connections that
    no job holds. A turn whose job dies is lost, which costs one turn; so may be the last ones
    before a crash of the server, if ``engine`` is not durable.
    """

    def __init__(self, engine: Engine, rate: float) -> None:
        self._engine = engine
        self._rate = rate
        self._wanted: list[_Wanted] = []
        self._adding = threading.Lock()
        self._taking = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many turns are wanted that nobody has begun to take."""
        return len(self._wanted)

    def take(self, job_id: UUID, lane: Lane) -> Taken:
        """A turn of a job's, or when to come back for it; that is then kept for it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: The database refused; no turn is taken.
        """
        wanted = _Wanted(job_id, lane, Future())
        with self._adding:
            self._wanted.append(wanted)
        # Whoever comes to be the one that takes finds those that have come until then.
        with self._taking:
            if not wanted.taken.done():
                self._take_all()
        return wanted.taken.result()

    def _take_all(self) -> None:
        with self._adding:
            batch, self._wanted = self._wanted, []
        try:
            with self._engine.begin() as connection:
                taken = self._take(connection, batch)
        except BaseException as error:
            for one in batch:
                one.taken.set_exception(error)
            raise
        for one, turn in zip(batch, taken, strict=True):
            one.taken.set_result(turn)

    def _take(self, connection: Connection, batch: Sequence[_Wanted]) -> list[Taken]:
        merchants = sorted({one.lane.merchant_id for one in batch})
        limits = _locked(connection, merchants)
        seen = connection.execute(
            _READ, {"jobs": [one.job_id for one in batch], **_columns([one.lane for one in batch])}
        ).all()
        now: datetime = seen[0].now
        queue = _Queue(now, self._rate)
        for limit in limits:
            queue.free_at[limit.merchant_id] = limit.next_at
            queue.held_until[limit.merchant_id] = max(now, limit.held_until or now)
        for one, row in zip(batch, seen, strict=True):
            queue.taken_until[one.lane] = row.taken_until or now
            queue.lanes[one.lane.merchant_id] = row.lanes
        turns = [queue.next(one.lane, row.promised) for one, row in zip(batch, seen, strict=True)]
        promised = [(one, turn) for one, turn in zip(batch, turns, strict=True) if not turn.is_now]
        connection.execute(
            _WRITE,
            {
                **_columns(list(queue.taken_until)),
                "taken_until": list(queue.taken_until.values()),
                "jobs": [one.job_id for one, _ in promised],
                "jobs_merchants": [one.lane.merchant_id for one, _ in promised],
                "at": [turn.at for _, turn in promised],
                "freed": list(queue.free_at),
                "free_at": list(queue.free_at.values()),
            },
        )
        return [Taken(turn, now) for turn in turns]


class _Queue:
    """What is known of Stripe accounts and their lanes, from one turn to the next."""

    def __init__(self, now: datetime, rate: float) -> None:
        self.now = now
        self.rate = rate
        self.free_at: dict[UUID, datetime] = {}
        self.held_until: dict[UUID, datetime] = {}
        self.taken_until: dict[Lane, datetime] = {}
        self.lanes: Counter[UUID] = Counter()

    def next(self, lane: Lane, promised: datetime | None) -> Turn:
        merchant = lane.merchant_id
        held_until, taken_until = self.held_until[merchant], self.taken_until[lane]
        had_somebody_waiting = taken_until > self.now
        turn = next_turn(
            self.now,
            self.rate,
            free_at=max(self.free_at[merchant], held_until),
            taken_until=max(taken_until, held_until),
            promised=promised,
            lanes=self.lanes[merchant] + (not had_somebody_waiting),
            patience=BULK_PATIENCE if lane.is_bulk else PERSONS_PATIENCE,
        )
        self.free_at[merchant], self.taken_until[lane] = turn.free_at, turn.taken_until
        if not had_somebody_waiting and turn.taken_until > self.now:
            self.lanes[merchant] += 1
        return turn


def _locked(connection: Connection, merchants: Sequence[UUID]) -> Sequence[Row[Any]]:
    asked = {"merchants": merchants}
    limits = connection.execute(_LOCK, asked).all()
    if len(limits) < len(merchants):
        connection.execute(_WRITE_LIMITS, asked)
        limits = connection.execute(_LOCK, asked).all()
    return limits


def _columns(lanes: Sequence[Lane]) -> dict[str, list[Any]]:
    return {
        "merchants": [lane.merchant_id for lane in lanes],
        "accounts": [lane.account_id for lane in lanes],
        "are_bulk": [lane.is_bulk for lane in lanes],
    }
