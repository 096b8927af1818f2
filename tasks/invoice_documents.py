"""What the document of an invoice says: read from what finalizing froze, in English."""

import re
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.currencies import decimals
from billing.invoice_states import InvoiceStatus
from billing.money import format_amount
from gateways.documents import DocumentLine, InvoiceDocument, Labels, Party, TaxTotal
from models import BillingPeriod, CreditEntry, CreditNote, Invoice, InvoiceLine, InvoiceTax
from tasks.links import Links

# JSONB does not keep the order of an object's keys.
_ADDRESS_ORDER = ("line1", "line2", "city", "state", "postal_code", "country")

# Not calendar.month_name, which speaks the language of the process.
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def invoice_document(
    session: Session, invoice: Invoice, links: Links | None = None
) -> InvoiceDocument:
    """What a finalized invoice shows; one whose total is negative is a credit note.

    With ``links`` it leads to its page while something is due.

    A void one asks for nothing: it says that it is void, and leaves out what had settled it.

    Raises:
        ValueError: The invoice is a draft, which nobody outside may see.
    """
    if (
        invoice.issued_on is None
        or invoice.due_on is None
        or invoice.number is None
        or invoice.bill_from is None
        or invoice.bill_to is None
    ):
        raise ValueError("a draft has no document")
    currency = invoice.currency
    is_void = invoice.status == InvoiceStatus.VOID
    is_credit_note = invoice.total < 0
    carried = _carried(session, invoice)
    period = (
        None if invoice.period_id is None else session.get_one(BillingPeriod, invoice.period_id)
    )
    lines = session.scalars(
        select(InvoiceLine)
        .where(InvoiceLine.invoice_id == invoice.id)
        .order_by(InvoiceLine.position)
    ).all()
    taxes = session.scalars(
        select(InvoiceTax).where(InvoiceTax.invoice_id == invoice.id).order_by(InvoiceTax.position)
    ).all()
    is_exempt = bool(invoice.bill_to.get("tax_exempt"))
    borne = _without_tax(lines, currency) if is_exempt else _borne(lines, taxes)
    return InvoiceDocument(
        title="Credit note" if is_credit_note else "Invoice",
        number=invoice.number,
        issuer=written_party(invoice.bill_from),
        client=written_party(invoice.bill_to),
        issued_on=invoice.issued_on,
        issued=written_date(invoice.issued_on),
        due=None if is_credit_note or is_void else written_date(invoice.due_on),
        period=None if period is None else written_period(period),
        reference=invoice.po_number,
        lines=tuple(_line(line, currency, borne.get(line.position)) for line in lines),
        subtotal=format_amount(invoice.subtotal, currency) if taxes else None,
        taxes=tuple(_tax(tax, currency) for tax in taxes),
        total=format_amount(invoice.total, currency),
        credit=None if is_void else _taken_off(invoice.credit_applied, currency),
        paid=None if is_void else _taken_off(invoice.amount_paid, currency),
        credited=_taken_off(invoice.amount_credited, currency),
        refunded=None if is_void else _taken_off(-invoice.amount_refunded, currency),
        amount_due=format_amount(invoice.outstanding, currency),
        pay_url=links.to_invoice(invoice.id) if links and invoice.outstanding > 0 else None,
        notes=(
            *_paragraphs(invoice.memo),
            *_notes(invoice, carried),
            *(["Exempt from tax."] if is_exempt else []),
        ),
        labels=Labels(reference="PO number", credit=_credit_label(invoice, carried)),
    )


def filename(invoice: Invoice | CreditNote) -> str:
    """What its PDF is called ("INV-000042.pdf"): letters, digits, hyphens and underscores only."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", invoice.number or "").strip("-")
    return f"{name or 'invoice'}.pdf"


def written_date(day: date) -> str:
    """A date for people: ``1 June 2026``."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def written_period(period: BillingPeriod) -> str:
    """A period's first and last day for people, saying month and year once where they agree.

    ``1 - 31 May 2026``, ``16 May - 15 June 2026``, ``16 December 2025 - 15 January 2026``.
    """
    return written_days(period.period_start, period.period_end - timedelta(days=1))


def written_days(first: date, last: date) -> str:
    """The days from the first to the last for people, as ``written_period`` says them."""
    if first == last:
        return written_date(last)
    if first.year != last.year:
        start = written_date(first)
    elif first.month != last.month:
        start = f"{first.day} {_MONTHS[first.month - 1]}"
    else:
        start = str(first.day)
    return f"{start} - {written_date(last)}"


def written_party(frozen: dict[str, Any]) -> Party:
    """Who bills or is billed, as finalizing froze it."""
    name, legal_name = frozen["name"], frozen["legal_name"]
    return Party(
        name=name,
        legal_name=None if legal_name == name else legal_name,
        address=_address(frozen["address"] or {}),
        tax_id=", ".join(frozen["tax_ids"]) or None,
        email=frozen.get("email"),
    )


def _address(lines: dict[str, str]) -> tuple[str, ...]:
    order = {key: place for place, key in enumerate(_ADDRESS_ORDER)}
    keys = sorted(lines, key=lambda key: order.get(key, len(order)))
    return tuple(lines[key] for key in keys if lines[key])


def _borne(lines: Sequence[InvoiceLine], taxes: Sequence[InvoiceTax]) -> dict[int, str]:
    """What a line says of its taxes, by its position; nothing where all of them bear the same."""
    names = {str(tax.tax_rate_id): _rate(tax) for tax in taxes}
    said = {
        line.position: ", ".join(name for rate, name in names.items() if rate in line.taxes)
        for line in lines
    }
    if len(set(said.values())) == 1:
        return {}
    return {position: rates or "No tax" for position, rates in said.items()}


def _without_tax(lines: Sequence[InvoiceLine], currency: str) -> dict[int, str]:
    """What a line of an exempt client comes to, by its position, where its price had tax in it."""
    return {
        line.position: f"{format_amount(line.net, currency)} without tax"
        for line in lines
        if line.net != line.amount
    }


def _rate(tax: InvoiceTax) -> str:
    return f"{tax.name} {_plain(tax.percent)}%" + (" in the price" if tax.inclusive else "")


def _tax(tax: InvoiceTax, currency: str) -> TaxTotal:
    label = f"{tax.name} {_plain(tax.percent)}% of {format_amount(tax.net, currency)}"
    return TaxTotal(
        f"{label}, in the prices" if tax.inclusive else label, format_amount(tax.tax, currency)
    )


def _line(line: InvoiceLine, currency: str, note: str | None) -> DocumentLine:
    price = line.unit_price
    return DocumentLine(
        date=written_date(line.charged_on),
        description=line.description,
        quantity=_plain(line.quantity),
        # None where the charge's amount was given outright.
        unit_price="" if price is None else _plain(price, at_least=decimals(currency)),
        amount=format_amount(line.amount, currency),
        note=note,
    )


def _plain(value: Decimal, at_least: int = 0) -> str:
    """``value`` without the zeros that only its column adds, but with ``at_least`` decimals."""
    whole, _, fraction = format(value, "f").partition(".")
    fraction = fraction.rstrip("0").ljust(at_least, "0")
    return f"{whole}.{fraction}" if fraction else whole


def _taken_off(amount: int, currency: str) -> str | None:
    """``amount`` as it changes what is due; None where it changes nothing."""
    return format_amount(-amount, currency) if amount else None


def _carried(session: Session, invoice: Invoice) -> int:
    """What was left to the client's next invoice, being too little for a card."""
    if invoice.status != InvoiceStatus.PAID:
        return 0
    moved = session.scalar(
        select(func.sum(CreditEntry.amount)).where(
            CreditEntry.invoice_id == invoice.id, CreditEntry.kind == CreditEntryKind.CARRIED
        )
    )
    return -int(moved or 0)


def _credit_label(invoice: Invoice, carried: int) -> str:
    if carried and carried == invoice.credit_applied:
        return "Carried to your next invoice"
    if invoice.credit_applied >= 0:
        return "Credit applied"
    # Below zero a credit note gave the client credit, or an invoice took in an earlier debit.
    return "Added to your credit" if invoice.total < 0 else "Brought forward"


def _paragraphs(memo: str | None) -> tuple[str, ...]:
    return tuple(line for line in (memo or "").splitlines() if line.strip())


def _notes(invoice: Invoice, carried: int) -> tuple[str, ...]:
    if carried:
        amount = format_amount(carried, invoice.currency)
        return (f"{amount} is too little for a card, and is carried to your next invoice.",)
    if invoice.status != InvoiceStatus.VOID:
        return ()
    if invoice.total < 0:
        return ("This credit note is void.",)
    return ("This invoice is void. Nothing is to be paid on it.",)
