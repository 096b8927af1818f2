"""Bad debt: what is given up of an invoice, and what comes back of that."""

from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from billing.cycles import local_date
from billing.invoice_states import InvoiceEvent
from billing.postings import LedgerEvent, postings_for_writing_off, reversed_postings
from models import Account, Invoice
from tasks.posting import Entry, post


def write_off(session: Session, account: Account, invoice: Invoice, *, now: datetime) -> int:
    """Give up what is due of an open invoice, as of today; how much, in minor units.

    The caller holds the client's lock and the invoice's, and knows that no charge is under way.
    """
    amount = invoice.amount_due
    invoice.amount_written_off = amount
    invoice.apply(InvoiceEvent.WRITE_OFF, now)
    session.flush()
    post(
        session,
        LedgerEvent.WRITE_OFF,
        [
            Entry(
                account_id=account.id,
                client_id=invoice.client_id,
                currency=invoice.currency,
                effective_on=local_date(now, ZoneInfo(account.time_zone)),
                invoice_id=invoice.id,
                postings=postings_for_writing_off(amount),
            )
        ],
    )
    return amount


def recover(session: Session, invoice: Invoice, amount: int, *, effective_on: date) -> None:
    """Book ``amount`` of what was written off as owed again, if any: it is paid, credited or voided now.

    The caller has lowered ``amount_written_off`` by it.
    """
    post(
        session,
        LedgerEvent.RECOVERY,
        [
            Entry(
                account_id=invoice.account_id,
                client_id=invoice.client_id,
                currency=invoice.currency,
                effective_on=effective_on,
                invoice_id=invoice.id,
                postings=reversed_postings(postings_for_writing_off(amount)),
            )
        ],
    )
