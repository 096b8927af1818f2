"""Voiding: a finalized invoice no longer requires payment."""

from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.cycles import local_date
from billing.errors import RuleViolation
from billing.invoice_states import InvoiceEvent, InvoiceStatus, transition
from billing.postings import LedgerEvent, postings_for_voiding
from models import Account, Invoice
from tasks.credit_balances import CreditMove, move_credit
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome
from tasks.posting import Entry, post
from tasks.withdrawing import lock_invoice, withdraw_first


@job(queue="billing", subject="invoice")
def void_invoice(run: Run, session: Session, invoice_id: UUID) -> Outcome:
    """Void an open invoice: reversed in the books today, and the credit it had used given back.

    Its charges stay with it.
    """
    invoice = lock_invoice(session, run, invoice_id)
    require_voidable(invoice)
    waits = withdraw_first(session, run, invoice)
    if waits is not None:
        return waits
    account = session.get_one(Account, invoice.account_id)
    invoice.apply(InvoiceEvent.VOID, run.now)
    session.flush()
    post(
        session,
        LedgerEvent.VOID,
        [
            Entry(
                account_id=account.id,
                client_id=invoice.client_id,
                currency=invoice.currency,
                effective_on=local_date(run.now, ZoneInfo(account.time_zone)),
                invoice_id=invoice_id,
                postings=postings_for_voiding(invoice.total, invoice.credit_applied),
            )
        ],
    )
    if invoice.credit_applied:
        returned = CreditMove(
            account_id=account.id,
            client_id=invoice.client_id,
            currency=invoice.currency,
            kind=CreditEntryKind.RETURNED,
            amount=invoice.credit_applied,
            invoice_id=invoice_id,
            requested_by=run.requested_by,
        )
        move_credit(session, [returned])
    return Done({"invoice": str(invoice_id), "credit_returned": invoice.credit_applied})


def require_voidable(invoice: Invoice) -> None:
    """Check that an invoice may be voided, but for charges under way.

    Raises:
        IllegalTransition: It is not open (``invoice_not_open``).
        RuleViolation: Money was received for it (``invoice_partly_paid``).
    """
    transition(InvoiceStatus(invoice.status), InvoiceEvent.VOID)
    if invoice.amount_paid:
        raise RuleViolation("invoice_partly_paid", "money was received for this invoice already")
