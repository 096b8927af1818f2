"""Attempts in the way of what staff want: those that wait for the client are withdrawn first."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.collection import UNSETTLED, AttemptState, Origin
from billing.dunning import next_try
from billing.errors import NotFound, RuleViolation
from models import Account, Client, Invoice, Job, PaymentAttempt
from models.client import clients_for_update
from models.invoice import invoices_for_update
from models.payment_attempt import open_attempts_of
from models.refund import unsettled_refund_of
from tasks.attempt_locks import lock_attempt
from tasks.attempts import as_result, withdraw
from tasks.calls import Step
from tasks.enqueueing import enqueue
from tasks.kinds import Run, job
from tasks.outcomes import AwaitChildren, Done, Skip


def lock_invoice(session: Session, run: Run, invoice_id: UUID) -> Invoice:
    """An invoice of the job's account under its client's lock and its own, in that order.

    Raises:
        NotFound: The account has no such invoice.
    """
    client_id = session.scalar(
        select(Invoice.client_id).where(
            Invoice.id == invoice_id, Invoice.account_id == run.account_id
        )
    )
    if client_id is None:
        raise NotFound("invoice", str(invoice_id))
    session.scalars(clients_for_update([client_id])).one()
    invoice = session.scalars(invoices_for_update([invoice_id])).one_or_none()
    if invoice is None:
        # Deleted while this waited for its client.
        raise NotFound("invoice", str(invoice_id))
    return invoice


def require_no_payment_in_flight(session: Session, invoice_id: UUID) -> PaymentAttempt | None:
    """Check that no money may be moving for an invoice.

    Returns:
        Its attempt that waits for the client, if there is one: it has to be withdrawn first.

    Raises:
        RuleViolation: A charge is not settled (``payment_in_flight``), or a refund
            (``refund_in_flight``).
    """
    refund = session.scalars(unsettled_refund_of(invoice_id)).one_or_none()
    if refund is not None:
        raise RuleViolation(
            "refund_in_flight",
            f"a refund of this invoice is {refund.state}: wait until it is settled",
        )
    attempt = session.scalars(open_attempts_of([invoice_id])).one_or_none()
    if attempt is not None and attempt.state in UNSETTLED:
        raise RuleViolation(
            "payment_in_flight",
            f"a charge of this invoice is {attempt.state}: wait until it is settled",
        )
    return attempt


def withdraw_first(session: Session, run: Run, invoice: Invoice) -> AwaitChildren | None:
    """Have what waits for the client cancelled at Stripe; ``None`` when nothing is in the way.

    The job that asks is run again once that is done.

    Raises:
        RuleViolation: A charge is not settled, or cannot be withdrawn (``payment_in_flight``); or a
            refund is not (``refund_in_flight``).
    """
    attempt = require_no_payment_in_flight(session, invoice.id)
    if attempt is None:
        return None
    tried = session.scalar(
        select(Job.id).where(
            Job.parent_id == run.job_id,
            Job.kind == withdraw_attempt.name,
            Job.args["attempt_id"].astext == str(attempt.id),
            Job.finished_at.is_not(None),
        )
    )
    if tried is not None:
        raise RuleViolation(
            "payment_in_flight", f"attempt {attempt.id} waits for the client and was not withdrawn"
        )
    keep_trying(session, run, invoice, attempt)
    enqueue(
        session,
        withdraw_attempt,
        account_id=invoice.account_id,
        requested_by=f"job:{run.job_id}",
        parent_id=run.job_id,
        attempt_id=attempt.id,
    )
    return AwaitChildren(1)


def keep_trying(session: Session, run: Run, invoice: Invoice, attempt: PaymentAttempt) -> None:
    """Have what is still due after a withdrawal tried again: nobody can authenticate this one then."""
    if attempt.origin != Origin.AUTOMATIC or invoice.next_attempt_at is not None:
        return
    account = session.get_one(Account, invoice.account_id)
    zone = session.get_one(Client, invoice.client_id).zone(account)
    invoice.next_attempt_at = next_try(run.now, invoice.failures + 1, zone, account.dunning_days)


@job(queue="payments")
def withdraw_attempt(run: Run, session: Session, attempt_id: UUID) -> Step:
    """Cancel an attempt that waits for the client, at Stripe and here."""
    attempt = lock_attempt(session, attempt_id)
    if attempt.state != AttemptState.NEEDS_ACTION:
        return Skip("attempt_settled", f"the attempt is {attempt.state}")
    return withdraw(
        session, run, attempt, lambda _session, ended: Done(as_result(ended or attempt))
    )
