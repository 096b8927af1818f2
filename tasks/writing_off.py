"""Writing off: staff give up what is due of an invoice."""

from uuid import UUID

from sqlalchemy.orm import Session

from billing.invoice_states import InvoiceEvent, InvoiceStatus, transition
from models import Account, Invoice
from tasks.bad_debt import write_off
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome
from tasks.withdrawing import lock_invoice, withdraw_first


@job(queue="billing", subject="invoice")
def write_off_invoice(run: Run, session: Session, invoice_id: UUID) -> Outcome:
    """Write off what is due of an open invoice: nothing is tried any more, and money is welcome."""
    invoice = lock_invoice(session, run, invoice_id)
    require_open_debt(invoice)
    waits = withdraw_first(session, run, invoice)
    if waits is not None:
        return waits
    account = session.get_one(Account, invoice.account_id)
    amount = write_off(session, account, invoice, now=run.now)
    return Done({"invoice": str(invoice_id), "written_off": amount})


def require_open_debt(invoice: Invoice) -> None:
    """Check that an invoice may be written off, but for charges under way.

    Raises:
        IllegalTransition: It is not open (``invoice_not_open``).
    """
    transition(InvoiceStatus(invoice.status), InvoiceEvent.WRITE_OFF)
