from uuid import UUID

from sqlalchemy.orm import Session

from models import Account, Job
from tasks.audits import audit_books
from tasks.enqueueing import enqueue
from tasks.job_reports import MAX_CHILDREN_LISTED, full_job_report, job_report
from tasks.voiding import void_invoice

INVOICE = UUID("019ae8a3-5c00-7000-8000-000000000003")


def the_job(session: Session, job_id: UUID) -> Job:
    return session.get_one(Job, job_id)


def test_a_job_of_the_system_has_no_subject(session: Session) -> None:
    enqueued = enqueue(session, audit_books, account_id=None, requested_by="test")

    report = job_report(the_job(session, enqueued.id))

    assert report["subject"] is None
    assert report["links"] == {"self": f"/v1/jobs/{enqueued.id}"}
    assert report["created_at"].endswith("Z")
    assert report["finished_at"] is None


def test_a_job_links_what_it_works_on(session: Session, account: Account) -> None:
    enqueued = enqueue(
        session, void_invoice, account_id=account.id, requested_by="test", invoice_id=INVOICE
    )

    report = job_report(the_job(session, enqueued.id))

    assert report["subject"] == {"type": "invoice", "id": str(INVOICE)}
    assert report["links"]["subject"] == f"/v1/invoices/{INVOICE}"


def test_of_many_children_the_oldest_are_listed(session: Session) -> None:
    parent = enqueue(session, audit_books, account_id=None, requested_by="test").id
    children = [
        enqueue(session, audit_books, account_id=None, requested_by="test", parent_id=parent).id
        for _ in range(MAX_CHILDREN_LISTED + 1)
    ]

    report = full_job_report(session, the_job(session, parent))

    assert [child["id"] for child in report["children"]] == [str(id_) for id_ in children[:-1]]
    assert report["attempts"] == []
