"""Documents that people open, as the rest of the system sees them.

Whatever a person reads in them arrives as a ready string in the client's language: amounts with
their currency and separators, dates, and labels. Nothing is computed or formatted on the way.
"""

from dataclasses import dataclass, field
from datetime import date
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The words of an invoice, in English unless said otherwise."""

    number: str = "Number"
    issued: str = "Issued"
    due: str = "Due"
    period: str = "Period"
    reference: str = "Reference"
    issued_by: str = "From"
    billed_to: str = "Billed to"
    tax_id: str = "Tax ID"
    date: str = "Date"
    description: str = "Description"
    quantity: str = "Quantity"
    unit_price: str = "Unit price"
    amount: str = "Amount"
    subtotal: str = "Subtotal"
    total: str = "Total"
    credit: str = "Credit applied"
    paid: str = "Paid"
    credited: str = "Credit notes"
    refunded: str = "Refunded"
    amount_due: str = "Amount due"
    pay: str = "Pay online"
    page: str = "Page {page} of {pages}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Who bills or is billed.

    Attributes:
        name: What they are called.
        legal_name: When it is another one than ``name``.
        address: Lines, in the order of their country.
    """

    name: str
    legal_name: str | None = None
    address: tuple[str, ...] = ()
    tax_id: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLine:
    """One charge.

    Attributes:
        note: Said below the description, smaller: a tax rate, or what it amends.
    """

    description: str
    quantity: str
    unit_price: str
    amount: str
    date: str = ""
    note: str | None = None


@dataclass(frozen=True, slots=True)
class TaxTotal:
    """The tax of one rate: ``label`` names it and what it was taken of ("VAT 20% of $10.00")."""

    label: str
    amount: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceDocument:
    """What an invoice shows, or a credit note: the two differ in ``title`` and signs alone.

    Attributes:
        title: "Invoice", "Credit note".
        number: As it was given when the invoice was finalized.
        issued_on: The date of the file itself; ``issued`` is what people read.
        period: What it bills for ("1 - 31 October 2026").
        reference: What the client wants to find on it, such as an order number.
        subtotal: Before tax; left out where there is none.
        credit: What the credit balance paid, with its sign; left out where it paid nothing.
        paid: What was paid otherwise, with its sign.
        credited: What credit notes took off it, with its sign.
        refunded: What was given back.
        pay_url: Where it can be paid; left out where nothing is due.
        notes: Paragraphs at the end, such as how to pay by bank transfer.
        language: BCP 47; decides hyphens and, with the letters themselves, the direction.
    """

    title: str
    number: str
    issuer: Party
    client: Party
    issued_on: date
    issued: str
    due: str | None = None
    period: str | None = None
    reference: str | None = None
    lines: tuple[DocumentLine, ...]
    subtotal: str | None = None
    taxes: tuple[TaxTotal, ...] = ()
    total: str
    credit: str | None = None
    paid: str | None = None
    credited: str | None = None
    refunded: str | None = None
    amount_due: str
    pay_url: str | None = None
    notes: tuple[str, ...] = ()
    language: str = "en"
    paper: Literal["a4", "us-letter"] = "a4"
    labels: Labels = field(default_factory=Labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLabels:
    """The words of a statement, in English unless said otherwise."""

    period: str = "Period"
    issued: str = "Issued"
    due: str = "Due"
    issued_by: str = "From"
    sent_to: str = "For"
    tax_id: str = "Tax ID"
    date: str = "Date"
    kind: str = "What"
    reference: str = "Reference"
    amount: str = "Amount"
    balance: str = "Balance"
    opening_balance: str = "Opening balance"
    closing_balance: str = "Closing balance"
    open_items: str = "Open at the end of the period"
    credit: str = "Credit in hand"
    page: str = "Page {page} of {pages}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementEntry:
    """Something that changed the balance, and the balance after it."""

    date: str
    kind: str
    reference: str
    amount: str
    balance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenItemEntry:
    """An invoice with something due at the end."""

    number: str
    issued: str
    due: str
    amount: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementDocument:
    """What a client's statement shows, in one currency.

    Attributes:
        issued_on: The date of the file itself; ``issued`` is what people read.
        period: The days it is about ("1 - 31 October 2026").
        credit: What the client has in hand, as it changes what it owes; left out where it is nothing.
    """

    title: str = "Statement"
    issuer: Party
    client: Party
    issued_on: date
    issued: str
    period: str
    opening_balance: str
    lines: tuple[StatementEntry, ...] = ()
    closing_balance: str
    open_items: tuple[OpenItemEntry, ...] = ()
    credit: str | None = None
    notes: tuple[str, ...] = ()
    language: str = "en"
    paper: Literal["a4", "us-letter"] = "a4"
    labels: StatementLabels = field(default_factory=StatementLabels)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditNoteLabels:
    """The words of a credit note, in English unless said otherwise."""

    number: str = "Number"
    issued: str = "Issued"
    invoice: str = "Invoice"
    invoice_issued: str = "Invoice issued"
    issued_by: str = "From"
    credited_to: str = "Credited to"
    tax_id: str = "Tax ID"
    description: str = "Description"
    amount: str = "Amount"
    subtotal: str = "Subtotal"
    total: str = "Total credited"
    page: str = "Page {page} of {pages}"


@dataclass(frozen=True, slots=True)
class CreditedLine:
    """What a credit note takes back: ``note`` is said below, smaller."""

    description: str
    amount: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """Where a part of a credit note went: ``label`` says it."""

    label: str
    amount: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditNoteDocument:
    """What a credit note shows.

    Attributes:
        number: As it was given when the note was written.
        issued_on: The date of the file itself; ``issued`` is what people read.
        invoice: The number of the invoice that it credits.
        subtotal: Before tax; left out where there is none.
        settled: Where the total went; empty where the invoice is void.
        notes: Paragraphs at the end, such as why it was written.
        language: BCP 47; decides hyphens and, with the letters themselves, the direction.
    """

    title: str = "Credit note"
    number: str
    issuer: Party
    client: Party
    issued_on: date
    issued: str
    invoice: str
    invoice_issued: str
    lines: tuple[CreditedLine, ...]
    subtotal: str | None = None
    taxes: tuple[TaxTotal, ...] = ()
    total: str
    settled: tuple[Settled, ...] = ()
    notes: tuple[str, ...] = ()
    language: str = "en"
    paper: Literal["a4", "us-letter"] = "a4"
    labels: CreditNoteLabels = field(default_factory=CreditNoteLabels)


class DocumentRenderer(Protocol):
    """Makes files. Safe to use from many threads."""

    def render_invoice_pdf(self, document: InvoiceDocument) -> bytes:
        """The PDF of an invoice: the same bytes for an equal document."""
        ...

    def render_statement_pdf(self, document: StatementDocument) -> bytes:
        """The PDF of a client's statement: the same bytes for an equal document."""
        ...

    def render_credit_note_pdf(self, document: CreditNoteDocument) -> bytes:
        """The PDF of a credit note: the same bytes for an equal document."""
        ...
