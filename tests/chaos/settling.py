"""Waiting until all work has ended, and then until what waits on purpose has."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.stripe.control import StripeSandboxControl
from models import job_ledger
from models.database import database_now
from models.job_ledger import DeadJobs
from tasks.operating import run_schedule
from tasks.reconciling import request_reconciliation, window_since
from tests.chaos.events import all_told
from tests.chaos.report import Report

FINISH_WITHIN_SECONDS = 120.0

LAST = "chaos:last"
"""Who asks for the reconciliations that must find nothing."""

# What is scheduled for later than this waits for its time: an hour's retry, a mail's event.
_BUSY = """
SELECT count(*) FROM jobs
 WHERE state NOT IN ('succeeded', 'skipped', 'cancelled', 'dead')
   AND NOT (state = 'scheduled' AND run_at > now() + interval '20 seconds')
"""
_ASKED_FOR = """
  FROM (SELECT state FROM payment_attempts UNION ALL SELECT state FROM refunds) AS asked_for
"""
_UNSETTLED = f"SELECT count(*) {_ASKED_FOR} WHERE state IN ('pending', 'unknown')"
_UNDER_WAY = f"""
SELECT ({_BUSY}) + (SELECT count(*) {_ASKED_FOR} WHERE state = 'processing')
"""
# A charge or refund without an answer is asked after a minute later, a mail's event awaited for half an
# hour, a draft reviewed for an hour: here that time has passed at once.
_LATER_REVIEWS = """
UPDATE invoices SET review_ends_at = now() WHERE review_ends_at > now() AND status = 'draft'
"""
_LATER_MAILS = """
UPDATE jobs SET run_at = now() WHERE kind = 'send_mail' AND state = 'scheduled'
"""
_LATER_CHARGES = """
UPDATE payment_attempts SET next_ask_at = now() WHERE state IN ('pending', 'unknown')
"""
_LATER_EVENTS = """
UPDATE jobs SET run_at = now() WHERE kind = 'handle_payment_event' AND state = 'scheduled'
"""
_LATER_REFUNDS = """
UPDATE refunds SET next_ask_at = now() WHERE state IN ('pending', 'unknown')
"""
_OVERDUE = """
SELECT id FROM jobs WHERE state = 'running' AND lease_expires_at < now() - interval '5 seconds'
"""
_LAST = """
SELECT concat(kind, ': ', string_agg(
           concat(outcome, ' ', job_attempts.started_at::time(0), '-', ended_at::time(0),
                  ' ' || (job_attempts.error ->> 'message')),
           ', ' ORDER BY job_attempts.started_at))
  FROM (SELECT id, kind FROM jobs WHERE finished_at IS NOT NULL
         ORDER BY finished_at DESC LIMIT 1) AS last
  JOIN job_attempts ON job_id = last.id GROUP BY last.id, kind
"""
_DEAD = "SELECT count(*) FROM jobs WHERE state = 'dead'"


def settle(
    engine: Engine,
    stripe: StripeSandboxControl,
    sendgrid: SendGridControl,
    report: Report,
    *,
    after: Sequence[Callable[[], None]],
    lasting: Sequence[float],
    within: float = FINISH_WITHIN_SECONDS,
) -> None:
    """Wait until all accepted work has ended, replay what is dead, and let days pass.

    Faults go on until the last of ``lasting``. ``after`` is done when everything else has ended.
    Nothing is waited for longer than ``within``.
    """
    last_fault_over = max([time.monotonic(), *lasting])
    overdue: set[UUID] = set()

    def all_ended() -> bool:
        overdue.update(_ids(engine, _OVERDUE))
        return _count(engine, _BUSY) == 0

    ended = _until(all_ended, within)
    report.settled_seconds = max(0.0, time.monotonic() - last_fault_over)
    with engine.connect() as connection:
        report.last = connection.execute(text(_LAST)).scalar_one()
    report.violations += [f"job {job} ran past its lease and the sweep" for job in overdue]
    if not ended:
        return
    _replay(engine, report, within)
    if _do(engine, _LATER_REVIEWS):
        with Session(engine) as session, session.begin():
            run_schedule(session, "finalize-due-reviews", "chaos")
        _until_idle(engine, within)
    if _do(engine, _LATER_MAILS):
        _until_idle(engine, within)
    if _do(engine, _LATER_CHARGES) + _do(engine, _LATER_REFUNDS):
        _until(lambda: _count(engine, _UNSETTLED) == 0, within)
    for act in after:
        act()

    def nothing_moves() -> bool:
        # What an event tells of a payment may be told before the payment is.
        _do(engine, _LATER_EVENTS)
        return _count(engine, _UNDER_WAY) == 0

    # A debit that settles has its client's next one made, and each makes events; so does a mail.
    _until(lambda: nothing_moves() and all_told(stripe, sendgrid) and nothing_moves(), within)


def reconcile(engine: Engine, accounts: Sequence[UUID], *, within: float) -> None:
    """Have all that happened compared with Stripe's record, once more after the last event."""
    with Session(engine) as session, session.begin():
        now = database_now(session)
        for account_id in accounts:
            request_reconciliation(
                session, account_id, window_since(None, now=now), requested_by=LAST
            )
    _until_idle(engine, within)


def _replay(engine: Engine, report: Report, within: float) -> None:
    """Replay every dead job, twice at the same time: each is made ready once."""
    dead = _count(engine, _DEAD)

    def replay(_: int) -> int:
        with engine.begin() as connection:
            return job_ledger.replay(connection, DeadJobs())

    with ThreadPoolExecutor(2) as threads:
        report.replayed = sum(threads.map(replay, range(2)))
    if report.replayed > dead:
        report.violations.append(f"{dead} dead jobs were replayed {report.replayed} times")
    _until_idle(engine, within)


def _until_idle(engine: Engine, within: float) -> None:
    _until(lambda: _count(engine, _BUSY) == 0, within)


def _until(condition: Callable[[], bool], within: float) -> bool:
    """Wait, with a limit; what is not done by then shows as a broken promise."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _ids(engine: Engine, statement: str) -> list[UUID]:
    with engine.connect() as connection:
        return list(connection.execute(text(statement)).scalars())


def _count(engine: Engine, statement: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(statement)).scalar_one())


def _do(engine: Engine, statement: str) -> int:
    with engine.begin() as connection:
        return connection.execute(text(statement)).rowcount
