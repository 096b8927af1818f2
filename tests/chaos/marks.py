"""A kind of job whose effects can be counted, and that takes long enough to be caught at it.

It leaves one mark when it begins and one when it ends, around a wait without a transaction, as
around a vendor's call. Nothing in the table keeps it from leaving them twice.
"""

import time
from collections.abc import Iterator

from sqlalchemy import text
from sqlalchemy.orm import Session

from models.job_ledger import NewJob
from tasks.calls import Call, Step
from tasks.kinds import Run, job
from tasks.outcomes import Done

MARKS_KIND = "leave_marks"

_CREATE = "CREATE TABLE chaos_marks (job_id uuid NOT NULL, part text NOT NULL, attempt int)"
_LEAVE = "INSERT INTO chaos_marks VALUES (:job_id, :part, :attempt)"
_WRONG = """
SELECT jobs.id, state, count(*) FILTER (WHERE part = 'end') AS ends,
       count(*) FILTER (WHERE part = 'beginning') AS beginnings,
       count(DISTINCT chaos_marks.attempt) FILTER (WHERE part = 'beginning') AS begun
  FROM jobs LEFT JOIN chaos_marks ON job_id = jobs.id WHERE kind = :kind GROUP BY jobs.id
HAVING count(*) FILTER (WHERE part = 'end') <> (state = 'succeeded')::int
    OR count(*) FILTER (WHERE part = 'beginning')
       <> count(DISTINCT chaos_marks.attempt) FILTER (WHERE part = 'beginning')
"""


def register() -> None:
    """Have this process know the kind."""

    @job(queue="ops")
    def leave_marks(run: Run, session: Session, *, seconds: float) -> Step:
        _leave(session, run, "beginning")

        def record(session: Session, _answer: None) -> Step:
            _leave(session, run, "end")
            return Done({"seconds": seconds})

        return Call(lambda _gateways: time.sleep(seconds), record)


def marks_job(seconds: float) -> NewJob:
    """One that takes so long, besides what breaks it."""
    return NewJob(
        kind=MARKS_KIND,
        queue="ops",
        args={"seconds": seconds},
        max_attempts=3,
        requested_by="chaos",
    )


def create_table(session: Session) -> None:
    """Make room for the marks."""
    session.execute(text(_CREATE))


def wrong_marks(session: Session) -> Iterator[str]:
    """Each job that did not do exactly once what it says it did."""
    for row in session.execute(text(_WRONG), {"kind": MARKS_KIND}):
        yield (
            f"job {row.id} is {row.state} and ended {row.ends} times;"
            f" {row.begun} of its runs committed {row.beginnings} beginnings"
        )


def _leave(session: Session, run: Run, part: str) -> None:
    mark = {"job_id": run.job_id, "part": part, "attempt": run.attempt}
    session.execute(text(_LEAVE), mark)
