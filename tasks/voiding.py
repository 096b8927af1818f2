"""Voiding: a finalized invoice no longer requires payment."""

from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from billing.cycles import local_date
from billing.errors import NotFound
from billing.invoice_states import InvoiceEvent
from billing.postings import LedgerEvent, postings_for_voiding
from models import Account, Invoice
from models.invoice import invoices_for_update
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome
from tasks.posting import InvoiceEntry, post


@job(queue="billing", subject="invoice")
def void_invoice(run: Run, session: Session, invoice_id: UUID) -> Outcome:
    """Void an open invoice: reversed in the books today. Its charges stay with it."""
    find = invoices_for_update([invoice_id]).where(Invoice.account_id == run.account_id)
    invoice = session.scalars(find).one_or_none()
    if invoice is None:
        raise NotFound("invoice", str(invoice_id))
    account = session.get_one(Account, invoice.account_id)
    invoice.apply(InvoiceEvent.VOID, run.now)
    session.flush()
    today = local_date(run.now, ZoneInfo(account.time_zone))
    post(
        session,
        LedgerEvent.VOID,
        [InvoiceEntry(invoice_id, today, postings_for_voiding(invoice.total))],
    )
    return Done({"invoice": str(invoice_id)})
