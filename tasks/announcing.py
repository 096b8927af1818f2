"""Announcing an invoice again, because staff ask for it."""

from uuid import UUID

from sqlalchemy.orm import Session

from billing.errors import RuleViolation
from billing.invoice_states import InvoiceStatus
from models import Account, Client, Invoice
from tasks.kinds import Run, job
from tasks.mailing import announce_invoice
from tasks.outcomes import Done, Outcome
from tasks.withdrawing import lock_invoice

_NOT_TOLD = frozenset({InvoiceStatus.DRAFT, InvoiceStatus.VOID})


@job(queue="billing", subject="invoice")
def send_invoice(run: Run, session: Session, invoice_id: UUID) -> Outcome:
    """Mail an invoice to its client once more, whatever is switched off."""
    invoice = lock_invoice(session, run, invoice_id)
    client = session.get_one(Client, invoice.client_id)
    require_sendable(invoice, client)
    mails = announce_invoice(
        session,
        session.get_one(Account, invoice.account_id),
        invoice_id,
        requested_by=run.requested_by,
        wanted_by_staff=True,
    )
    return Done({"invoice": str(invoice_id), "mails": [str(mail) for mail in mails]})


def require_sendable(invoice: Invoice, client: Client) -> None:
    """Check that there is something to tell, and somebody to tell it to.

    Raises:
        RuleViolation: The invoice is a draft or void (``invoice_not_open``), asks for nothing
            (``nothing_to_send``), or the client has no address (``no_email``).
    """
    if invoice.status in _NOT_TOLD:
        raise RuleViolation(
            "invoice_not_open", f"an invoice that is {invoice.status} is not sent to its client"
        )
    if invoice.total <= 0:
        raise RuleViolation("nothing_to_send", "the invoice asks for nothing")
    if not client.email:
        raise RuleViolation("no_email", "the client has no email address")
