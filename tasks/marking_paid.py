"""Mark as paid: money for an invoice that came in some other way than through Stripe."""

from datetime import date
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.cycles import local_date
from billing.errors import InvalidInput
from billing.invoice_states import InvoiceStatus
from billing.outside_payments import OutsideMethod
from billing.postings import LedgerEvent
from models import Account, Client, Invoice, PaymentSource
from tasks.charging import require_open
from tasks.closing import require_open_books
from tasks.kinds import Run, job
from tasks.mailing import tell_receipt
from tasks.outcomes import Done, Outcome
from tasks.payments import Received, receive, require_some
from tasks.withdrawing import lock_invoice, withdraw_first


@job(queue="billing", subject="invoice")
def mark_invoice_paid(
    run: Run,
    session: Session,
    *,
    invoice_id: UUID,
    amount: int | None = None,
    method: OutsideMethod = OutsideMethod.OTHER,
    reference: str | None = None,
    paid_on: date | None = None,
    note: str | None = None,
    overpayment: str | None = None,
) -> Outcome:
    """Record an outside payment of what is due, or of a part of it, as of today or an earlier day.

    Of what was written off of an uncollectible invoice, it is a recovery.
    """
    invoice = lock_invoice(session, run, invoice_id)
    account = session.get_one(Account, invoice.account_id)
    today = local_date(run.now, ZoneInfo(account.time_zone))
    require_owed(InvoiceStatus(invoice.status))
    require_payable(invoice, amount, paid_on, today=today, overpayment=overpayment)
    require_open_books(session, account.id, "paid_on", paid_on)
    waits = withdraw_first(session, run, invoice)
    if waits is not None:
        return waits
    payment = receive(
        session,
        account,
        Received(
            client_id=invoice.client_id,
            currency=invoice.currency,
            amount=invoice.outstanding if amount is None else amount,
            source=PaymentSource.OUTSIDE,
            paid_on=paid_on or today,
            event=LedgerEvent.OUTSIDE_PAYMENT,
            excess=CreditEntryKind.OVERPAYMENT,
            requested_by=run.requested_by,
            method=method,
            reference=reference,
            note=note,
        ),
        invoice=invoice,
        now=run.now,
    )
    client = session.get_one(Client, invoice.client_id)
    tell_receipt(session, account, client, payment, requested_by=f"job:{run.job_id}")
    return Done({"invoice": str(invoice_id), "payment": str(payment.id)})


def require_owed(status: InvoiceStatus) -> None:
    """Check that money is owed for an invoice, whether or not it is still asked for.

    Raises:
        IllegalTransition: It is neither open nor uncollectible (``invoice_not_open``).
    """
    if status != InvoiceStatus.UNCOLLECTIBLE:
        require_open(status, "mark as paid")


def require_payable(
    invoice: Invoice,
    amount: int | None,
    paid_on: date | None,
    *,
    today: date,
    overpayment: str | None,
) -> None:
    """Check what a payment says against what is due, or was written off.

    Raises:
        InvalidInput: ``amount`` is nothing, or above what is due and the rest was not said to be
            credit (``amount_exceeds_due``); or ``paid_on`` is still to come.
    """
    if amount is not None:
        require_some(amount)
    if amount is not None and amount > invoice.outstanding and overpayment != "credit":
        raise InvalidInput(
            "amount",
            f"is more than the {invoice.outstanding} that are due: send overpayment credit to "
            "keep the rest as credit",
            code="amount_exceeds_due",
        )
    if paid_on is not None and paid_on > today:
        raise InvalidInput("paid_on", f"must not be after today, {today}")
