"""What is due by itself at cards: tries, and questions after what has no answer yet."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from models import PaymentAttempt, Refund
from tasks.card_refunds import resolve_refund
from tasks.collecting import MAX_FOUND_AT_ONCE, due_to_collect, start_collections
from tasks.enqueueing import enqueue_for_each
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome
from tasks.resolving import resolve_attempt


@job(queue="payments")
def collect_due(run: Run, session: Session) -> Outcome:
    """Find what is due by itself, and enqueue a job for each client and each question."""
    asked_by = f"job:{run.job_id}"
    open_questions = session.execute(
        select(PaymentAttempt.account_id, PaymentAttempt.id)
        .where(PaymentAttempt.next_ask_at <= run.now)
        .order_by(PaymentAttempt.next_ask_at)
        .limit(MAX_FOUND_AT_ONCE)
    ).all()
    enqueue_for_each(
        session,
        resolve_attempt,
        [(account_id, {"attempt_id": attempt_id}) for account_id, attempt_id in open_questions],
        requested_by=asked_by,
        unique_key=lambda arguments: f"attempt:{arguments['attempt_id']}",
    )
    open_refunds = session.execute(
        select(Refund.account_id, Refund.id)
        .where(Refund.next_ask_at <= run.now)
        .order_by(Refund.next_ask_at)
        .limit(MAX_FOUND_AT_ONCE)
    ).all()
    enqueue_for_each(
        session,
        resolve_refund,
        [(account_id, {"refund_id": refund_id}) for account_id, refund_id in open_refunds],
        requested_by=asked_by,
        unique_key=lambda arguments: f"refund:{arguments['refund_id']}",
    )
    clients = start_collections(session, due_to_collect(run.now), requested_by=asked_by)
    return Done({"attempts": len(open_questions), "refunds": len(open_refunds), "clients": clients})
