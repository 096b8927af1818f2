"""The words of the mails to a client: data in, texts out, in English.

A letter speaks as the account, to the client. Amounts and dates come as ready strings.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from billing.invoice_states import InvoiceStatus
from billing.mails import MailKind
from billing.money import format_amount
from models import BillingPeriod, Invoice
from tasks.invoice_documents import written_date, written_period
from tasks.links import Links

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).resolve().parent.parent / "templates" / "email"),
    autoescape=select_autoescape(enabled_extensions=("html",), default=False),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

_STATUSES = {
    InvoiceStatus.OPEN: "Open",
    InvoiceStatus.PAID: "Paid",
    InvoiceStatus.VOID: "Void",
    # Ours to give up, not the client's to read.
    InvoiceStatus.UNCOLLECTIBLE: "Open",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterInvoice:
    """An invoice, as a letter lists it.

    Attributes:
        credit_applied: ``total`` less this, and less what was paid, is ``amount_due``; None
            where there is none, and for a negative invoice, which gives credit.
        period: "1 - 31 May 2026"; None for one drafted by hand.
        is_due: Whether something is left to pay.
    """

    id: UUID
    number: str
    total: str
    amount_due: str
    due_on: str
    status: str
    credit_applied: str | None
    period: str | None
    is_due: bool


@dataclass(frozen=True, slots=True)
class LetterLinks:
    """Where a letter leads its reader to."""

    links: Links
    client_id: UUID

    def to_invoice(self, invoice: LetterInvoice) -> str:
        """The page on which an invoice is shown, and paid."""
        return self.links.to_invoice(invoice.id)

    def to_portal(self) -> str:
        """The client's own page, on which it changes its card."""
        return self.links.to_portal(self.client_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A mail's words; the subject is one line."""

    subject: str
    text: str
    html: str


def letter_invoice(invoice: Invoice, period: BillingPeriod | None) -> LetterInvoice:
    """A finalized invoice as it stands; ``period`` is the one that it bills.

    Raises:
        ValueError: The invoice is a draft, which no letter mentions.
    """
    if invoice.number is None or invoice.due_on is None:
        raise ValueError("no letter mentions a draft")
    gave_credit = invoice.total < 0
    status = InvoiceStatus(invoice.status)
    return LetterInvoice(
        id=invoice.id,
        number=invoice.number,
        total=format_amount(invoice.total, invoice.currency),
        amount_due=format_amount(invoice.outstanding, invoice.currency),
        due_on=written_date(invoice.due_on),
        status=(
            "Added to your credit"
            if gave_credit and status is InvoiceStatus.PAID
            else _STATUSES[status]
        ),
        credit_applied=(
            format_amount(invoice.credit_applied, invoice.currency)
            if invoice.credit_applied and not gave_credit
            else None
        ),
        period=None if period is None else written_period(period),
        is_due=invoice.outstanding > 0,
    )


def invoice_ready(
    *,
    account: str,
    client: str,
    links: LetterLinks,
    invoices: Sequence[LetterInvoice],
    charged: Sequence[str] = (),
    carried: Sequence[str] = (),
    attached: int = 0,
) -> Letter:
    """One letter for all the invoices that a run made ready; those settled already come apart.

    Args:
        charged: The numbers of those due that the card on file will be charged for, by itself.
        carried: The numbers of those due that come to too little for a card: what is due of
            them is added to the next invoice.
        attached: How many are attached, in the order of their listing.
    """
    due = [invoice for invoice in invoices if invoice.is_due]
    return _letter(
        MailKind.INVOICE_READY,
        account,
        client,
        links=links,
        due=due,
        settled=[invoice for invoice in invoices if not invoice.is_due],
        charged=charged,
        carried=carried,
        to_pay=[one.number for one in due if one.number not in {*charged, *carried}],
        attached=attached,
    )


def receipt(
    *,
    account: str,
    client: str,
    links: LetterLinks,
    invoices: Sequence[LetterInvoice],
    paid: str | None,
    paid_on: str | None,
    method: str | None,
    credit_added: str | None,
    settled_by_credit: bool,
    attached: int = 0,
) -> Letter:
    """For money or credit that came.

    Args:
        invoices: What it was for, as they stand now; may be empty, for a deposit.
        paid: The money that came; None when credit alone settled the invoices.
        method: "Visa ending in 4242", "Bank transfer".
        credit_added: What went to the credit balance.
        settled_by_credit: The credit balance paid the invoices, or what ``paid`` left of them.
    """
    return _letter(
        MailKind.RECEIPT,
        account,
        client,
        links=links,
        invoices=invoices,
        paid=paid,
        paid_on=paid_on,
        method=method,
        credit_added=credit_added,
        settled_by_credit=settled_by_credit,
        attached=attached,
    )


def payment_failed(
    *,
    account: str,
    client: str,
    links: LetterLinks,
    invoice: LetterInvoice | None,
    tried: str,
    reason: str,
    next_try: str | None,
    needs_authentication: bool,
    needs_new_card: bool,
) -> Letter:
    """For a card charge for ``invoice``, which came with an earlier letter, that did not succeed.

    Args:
        invoice: None where the card was to fill the credit balance again by itself: that is
            tried again soon where this card can be.
        tried: The amount of the charge.
        reason: Why, for people: "The card has insufficient funds."
        next_try: The date of the next automatic try; None when there is none.
        needs_authentication: The bank waits for the client to confirm.
        needs_new_card: This card will not be charged again.
    """
    return _letter(
        MailKind.PAYMENT_FAILED,
        account,
        client,
        links=links,
        invoice=invoice,
        tried=tried,
        reason=reason,
        next_try=next_try,
        needs_authentication=needs_authentication,
        needs_new_card=needs_new_card,
    )


def card_expiring(
    *,
    account: str,
    client: str,
    links: LetterLinks,
    card: str,
    good_until: str,
    has_expired: bool,
) -> Letter:
    """For a card that will soon be too old, or is.

    Args:
        card: "Visa ending in 4242".
        good_until: Its last day: "31 August 2030".
        has_expired: That day is past.
    """
    return _letter(
        MailKind.CARD_EXPIRING,
        account,
        client,
        links=links,
        card=one_line(card),
        good_until=good_until,
        has_expired=has_expired,
    )


def authentication_needed(
    *,
    account: str,
    client: str,
    links: LetterLinks,
    invoice: LetterInvoice,
    tried: str,
    next_try: str | None,
) -> Letter:
    """For a charge that the client's bank wants confirmed: on the page of ``invoice`` it can be.

    Args:
        tried: The amount of the charge.
        next_try: The date of the next automatic try; None when there is none.
    """
    return _letter(
        MailKind.AUTHENTICATION_NEEDED,
        account,
        client,
        links=links,
        invoice=invoice,
        tried=tried,
        next_try=next_try,
    )


def _letter(kind: MailKind, account: str, client: str, **facts: object) -> Letter:
    facts |= {"account": one_line(account), "client": one_line(client)}
    subject, text, html = (
        _templates.get_template(f"{kind}/{name}").render(facts)
        for name in ("subject.txt", "body.txt", "body.html")
    )
    return Letter(subject=one_line(subject), text=_tidy(text), html=_tidy(html))


def one_line(text: str) -> str:
    """``text`` without line breaks and control characters, which could begin another header."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()


def _tidy(text: str) -> str:
    """``text`` with at most one empty line at a time, which templates leave where they say nothing."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
