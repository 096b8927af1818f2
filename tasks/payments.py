"""Money received: written down once, applied to what is due, and booked."""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.errors import InvalidInput
from billing.invoice_states import InvoiceEvent, InvoiceStatus
from billing.outside_payments import OutsideMethod
from billing.postings import LedgerAccount, LedgerEvent, postings_for_payment
from models import Account, Invoice, Payment, PaymentAttempt, PaymentSource
from tasks.bad_debt import recover
from tasks.credit_balances import CreditMove, apply_credit, move_credit
from tasks.posting import Entry, post

_log = structlog.get_logger(__name__)

_RECEIVED_BY = {
    PaymentSource.CARD: LedgerAccount.STRIPE,
    PaymentSource.OUTSIDE: LedgerAccount.OUTSIDE,
}

ANOTHER_AMOUNT = "another_amount"
"""The flag of a payment of another amount than its attempt asked for."""

_PAYABLE = frozenset({InvoiceStatus.OPEN, InvoiceStatus.UNCOLLECTIBLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """Money that came in, in ``currency``'s minor units, for an invoice or ahead of any.

    ``excess`` is what becomes credit of what no invoice takes, and ``applies_credit`` whether the
    client's other open invoices use that at once. ``flagged`` says why a person should look.
    """

    client_id: UUID
    currency: str
    amount: int
    source: PaymentSource
    paid_on: date
    event: LedgerEvent
    excess: CreditEntryKind
    requested_by: str
    method: OutsideMethod | None = None
    attempt_id: UUID | None = None
    reference: str | None = None
    note: str | None = None
    flagged: str | None = None
    applies_credit: bool = True


def require_some(amount: int) -> None:
    """Check that an amount of money is one: what is taken away has commands of its own.

    Raises:
        InvalidInput: ``amount`` is not above zero.
    """
    if amount <= 0:
        raise InvalidInput("amount", "must be above zero")


def flag_of_amount(attempt: PaymentAttempt, amount: int) -> str | None:
    """Why a person should look at what came of an attempt: it is not what was asked for."""
    if amount == attempt.amount:
        return None
    _log.error(
        "payment of another amount than asked for",
        attempt=str(attempt.id),
        amount=amount,
        asked=attempt.amount,
    )
    return ANOTHER_AMOUNT


def receive(
    session: Session,
    account: Account,
    received: Received,
    *,
    invoice: Invoice | None,
    now: datetime,
) -> Payment:
    """Write a payment down: what is due of ``invoice`` is settled, the rest becomes credit.

    So is what was written off of it: that is recovered first. The caller holds the client's lock
    and the invoice's.
    """
    applied = 0
    if invoice is not None and invoice.status in _PAYABLE:
        applied = min(received.amount, invoice.outstanding)
        settles = applied == invoice.outstanding
        recovered = min(applied, invoice.amount_written_off)
        invoice.amount_paid += applied
        invoice.amount_written_off -= recovered
        if settles:
            invoice.apply(InvoiceEvent.PAY, now)
        recover(session, invoice, recovered, effective_on=received.paid_on)
    payment = Payment(
        account_id=account.id,
        client_id=received.client_id,
        invoice_id=None if invoice is None else invoice.id,
        attempt_id=received.attempt_id,
        source=received.source,
        method=received.method,
        currency=received.currency,
        amount=received.amount,
        applied=applied,
        paid_on=received.paid_on,
        reference=received.reference,
        note=received.note,
        flagged=received.flagged,
        requested_by=received.requested_by,
        created_at=now,
    )
    session.add(payment)
    session.flush()
    post(
        session,
        received.event,
        [
            Entry(
                account_id=account.id,
                client_id=received.client_id,
                currency=received.currency,
                effective_on=received.paid_on,
                invoice_id=payment.invoice_id,
                payment_id=payment.id,
                postings=postings_for_payment(
                    _RECEIVED_BY[received.source], received.amount, applied
                ),
            )
        ],
    )
    if applied < received.amount:
        _keep_as_credit(session, account, received, payment, now=now)
    return payment


def _keep_as_credit(
    session: Session, account: Account, received: Received, payment: Payment, *, now: datetime
) -> None:
    move_credit(
        session,
        [
            CreditMove(
                account_id=account.id,
                client_id=received.client_id,
                currency=received.currency,
                kind=received.excess,
                amount=payment.amount - payment.applied,
                invoice_id=payment.invoice_id,
                payment_id=payment.id,
                note=received.note,
                requested_by=received.requested_by,
            )
        ],
    )
    if received.applies_credit:
        apply_credit(
            session,
            account,
            [received.client_id],
            currency=received.currency,
            now=now,
            requested_by=received.requested_by,
        )
