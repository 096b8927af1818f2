"""What takes back, gives back or gives up money, written down as the rules say: row by row.

No command is used, so that what reads these rows is tested whoever writes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from uuid import UUID, uuid4

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.credit_notes import Destination
from billing.invoice_states import InvoiceEvent, InvoiceStatus
from billing.number_formats import DocumentType
from billing.outside_payments import OutsideMethod
from billing.postings import (
    LedgerAccount,
    LedgerEvent,
    Posting,
    postings_for_credit_note,
    postings_for_failed_refund,
    postings_for_granting,
    postings_for_paying_out_credit,
    postings_for_payment,
    postings_for_refund,
    postings_for_voiding,
    postings_for_writing_off,
    reversed_postings,
)
from billing.refunds import RefundState
from models import (
    Account,
    Client,
    CreditGrant,
    CreditNote,
    Invoice,
    Payment,
    PaymentSource,
    Refund,
)
from tasks.credit_balances import CreditMove, move_credit
from tasks.numbering import number_documents
from tasks.posting import Entry, post
from tests.worlds import NOW

TODAY = NOW.date()
BOOKED_ON = {
    Destination.CREDIT: LedgerAccount.CREDIT,
    Destination.CARD: LedgerAccount.STRIPE,
    Destination.OUTSIDE: LedgerAccount.OUTSIDE,
}


@contextmanager
def _committed(engine: Engine) -> Iterator[Session]:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


def _move(
    session: Session,
    owner: Client | Invoice,
    currency: str,
    kind: CreditEntryKind,
    amount: int,
) -> None:
    client_id = owner.id if isinstance(owner, Client) else owner.client_id
    move = CreditMove(
        account_id=owner.account_id,
        client_id=client_id,
        currency=currency,
        kind=kind,
        amount=amount,
        invoice_id=owner.id if isinstance(owner, Invoice) else None,
        requested_by="test",
    )
    if amount:
        move_credit(session, [move])


def _post(
    session: Session,
    event: LedgerEvent,
    owner: Client | Invoice,
    currency: str,
    postings: tuple[Posting, ...],
    *,
    effective_on: date = TODAY,
    **about: UUID,
) -> None:
    client_id = owner.id if isinstance(owner, Client) else owner.client_id
    entry = Entry(
        account_id=owner.account_id,
        client_id=client_id,
        currency=currency,
        effective_on=effective_on,
        postings=postings,
        invoice_id=owner.id if isinstance(owner, Invoice) else None,
        **about,
    )
    post(session, event, [entry])


def grant(engine: Engine, client: Client, amount: int, currency: str = "usd") -> UUID:
    """Promotional credit, which is kept and not used at once; its id."""
    with _committed(engine) as session:
        given = CreditGrant(
            account_id=client.account_id,
            client_id=client.id,
            currency=currency,
            amount=amount,
            remaining=amount,
            requested_by="test",
        )
        session.add(given)
        session.flush()
        _move(session, client, currency, CreditEntryKind.GRANTED, amount)
        postings = postings_for_granting(amount)
        _post(session, LedgerEvent.GRANT, client, currency, postings, grant_id=given.id)
        return given.id


def expire(engine: Engine, client: Client, grant_id: UUID, amount: int) -> None:
    """Some of a grant runs out."""
    with _committed(engine) as session:
        given = session.get_one(CreditGrant, grant_id)
        given.remaining -= amount
        _move(session, client, given.currency, CreditEntryKind.EXPIRED, -amount)
        postings = reversed_postings(postings_for_granting(amount))
        _post(session, LedgerEvent.EXPIRY, client, given.currency, postings, grant_id=grant_id)


def credit(engine: Engine, invoice_id: UUID, amount: int, to: Destination) -> CreditNote:
    """A credit note for ``amount`` of an invoice; what is over what is due goes back."""
    with _committed(engine) as session:
        invoice = session.get_one(Invoice, invoice_id)
        lowers_due = min(amount, invoice.amount_due)
        returned = amount - lowers_due
        account = session.get_one(Account, invoice.account_id)
        [number] = number_documents(session, account, DocumentType.CREDIT_NOTE, [TODAY])
        note = CreditNote(
            account_id=invoice.account_id,
            client_id=invoice.client_id,
            invoice_id=invoice.id,
            number=number.text,
            sequence=number.sequence,
            series_year=number.series_year,
            currency=invoice.currency,
            amount=amount,
            net=amount,
            tax=0,
            lowers_due=lowers_due,
            returned=returned,
            returned_to=to if returned else None,
            issued_on=TODAY,
            requested_by="test",
        )
        session.add(note)
        invoice.amount_credited += amount
        invoice.amount_refunded += returned
        if invoice.status == InvoiceStatus.OPEN and lowers_due == invoice.amount_due:
            invoice.apply(InvoiceEvent.PAY, NOW)
        session.flush()
        if to == Destination.CREDIT:
            kind = CreditEntryKind.CREDIT_NOTE
            _move(session, invoice, invoice.currency, kind, returned)
        postings = postings_for_credit_note(
            amount, {}, lowers_due=lowers_due, returned=returned, returned_to=BOOKED_ON[to]
        )
        _post(
            session,
            LedgerEvent.CREDIT_NOTE,
            invoice,
            invoice.currency,
            postings,
            credit_note_id=note.id,
        )
        return note


def refund(engine: Engine, invoice_id: UUID, amount: int, to: Destination) -> UUID:
    """A refund without a credit note, which has succeeded: the debt is there again; its id."""
    with _committed(engine) as session:
        invoice = session.get_one(Invoice, invoice_id)
        payments = select(Payment.id).where(Payment.invoice_id == invoice_id)
        given_back = _refund(invoice.client_id, invoice.account_id, invoice.currency, amount, to)
        given_back.invoice_id = invoice_id
        given_back.payment_id = session.scalars(payments).first()
        session.add(given_back)
        invoice.amount_refunded += amount
        if invoice.status == InvoiceStatus.PAID:
            invoice.apply(InvoiceEvent.REOPEN, NOW)
            invoice.auto_collect = False
        session.flush()
        if to == Destination.CREDIT:
            kind = CreditEntryKind.REFUND
            _move(session, invoice, invoice.currency, kind, amount)
        _post(
            session,
            LedgerEvent.REFUND,
            invoice,
            invoice.currency,
            postings_for_refund(BOOKED_ON[to], amount),
            refund_id=given_back.id,
        )
        return given_back.id


def give_back(engine: Engine, client: Client, refund_id: UUID) -> None:
    """The bank gives a refund back that had succeeded."""
    with _committed(engine) as session:
        failed = session.get_one(Refund, refund_id)
        failed.move(RefundState.FAILED, NOW)
        session.flush()
        kind = CreditEntryKind.REFUND_FAILED
        _move(session, client, failed.currency, kind, failed.amount)
        postings = postings_for_failed_refund(failed.amount)
        event = LedgerEvent.REFUND_FAILED
        _post(session, event, client, failed.currency, postings, refund_id=refund_id)


def pay_out(engine: Engine, client: Client, amount: int, currency: str = "usd") -> None:
    """Unused credit is paid out, from outside."""
    with _committed(engine) as session:
        paid = _refund(client.id, client.account_id, currency, amount, Destination.OUTSIDE)
        session.add(paid)
        session.flush()
        _move(session, client, currency, CreditEntryKind.PAID_OUT, -amount)
        postings = postings_for_paying_out_credit(LedgerAccount.OUTSIDE, amount)
        event = LedgerEvent.CREDIT_REFUND
        _post(session, event, client, currency, postings, refund_id=paid.id)


def _refund(
    client_id: UUID, account_id: UUID, currency: str, amount: int, to: Destination
) -> Refund:
    return Refund(
        account_id=account_id,
        client_id=client_id,
        currency=currency,
        amount=amount,
        destination=to,
        makes_note=False,
        state=RefundState.SUCCEEDED,
        job_id=uuid4(),
        idempotency_key=str(uuid4()),
        requested_by="test",
        settled_at=NOW,
    )


def write_off(engine: Engine, invoice_id: UUID) -> None:
    """All that is due of an open invoice is given up."""
    with _committed(engine) as session:
        invoice = session.get_one(Invoice, invoice_id)
        invoice.amount_written_off = invoice.amount_due
        invoice.apply(InvoiceEvent.WRITE_OFF, NOW)
        session.flush()
        postings = postings_for_writing_off(invoice.amount_written_off)
        _post(session, LedgerEvent.WRITE_OFF, invoice, invoice.currency, postings)


def recover(engine: Engine, invoice_id: UUID, amount: int, paid_on: date = TODAY) -> None:
    """Some of what was given up is paid after all, from outside."""
    with _committed(engine) as session:
        invoice = session.get_one(Invoice, invoice_id)
        _recover(session, invoice, amount, paid_on)
        invoice.amount_paid += amount
        if invoice.amount_written_off == 0:
            invoice.apply(InvoiceEvent.PAY, NOW)
        payment = Payment(
            account_id=invoice.account_id,
            client_id=invoice.client_id,
            invoice_id=invoice.id,
            source=PaymentSource.OUTSIDE,
            method=OutsideMethod.OTHER,
            currency=invoice.currency,
            amount=amount,
            applied=amount,
            paid_on=paid_on,
            requested_by="test",
        )
        session.add(payment)
        session.flush()
        _post(
            session,
            LedgerEvent.OUTSIDE_PAYMENT,
            invoice,
            invoice.currency,
            postings_for_payment(LedgerAccount.OUTSIDE, amount, amount),
            effective_on=paid_on,
            payment_id=payment.id,
        )


def void_written_off(engine: Engine, invoice_id: UUID) -> None:
    """An uncollectible invoice of which nothing was paid is voided: first it is owed again."""
    with _committed(engine) as session:
        invoice = session.get_one(Invoice, invoice_id)
        _recover(session, invoice, invoice.amount_written_off, TODAY)
        invoice.apply(InvoiceEvent.VOID, datetime.now(UTC))
        session.flush()
        returned = invoice.credit_applied
        kind = CreditEntryKind.RETURNED
        _move(session, invoice, invoice.currency, kind, returned)
        postings = postings_for_voiding(invoice.total, returned)
        _post(session, LedgerEvent.VOID, invoice, invoice.currency, postings)


def _recover(session: Session, invoice: Invoice, amount: int, on: date) -> None:
    # Before the invoice changes: posting writes down what has changed so far.
    postings = reversed_postings(postings_for_writing_off(amount))
    event = LedgerEvent.RECOVERY
    _post(session, event, invoice, invoice.currency, postings, effective_on=on)
    invoice.amount_written_off -= amount
