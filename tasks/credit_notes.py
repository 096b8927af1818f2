"""Credit notes written: the numbered document, what it does to its invoice, and its entry."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

import billing.credit_notes as rules
from billing.credit import CreditEntryKind
from billing.credit_notes import CreditedInvoice, Destination, Settlement
from billing.cycles import local_date
from billing.errors import InvalidInput
from billing.invoice_states import InvoiceEvent
from billing.number_formats import DocumentType
from billing.postings import LedgerAccount, LedgerEvent, postings_for_credit_note
from billing.tax import TaxedLine
from models import Account, CreditNote, Invoice, InvoiceLine
from tasks.amending import left_of, lowered_by_amendments, require_lines_unamended
from tasks.bad_debt import recover
from tasks.credit_balances import CreditMove, apply_credit, balance_of
from tasks.credit_returns import return_credit
from tasks.numbering import number_documents
from tasks.posting import Entry, post

PAID_FROM = {
    Destination.CREDIT: LedgerAccount.CREDIT,
    Destination.CARD: LedgerAccount.STRIPE,
    Destination.OUTSIDE: LedgerAccount.OUTSIDE,
}
"""Where money goes from that is given back."""


def credited_so_far(session: Session, invoice_id: UUID) -> CreditedInvoice:
    """A finalized invoice's lines and what its notes took of them; hold its lock, or it may change."""
    notes = session.scalars(
        select(CreditNote).where(CreditNote.invoice_id == invoice_id, ~CreditNote.voids)
    ).all()
    return CreditedInvoice(
        [
            TaxedLine(line.net, {UUID(rate): tax for rate, tax in line.taxes.items()})
            for line in _lines(session, invoice_id)
        ],
        credited=sum(note.amount for note in notes),
        # The first line of an invoice is its line 1.
        named=frozenset(position - 1 for note in notes for position in note.positions),
    )


def note_asked_for(
    session: Session, invoice: Invoice, amount: int | None, lines: Sequence[UUID] | None
) -> rules.CreditNote:
    """The note of an amount, or of the lines of these charges.

    Raises:
        InvalidInput: Neither is given, or both; or the rules take no such note of this invoice.
        RuleViolation: Nothing is left of it, or of the lines (``nothing_to_credit``,
            ``line_already_credited``), or a charge was amended (``charge_amended``).
    """
    if (amount is None) == (lines is None):
        raise InvalidInput("amount", "give either an amount or lines")
    so_far = credited_so_far(session, invoice.id)
    if amount is not None:
        note = rules.note_of_amount(so_far, amount)
        require_not_amended_away(session, invoice, amount)
        return note
    charges = [line.charge_id for line in _lines(session, invoice.id)]
    named = set(lines or ())
    if not named <= set(charges):
        raise InvalidInput("lines", "must be charges on this invoice")
    require_lines_unamended(session, sorted(named))
    return rules.note_of_lines(
        so_far, {position for position, charge in enumerate(charges) if charge in named}
    )


def require_not_amended_away(session: Session, invoice: Invoice, amount: int) -> None:
    """Check that a note may take so much of what notes and amendments have left of an invoice.

    Raises:
        InvalidInput: It may not (``amount_exceeds_invoice``).
    """
    most = left_of(invoice) - lowered_by_amendments(session, invoice)
    if amount > most:
        raise InvalidInput(
            "amount",
            f"must be at most {max(most, 0):,}: amendments of its charges take back the rest",
            code="amount_exceeds_invoice",
        )


def note_agreed(
    session: Session, invoice: Invoice, amount: int, positions: Sequence[int]
) -> rules.CreditNote:
    """A note whose money is gone: as it was asked for, or of the amount that it comes to by now."""
    so_far = credited_so_far(session, invoice.id)
    if positions:
        of_lines = rules.note_of_lines(so_far, {position - 1 for position in positions})
        if of_lines.amount == amount:
            return of_lines
    return rules.note_of_amount(so_far, amount)


def positions_of(note: rules.CreditNote) -> list[int]:
    """The lines that a note names, as they are numbered on the invoice."""
    return sorted(position + 1 for position in note.named)


def write_note(
    session: Session,
    account: Account,
    invoice: Invoice,
    note: rules.CreditNote,
    settlement: Settlement,
    *,
    to: Destination,
    reason: str | None,
    now: datetime,
    requested_by: str,
) -> CreditNote:
    """Write a note down with all that it does; what goes to credit is used at once.

    The caller holds the client's lock and the invoice's. Money that goes to a card or outside has
    gone, or goes in this transaction.
    """
    to_credit = settlement.returned if to == Destination.CREDIT else 0
    if to_credit:
        # Locked before the series, as everywhere.
        balance_of(session, invoice.client_id, invoice.currency)
    settles = settlement.lowers_due > 0 and settlement.lowers_due == invoice.outstanding
    # A note lowers a debt, so what was given up of it is one again first.
    recovered = min(settlement.lowers_due, invoice.amount_written_off)
    invoice.amount_credited += note.amount
    invoice.amount_refunded += settlement.returned
    invoice.amount_written_off -= recovered
    if settles:
        invoice.apply(InvoiceEvent.PAY, now)
    session.flush()
    written = _number(
        session,
        account,
        invoice,
        note,
        CreditNote(
            lowers_due=settlement.lowers_due,
            returned=settlement.returned,
            returned_to=to if settlement.returned else None,
            reason=reason,
            requested_by=requested_by,
            created_at=now,
        ),
        now=now,
    )
    recover(session, invoice, recovered, effective_on=written.issued_on)
    post(
        session,
        LedgerEvent.CREDIT_NOTE,
        [
            Entry(
                account_id=account.id,
                client_id=invoice.client_id,
                currency=invoice.currency,
                effective_on=written.issued_on,
                invoice_id=invoice.id,
                credit_note_id=written.id,
                postings=postings_for_credit_note(
                    note.net,
                    note.taxes,
                    lowers_due=settlement.lowers_due,
                    returned=settlement.returned,
                    returned_to=PAID_FROM[to],
                ),
            )
        ],
    )
    if to_credit:
        _give_credit(session, account, invoice, written, now=now, requested_by=requested_by)
    return written


def write_void_note(
    session: Session, account: Account, invoice: Invoice, *, now: datetime, requested_by: str
) -> CreditNote | None:
    """The document that takes back all that a voided invoice billed; the void moved the money.

    ``None`` where it billed nothing.
    """
    so_far = credited_so_far(session, invoice.id)
    if so_far.left <= 0:
        return None
    note = rules.note_of_amount(so_far, so_far.left)
    blank = CreditNote(voids=True, requested_by=requested_by, created_at=now)
    return _number(session, account, invoice, note, blank, now=now)


def _number(
    session: Session,
    account: Account,
    invoice: Invoice,
    note: rules.CreditNote,
    written: CreditNote,
    *,
    now: datetime,
) -> CreditNote:
    """Give a note its number, and write it down as the invoice's."""
    written.account_id = account.id
    written.client_id = invoice.client_id
    written.invoice_id = invoice.id
    written.currency = invoice.currency
    written.amount, written.net = note.amount, note.net
    written.tax = note.amount - note.net
    written.taxes = {str(rate): tax for rate, tax in note.taxes.items() if tax}
    written.positions = positions_of(note)
    written.bill_from, written.bill_to = invoice.bill_from, invoice.bill_to
    written.issued_on = local_date(now, ZoneInfo(account.time_zone))
    [number] = number_documents(session, account, DocumentType.CREDIT_NOTE, [written.issued_on])
    written.number, written.sequence = number.text, number.sequence
    written.series_year = number.series_year
    session.add(written)
    session.flush()
    return written


def _give_credit(
    session: Session,
    account: Account,
    invoice: Invoice,
    written: CreditNote,
    *,
    now: datetime,
    requested_by: str,
) -> None:
    # Money first: what was granted stays so, with its date, and is never money afterwards.
    refunded_before = invoice.amount_refunded - written.returned
    money = invoice.amount_paid - refunded_before - invoice.amount_lost
    return_credit(
        session,
        account,
        invoice,
        [
            CreditMove(
                account_id=account.id,
                client_id=invoice.client_id,
                currency=invoice.currency,
                kind=CreditEntryKind.CREDIT_NOTE,
                amount=written.returned,
                invoice_id=invoice.id,
                credit_note_id=written.id,
                requested_by=requested_by,
            )
        ],
        now=now,
        requested_by=requested_by,
        at_most=max(written.returned - max(money, 0), 0),
    )
    apply_credit(
        session,
        account,
        [invoice.client_id],
        currency=invoice.currency,
        now=now,
        requested_by=requested_by,
    )


def _lines(session: Session, invoice_id: UUID) -> Sequence[InvoiceLine]:
    return session.scalars(
        select(InvoiceLine)
        .where(InvoiceLine.invoice_id == invoice_id)
        .order_by(InvoiceLine.position)
    ).all()
