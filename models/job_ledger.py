"""The job engine's own statements: few, set-wise, prepared by the driver.

Every time in here is the database's clock: hosts disagree about now, the database does not
disagree with itself. Domain code never writes ``jobs`` but through these functions.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection, Row
from sqlalchemy.exc import IntegrityError

from billing.job_states import FINAL, JobState
from models.job import FINAL_STATES

NOTIFY_CHANNEL = "duecourse_jobs"

# A message that no worker claimed is sent again after this, doubling up to the maximum. A second
# copy costs one refused claim, so the first wait is short: it bounds what a flushed Redis costs.
REDISPATCH_AFTER = timedelta(seconds=5)
REDISPATCH_AFTER_MAX = timedelta(minutes=1)

# No less than this part of a window is added to it at once.
PARTS_OF_A_WINDOW = 8

# A job whose worker died this often is not run again by itself: it may be what kills them.
MAX_RESCUES = 3

_BATCH = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be written down. ``args`` holds JSON values, ids only."""

    kind: str
    queue: str
    args: dict[str, Any]
    max_attempts: int
    requested_by: str
    account_id: UUID | None = None
    priority: int = 100
    run_at: datetime | None = None
    unique_key: str | None = None
    parent_id: UUID | None = None
    subject_type: str | None = None
    subject_id: UUID | None = None
    id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The job that will do the work, and whether this call made it."""

    id: UUID
    created: bool


@dataclass(frozen=True, slots=True)
class Bell:
    """What a message over Redis says: this job, of this kind, in this queue.

    ``started_at`` is when its last run began, if any: it tells one waiting from the next.
    """

    job_id: UUID
    kind: str
    queue: str
    started_at: datetime | None


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """The right to run a job until the lease ends. ``started_at`` is the run's ``now``."""

    job_id: UUID
    kind: str
    account_id: UUID | None
    args: dict[str, Any]
    attempt: int
    max_attempts: int
    lease_token: UUID
    started_at: datetime
    requested_by: str
    parent_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended: the job's next state, and what its attempt is remembered as.

    A state that is not final is left again ``after`` this long from now, or once ``children``
    jobs have ended.
    """

    state: JobState
    outcome: str
    after: timedelta | None = None
    gives_attempt_back: bool = False
    children: int = 0
    result: dict[str, Any] | None = None
    reason: str | None = None
    error: dict[str, Any] | None = None


_INSERT = """
INSERT INTO jobs (id, account_id, kind, queue, args, priority, run_at, state, max_attempts,
                  unique_key, parent_id, requested_by, subject_type, subject_id)
SELECT COALESCE(%(id)s::uuid, uuid7()), %(account_id)s, %(kind)s, %(queue)s, %(args)s,
       %(priority)s, COALESCE(%(run_at)s, now()),
       CASE WHEN %(run_at)s::timestamptz > now() THEN 'scheduled' ELSE 'ready' END,
       %(max_attempts)s, %(unique_key)s, %(parent_id)s, %(requested_by)s, %(subject_type)s,
       %(subject_id)s
  FROM pg_notify(%(channel)s, %(queue)s)
"""

# A conflict locks the row, so a claim of it waits for the caller's commit and sees its work. One
# that already runs may have read the state from before: it is asked to run again.
_ON_CONFLICT = f"""
    ON CONFLICT (unique_key) WHERE state NOT IN {FINAL_STATES}
       DO UPDATE SET rerun = jobs.rerun OR jobs.state = 'running',
                     run_at = CASE WHEN jobs.state = 'scheduled' AND jobs.children_pending = 0
                                   THEN LEAST(jobs.run_at, EXCLUDED.run_at)
                                   ELSE jobs.run_at END
"""

_ENQUEUE = _INSERT + _ON_CONFLICT + "RETURNING id, xmax = 0 AS created"

_ADOPT = _INSERT + "ON CONFLICT (id) DO NOTHING RETURNING id"

_INSERT_MANY = """
INSERT INTO jobs (account_id, kind, queue, args, priority, state, max_attempts, requested_by,
                  unique_key, subject_type, subject_id)
SELECT wanted.account_id, wanted.kind, wanted.queue, wanted.args, wanted.priority, 'ready',
       wanted.max_attempts, wanted.requested_by, wanted.unique_key, wanted.subject_type,
       wanted.subject_id
  FROM unnest(%(account_id)s::uuid[], %(kind)s::text[], %(queue)s::text[], %(args)s::jsonb[],
              %(priority)s::smallint[], %(max_attempts)s::int[], %(requested_by)s::text[],
              %(unique_key)s::text[], %(subject_type)s::text[], %(subject_id)s::uuid[])
       AS wanted (account_id, kind, queue, args, priority, max_attempts, requested_by,
                  unique_key, subject_type, subject_id),
       (SELECT count(pg_notify(%(channel)s, name))
          FROM (SELECT DISTINCT unnest(%(queue)s::text[]) AS name) AS queues) AS told
 ORDER BY wanted.unique_key
"""

_ENQUEUE_MANY = _INSERT_MANY + _ON_CONFLICT

_PROMOTE = """
UPDATE jobs SET state = 'ready'
 WHERE id IN (SELECT id FROM jobs
               WHERE state IN ('scheduled', 'failed') AND run_at <= now()
               ORDER BY run_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
"""

# One index probe a queue: most have nothing to dispatch most of the time.
_QUEUES_WITH_READY = """
SELECT name FROM queues
 WHERE EXISTS (SELECT FROM jobs WHERE jobs.queue = queues.name AND jobs.state = 'ready')
"""

_LOCK_QUEUE = """
SELECT paused_at IS NULL FROM queues WHERE name = %(queue)s FOR UPDATE SKIP LOCKED
"""

# A statement of its own, after the lock: one that began before the lock was free would count
# without the jobs that the last holder dispatched.
_OUTSTANDING = "SELECT count(*) FROM jobs WHERE queue = %(queue)s AND state = 'dispatched'"

# Lanes are walked by index probes (one a lane), which find each one's oldest job. Within a
# priority every account's first job goes before any account's second, and what an account has
# outstanding counts: room often comes one by one, and the longest backlog would take it all.
# A lane is asked only for what it can get: nothing if enough others' first jobs go before its
# first, and none but its first if enough of them go before its second.
_DISPATCH = """
WITH RECURSIVE lanes AS (
    (SELECT priority, lane, run_at, id FROM jobs WHERE queue = %(queue)s AND state = 'ready'
      ORDER BY priority, lane, run_at, id LIMIT 1)
    UNION ALL
    (SELECT next.priority, next.lane, next.run_at, next.id
       FROM lanes, LATERAL (
            SELECT priority, lane, run_at, id FROM jobs
             WHERE queue = %(queue)s AND state = 'ready'
               AND (priority, lane) > (lanes.priority, lanes.lane)
             ORDER BY priority, lane, run_at, id LIMIT 1) AS next)
), outstanding AS (
    SELECT lane, count(*) AS jobs FROM jobs
     WHERE queue = %(queue)s AND state = 'dispatched' GROUP BY lane
), firsts AS (
    SELECT priority, lane, COALESCE(outstanding.jobs, 0) AS taken
      FROM lanes LEFT JOIN outstanding USING (lane)
     ORDER BY priority, taken, run_at, id LIMIT %(room)s
), shares AS (
    SELECT priority, lane, taken,
           %(room)s - count(*) OVER (ORDER BY priority, taken) + 1 AS most
      FROM firsts
), candidates AS (
    SELECT job.id, shares.priority, job.turn + taken AS turn, job.run_at
      FROM shares, LATERAL (
           SELECT id, run_at, row_number() OVER (ORDER BY run_at, id) AS turn FROM jobs
            WHERE queue = %(queue)s AND state = 'ready'
              AND priority = shares.priority AND lane = shares.lane
            ORDER BY run_at, id LIMIT shares.most) AS job
     ORDER BY priority, turn, run_at, id LIMIT %(room)s
), locked AS (
    SELECT id FROM jobs WHERE id IN (SELECT id FROM candidates) AND state = 'ready'
       FOR UPDATE SKIP LOCKED
), dispatched AS (
    UPDATE jobs SET state = 'dispatched', dispatched_at = now(), dispatches = 1
      FROM locked WHERE jobs.id = locked.id
    RETURNING jobs.id, jobs.kind, jobs.queue, jobs.started_at
)
SELECT id, kind, queue, started_at FROM dispatched JOIN candidates USING (id)
 ORDER BY priority, turn, run_at, id
"""

_REDISPATCH = """
UPDATE jobs SET dispatched_at = now(), dispatches = dispatches + 1
 WHERE id IN (SELECT jobs.id FROM jobs JOIN queues ON queues.name = jobs.queue
               WHERE state = 'dispatched' AND paused_at IS NULL
                 AND dispatched_at < now() - LEAST(
                     %(after)s * power(2, LEAST(dispatches - 1, 8)), %(after_max)s)
               ORDER BY dispatched_at LIMIT %(limit)s FOR UPDATE OF jobs SKIP LOCKED)
RETURNING id, kind, queue, started_at
"""

# The claim looks at the pause too: what was dispatched before it goes back to wait.
_CLAIM = """
UPDATE jobs
   SET state = CASE WHEN paused_at IS NULL THEN 'running' ELSE 'ready' END,
       attempt = attempt + (paused_at IS NULL)::int,
       lease_token = CASE WHEN paused_at IS NULL THEN gen_random_uuid() END,
       lease_expires_at = CASE WHEN paused_at IS NULL THEN clock_timestamp() + %(lease)s END,
       started_at = CASE WHEN paused_at IS NULL THEN clock_timestamp() ELSE started_at END,
       worker = CASE WHEN paused_at IS NULL THEN %(worker)s END
  FROM queues
 WHERE jobs.id = %(id)s AND jobs.state = 'dispatched' AND queues.name = jobs.queue
RETURNING jobs.id, kind, account_id, args, attempt, max_attempts, lease_token, started_at,
          requested_by, parent_id
"""

# Locked rows are skipped: a job that is committing its finish right now needs no longer lease.
# A run past its limit gets none either, so a hung one is rescued and fenced.
_EXTEND_LEASES = """
UPDATE jobs SET lease_expires_at = clock_timestamp() + %(lease)s
 WHERE id IN (SELECT id FROM jobs
               WHERE lease_token = ANY(%(tokens)s) AND id = ANY(%(ids)s) AND state = 'running'
                 AND started_at > now() - %(run_limit)s
                 FOR UPDATE SKIP LOCKED)
"""

_FINISH = """
WITH ended AS (
    UPDATE jobs
       SET state = CASE WHEN rerun AND %(final)s THEN 'ready' ELSE %(state)s END,
           attempt = CASE WHEN rerun AND %(final)s THEN 0 ELSE attempt - %(given_back)s END,
           rerun = rerun AND NOT %(final)s,
           run_at = CASE WHEN %(final)s THEN run_at ELSE clock_timestamp() + %(after)s::interval END,
           lease_token = NULL, lease_expires_at = NULL,
           finished_at = CASE WHEN %(final)s AND NOT rerun THEN clock_timestamp() END,
           result = %(result)s, reason = %(reason)s, error = %(error)s,
           children_pending = children_pending + %(children)s
     WHERE id = %(id)s AND lease_token = %(lease_token)s AND state = 'running'
    RETURNING id, worker, started_at
)
INSERT INTO job_attempts (job_id, attempt, outcome, worker, error, started_at, ended_at)
SELECT id, %(attempt)s, %(outcome)s, worker, %(error)s, started_at, clock_timestamp() FROM ended
RETURNING job_id
"""

# The lock gives the transaction an id, so that its commit waits for the disk, and with it the claim,
# which did not: it is on disk before a vendor is called.
_HOLDS = """
SELECT id FROM jobs
 WHERE id = %(id)s AND lease_token = %(lease_token)s AND state = 'running' FOR UPDATE
"""

_RESCUE = """
WITH expired AS (
    SELECT id, worker, attempt, started_at, rescues + 1 >= %(max_rescues)s AS poison
      FROM jobs WHERE state = 'running' AND lease_expires_at < now()
     ORDER BY lease_expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), recorded AS (
    INSERT INTO job_attempts (job_id, attempt, outcome, worker, started_at, ended_at)
    SELECT id, attempt, 'rescued', worker, started_at, now() FROM expired
)
UPDATE jobs
   SET state = CASE WHEN poison THEN 'dead' ELSE 'ready' END, rescues = rescues + 1,
       lease_token = NULL, lease_expires_at = NULL,
       reason = CASE WHEN poison THEN 'poison' END,
       finished_at = CASE WHEN poison THEN now() END
  FROM expired WHERE jobs.id = expired.id
"""

_WITHDRAW = """
UPDATE jobs SET state = 'ready' WHERE id = ANY(%(ids)s) AND state = 'dispatched'
"""

_SET_ASIDE = """
UPDATE jobs SET state = 'dead', reason = %(reason)s, finished_at = now(), error = %(error)s
 WHERE id = %(id)s AND state = %(state)s
"""

_CANCEL = """
UPDATE jobs SET state = 'cancelled', finished_at = now()
 WHERE id = %(id)s AND state IN ('scheduled', 'ready', 'dispatched', 'failed')
   AND children_pending = 0
RETURNING id
"""

# Two unfinished jobs never stand for the same work.
_HAS_NO_TWIN = """
NOT EXISTS (SELECT FROM jobs AS twin
             WHERE twin.unique_key = jobs.unique_key AND twin.id <> jobs.id
               AND twin.state NOT IN ('cancelled', 'dead', 'skipped', 'succeeded'))
"""

_AFRESH = """
UPDATE jobs SET state = 'ready', run_at = now(), attempt = 0, rescues = 0, finished_at = NULL,
                reason = NULL, error = NULL
"""

_RETRY = (
    _AFRESH
    + " WHERE id = %(id)s AND state IN ('dead', 'failed', 'cancelled') AND "
    + _HAS_NO_TWIN
    + " RETURNING id"
)

# Of those that stand for the same work, the newest.
_DEAD = (
    """
SELECT DISTINCT ON (COALESCE(unique_key, id::text)) id FROM jobs
 WHERE state = 'dead'
   AND (%(account_id)s::uuid IS NULL OR account_id = %(account_id)s
        OR account_id IS NULL AND %(of_the_system)s)
   AND (%(kind)s::text IS NULL OR kind = %(kind)s)
   AND (%(queue)s::text IS NULL OR queue = %(queue)s)
   AND (%(reason)s::text IS NULL OR reason = %(reason)s)
   AND (%(since)s::timestamptz IS NULL OR finished_at >= %(since)s)
   AND """
    + _HAS_NO_TWIN
    + " ORDER BY COALESCE(unique_key, id::text), id DESC"
)

_PRUNE = """
DELETE FROM jobs
 WHERE id IN (SELECT id FROM jobs WHERE finished_at < now() - %(keep)s
                 AND state IN ('succeeded', 'skipped', 'cancelled')
               ORDER BY finished_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
"""


def enqueue(connection: Connection, job: NewJob) -> Enqueued:
    """Write ``job`` down in the caller's transaction; it exists only if that commits."""
    row = connection.exec_driver_sql(_ENQUEUE, _columns(job)).one()
    return Enqueued(row.id, row.created)


def enqueue_many(connection: Connection, jobs: Sequence[NewJob]) -> None:
    """Write jobs down that are ready at once, in one statement; no two with one unique key."""
    if not jobs:
        return
    rows = [_columns(job) for job in jobs]
    names = (
        *("account_id", "kind", "queue", "args", "priority", "max_attempts", "requested_by"),
        *("unique_key", "subject_type", "subject_id"),
    )
    columns = {name: [row[name] for row in rows] for name in names}
    connection.exec_driver_sql(_ENQUEUE_MANY, {"channel": NOTIFY_CHANNEL, **columns})


def adopt(connection: Connection, job: NewJob) -> bool:
    """Write down a job that came in as a plain message; False when it was adopted before."""
    return connection.exec_driver_sql(_ADOPT, _columns(job)).first() is not None


def adopt_dead(connection: Connection, job: NewJob, *, reason: str, error: dict[str, str]) -> bool:
    """The same for a message that cannot be run as it is: dead from the start."""
    new = adopt(connection, job)
    if new:
        _set_aside(connection, job.id, JobState.READY, reason, error)
    return new


def promote_due(connection: Connection) -> int:
    """Make scheduled jobs and retries whose time has come ready; how many."""
    return connection.exec_driver_sql(_PROMOTE, {"limit": _BATCH}).rowcount


def queues_with_ready(connection: Connection) -> list[str]:
    """The queues that ``dispatch`` may find a job in."""
    return list(connection.exec_driver_sql(_QUEUES_WITH_READY).scalars())


def dispatch(connection: Connection, queue: str, window: int) -> list[Bell] | None:
    """Mark ready jobs of ``queue`` as dispatched, keeping at most ``window`` outstanding.

    While nearly all of the window waits for workers, nothing is added to it: one by one, each
    would cost as much as many at once.

    Returns:
        The jobs to ring for, in this order, once the transaction has committed; ``None`` when
        the window was full enough before, so that the caller looks again soon.
    """
    is_open = connection.exec_driver_sql(_LOCK_QUEUE, {"queue": queue}).scalar()
    if not is_open:
        return []
    outstanding = connection.exec_driver_sql(_OUTSTANDING, {"queue": queue}).scalar_one()
    room = window - outstanding
    if room < max(window // PARTS_OF_A_WINDOW, 1):
        return None
    return _bells(connection.exec_driver_sql(_DISPATCH, {"queue": queue, "room": room}).all())


def withdraw(connection: Connection, bells: Sequence[Bell]) -> None:
    """Make jobs that could not be rung for ready again."""
    connection.exec_driver_sql(_WITHDRAW, {"ids": [bell.job_id for bell in bells]})


def redispatch_lost(connection: Connection) -> list[Bell]:
    """Jobs whose message no worker claimed in time, to be rung for again."""
    parameters = {"after": REDISPATCH_AFTER, "after_max": REDISPATCH_AFTER_MAX, "limit": _BATCH}
    return _bells(connection.exec_driver_sql(_REDISPATCH, parameters).all())


def rescue_expired(connection: Connection) -> int:
    """Take jobs from workers whose lease ran out, ready again or dead after too many; how many."""
    parameters = {"max_rescues": MAX_RESCUES, "limit": _BATCH}
    return connection.exec_driver_sql(_RESCUE, parameters).rowcount


def claim(connection: Connection, job_id: UUID, *, worker: str, lease: timedelta) -> Claim | None:
    """Start a dispatched job, once; ``None`` when it is not there to be started."""
    parameters = {"id": job_id, "worker": worker, "lease": lease}
    row = connection.exec_driver_sql(_CLAIM, parameters).first()
    if row is None or row.lease_token is None:
        return None
    return Claim(*row)


def extend_leases(
    connection: Connection, claims: Sequence[Claim], *, lease: timedelta, run_limit: timedelta
) -> None:
    """Keep the leases of runs under way, but of none that has run longer than ``run_limit``."""
    parameters = {
        "ids": [claim.job_id for claim in claims],
        "tokens": [claim.lease_token for claim in claims],
        "lease": lease,
        "run_limit": run_limit,
    }
    connection.exec_driver_sql(_EXTEND_LEASES, parameters)


def finish(connection: Connection, claim: Claim, ending: Ending) -> bool:
    """End the run that ``claim`` stands for, in the caller's transaction.

    Returns:
        Whether the lease still held. If not, another run owns the job: roll back everything.
    """
    parameters = {
        "id": claim.job_id,
        "lease_token": claim.lease_token,
        "attempt": claim.attempt,
        "state": ending.state.value,
        "final": ending.state in FINAL,
        "outcome": ending.outcome,
        "after": ending.after,
        "given_back": int(ending.gives_attempt_back),
        "children": ending.children,
        "result": None if ending.result is None else Jsonb(ending.result),
        "reason": ending.reason,
        "error": None if ending.error is None else Jsonb(ending.error),
    }
    return connection.exec_driver_sql(_FINISH, parameters).first() is not None


def holds(connection: Connection, claim: Claim) -> bool:
    """Whether the lease still holds; if so, nobody can take the job before the caller's commit."""
    parameters = {"id": claim.job_id, "lease_token": claim.lease_token}
    return connection.exec_driver_sql(_HOLDS, parameters).first() is not None


def park(connection: Connection, job_id: UUID, *, reason: str, message: str) -> None:
    """Set aside, dead, a dispatched job that this code cannot run; it can be retried later."""
    error = {"type": "NotRunnable", "message": message}
    _set_aside(connection, job_id, JobState.DISPATCHED, reason, error)


def cancel(connection: Connection, job_id: UUID) -> bool:
    """Stop a job that has not started; False when it has, or waits for its children."""
    return connection.exec_driver_sql(_CANCEL, {"id": job_id}).first() is not None


def retry(connection: Connection, job_id: UUID) -> bool:
    """Make a dead, failed or cancelled job ready again with fresh attempts.

    False when it is in another state, or an unfinished job already stands for the same work.
    """
    try:
        with connection.begin_nested():
            return connection.exec_driver_sql(_RETRY, {"id": job_id}).first() is not None
    except IntegrityError:
        # That other job was committed while this statement looked.
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadJobs:
    """Which dead jobs are meant: all that are as every given value says.

    ``account_id`` leaves out other accounts' jobs, and the system's own unless ``of_the_system``;
    ``since`` is when they ended, at the earliest.
    """

    account_id: UUID | None = None
    of_the_system: bool = False
    kind: str | None = None
    queue: str | None = None
    reason: str | None = None
    since: datetime | None = None


def replayable(connection: Connection, wanted: DeadJobs) -> list[UUID]:
    """The dead jobs that ``replay`` would make ready again."""
    return list(connection.exec_driver_sql(_DEAD, asdict(wanted)).scalars())


def replay(connection: Connection, wanted: DeadJobs) -> int:
    """Make dead jobs ready again with fresh attempts; how many."""
    return sum(retry(connection, job_id) for job_id in replayable(connection, wanted))


def prune(connection: Connection, *, keep: timedelta, limit: int) -> int:
    """Delete jobs that ended well longer than ``keep`` ago; dead ones wait for a person.

    Returns:
        How many; there may be more when it is ``limit``.
    """
    return connection.exec_driver_sql(_PRUNE, {"keep": keep, "limit": limit}).rowcount


def _set_aside(
    connection: Connection,
    job_id: UUID | None,
    state: JobState,
    reason: str,
    error: dict[str, str],
) -> None:
    """Make a job dead that is in ``state``."""
    parameters = {"id": job_id, "state": state.value, "reason": reason, "error": Jsonb(error)}
    connection.exec_driver_sql(_SET_ASIDE, parameters)


def _bells(rows: Sequence[Row[Any]]) -> list[Bell]:
    return [Bell(row.id, row.kind, row.queue, row.started_at) for row in rows]


def _columns(job: NewJob) -> dict[str, Any]:
    return {
        "channel": NOTIFY_CHANNEL,
        "id": job.id,
        "account_id": job.account_id,
        "kind": job.kind,
        "queue": job.queue,
        "args": Jsonb(job.args),
        "priority": job.priority,
        "run_at": job.run_at,
        "max_attempts": job.max_attempts,
        "unique_key": job.unique_key,
        "parent_id": job.parent_id,
        "requested_by": job.requested_by,
        "subject_type": job.subject_type,
        "subject_id": job.subject_id,
    }
