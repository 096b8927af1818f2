"""What the document of a credit note says: read from what was frozen, in English."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.credit_notes import Destination
from billing.money import format_amount
from gateways.documents import CreditedLine, CreditNoteDocument, Settled, TaxTotal
from models import CreditNote, Invoice, InvoiceLine, TaxRateRow
from tasks.invoice_documents import written_date, written_party

_RETURNED = {
    Destination.CREDIT: "Added to your credit",
    Destination.CARD: "Refunded to your card",
    Destination.OUTSIDE: "Refunded",
}


def credit_note_document(session: Session, note: CreditNote) -> CreditNoteDocument:
    """What a credit note shows.

    Raises:
        ValueError: Its invoice was never finalized, which no note's was.
    """
    invoice = session.get_one(Invoice, note.invoice_id)
    if (
        note.bill_from is None
        or note.bill_to is None
        or invoice.number is None
        or invoice.issued_on is None
    ):
        raise ValueError("a draft has no credit note")
    currency = note.currency
    return CreditNoteDocument(
        number=note.number,
        issuer=written_party(note.bill_from),
        client=written_party(note.bill_to),
        issued_on=note.issued_on,
        issued=written_date(note.issued_on),
        invoice=invoice.number,
        invoice_issued=written_date(invoice.issued_on),
        lines=_lines(session, note, invoice),
        subtotal=format_amount(note.net, currency) if note.taxes else None,
        taxes=_taxes(session, note),
        total=format_amount(note.amount, currency),
        settled=_settled(note),
        notes=_notes(note, invoice.number),
    )


def _lines(session: Session, note: CreditNote, invoice: Invoice) -> tuple[CreditedLine, ...]:
    named = session.scalars(
        select(InvoiceLine)
        .where(InvoiceLine.invoice_id == invoice.id, InvoiceLine.position.in_(note.positions))
        .order_by(InvoiceLine.position)
    ).all()
    if named and sum(line.net for line in named) == note.net:
        return tuple(
            CreditedLine(
                line.description,
                format_amount(line.net, note.currency),
                written_date(line.charged_on),
            )
            for line in named
        )
    share = "All" if note.amount == invoice.total else "Part"
    return (
        CreditedLine(
            f"{share} of invoice {invoice.number}",
            format_amount(note.net, note.currency),
            _what_is_left_of(named),
        ),
    )


def _what_is_left_of(named: Sequence[InvoiceLine]) -> str | None:
    """Which lines the note names, where earlier ones took a part of them."""
    if not named:
        return None
    return f"What was left of: {'; '.join(line.description for line in named)}"


def _taxes(session: Session, note: CreditNote) -> tuple[TaxTotal, ...]:
    rates = session.scalars(
        select(TaxRateRow).where(TaxRateRow.id.in_(note.taxes)).order_by(TaxRateRow.id)
    )
    return tuple(
        TaxTotal(
            f"{rate.name} {rate.percent.normalize():f}%",
            format_amount(note.taxes[str(rate.id)], note.currency),
        )
        for rate in rates
    )


def _settled(note: CreditNote) -> tuple[Settled, ...]:
    parts = []
    if note.lowers_due:
        parts.append(
            Settled("Taken off what is due", format_amount(note.lowers_due, note.currency))
        )
    if note.returned_to is not None:
        label = _RETURNED[Destination(note.returned_to)]
        parts.append(Settled(label, format_amount(note.returned, note.currency)))
    return tuple(parts)


def _notes(note: CreditNote, invoice_number: str) -> tuple[str, ...]:
    if note.voids:
        return (f"Invoice {invoice_number} is void. Nothing is to be paid on it.",)
    return (f"Reason: {note.reason}",) if note.reason else ()
