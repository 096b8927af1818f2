from datetime import timedelta

from sqlalchemy.orm import Session

from billing.job_states import JobState
from models.database import database_now
from tasks.audits import audit_books
from tasks.enqueueing import enqueue
from tasks.operating import pause_queue
from tasks.queue_reports import COUNTED, queue_reports


def test_an_empty_queue_counts_nothing_in_every_state(session: Session) -> None:
    reports = queue_reports(session)

    assert [report.name for report in reports] == ["billing", "mail", "ops", "payments"]
    assert all(report.jobs == dict.fromkeys(COUNTED, 0) for report in reports)
    assert all(report.oldest_ready_age_seconds == 0 for report in reports)


def test_waiting_jobs_are_counted_where_they_wait(session: Session) -> None:
    later = database_now(session) + timedelta(hours=1)
    enqueue(session, audit_books, account_id=None, requested_by="test")
    enqueue(session, audit_books, account_id=None, requested_by="test", run_at=later)
    pause_queue(session, "ops", "ada")

    [ops] = [report for report in queue_reports(session) if report.name == "ops"]

    assert (ops.jobs[JobState.READY], ops.jobs[JobState.SCHEDULED]) == (1, 1)
    assert ops.oldest_ready_age_seconds > 0
    assert ops.paused_by == "ada"
