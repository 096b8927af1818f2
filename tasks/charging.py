"""Charging an invoice's card on demand."""

from functools import partial
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.collection import Origin
from billing.errors import IllegalTransition, RuleViolation
from billing.invoice_states import InvoiceStatus
from models import BillingMethod, Invoice, PaymentAttempt
from tasks.attempts import as_result, ask_for, begin_attempt, is_to_ask_again, withdraw
from tasks.calls import Step
from tasks.collecting import wake_collection
from tasks.kinds import Run, job
from tasks.merchants import card_of, why_no_card
from tasks.outcomes import Done, Skip
from tasks.tried_cards import require_tries_left
from tasks.withdrawing import lock_invoice, require_no_payment_in_flight


@job(queue="payments", subject="invoice")
def charge_invoice(run: Run, session: Session, invoice_id: UUID) -> Step:
    """Charge the client's card for what is due, as staff asked: it uses up no scheduled try."""
    invoice = lock_invoice(session, run, invoice_id)
    own = session.scalar(select(PaymentAttempt).where(PaymentAttempt.job_id == run.job_id))
    if own is not None:
        if is_to_ask_again(run, own):
            return ask_for(session, run, own, partial(_ended, run, invoice_id))
        return Done(as_result(own))
    require_open(InvoiceStatus(invoice.status))
    waiting = require_no_payment_in_flight(session, invoice_id)
    if waiting is not None:
        # Checked first: without another try, what waits for the client goes on waiting.
        method = require_billing_method(session, invoice.client_id)
        require_tries_left(session, invoice, method, now=run.now)
        return withdraw(session, run, waiting, partial(_withdrawn, run, invoice_id))
    return _begin(run, session, invoice)


def require_open(status: InvoiceStatus, event: str = "charge") -> None:
    """Check that an invoice can be paid; ``event`` is how, for the message.

    Raises:
        IllegalTransition: It is not open (``invoice_not_open``).
    """
    if status != InvoiceStatus.OPEN:
        raise IllegalTransition(status, event)


def require_billing_method(session: Session, client_id: UUID) -> BillingMethod:
    """The client's card.

    Raises:
        RuleViolation: It has none, or one of another Stripe account (``no_billing_method``).
    """
    method = card_of(session, client_id)
    if method is None:
        raise RuleViolation("no_billing_method", why_no_card(session, client_id))
    return method


def _begin(run: Run, session: Session, invoice: Invoice) -> Step:
    method = require_billing_method(session, invoice.client_id)
    ended = partial(_ended, run, invoice.id)
    return begin_attempt(session, run, invoice, method, origin=Origin.STAFF, ended=ended)


def _withdrawn(
    run: Run, invoice_id: UUID, session: Session, _attempt: PaymentAttempt | None
) -> Step:
    """Go on once what waited for the client is withdrawn; it may have been paid meanwhile.

    A refusal is returned and not raised: what Stripe said of the other attempt is kept.
    """
    try:
        return _begin_alone(run, session, lock_invoice(session, run, invoice_id))
    except RuleViolation as refusal:
        return Skip(refusal.code, refusal.message)


def _begin_alone(run: Run, session: Session, invoice: Invoice) -> Step:
    require_open(InvoiceStatus(invoice.status))
    if require_no_payment_in_flight(session, invoice.id) is not None:
        raise RuleViolation("payment_in_flight", "the client is about to pay this invoice")
    return _begin(run, session, invoice)


def _ended(run: Run, invoice_id: UUID, session: Session, attempt: PaymentAttempt | None) -> Step:
    if attempt is None:
        return Done({"invoice": str(invoice_id), "state": "carried"})
    wake_collection(session, [attempt.client_id], now=run.now, requested_by=f"job:{run.job_id}")
    return Done(as_result(attempt))
