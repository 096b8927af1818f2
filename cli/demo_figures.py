"""What the demo tells, read from the database once everything is done."""

from collections import Counter, defaultdict
from decimal import Decimal

from sqlalchemy import and_, exists, func, literal, select
from sqlalchemy.orm import Session

from billing.invoice_states import InvoiceStatus
from billing.mails import MailKind
from cli.demo_setup import CENT, Sums
from models import Account, Client, Invoice, InvoiceLine, Mail

# Lines of the invoice that is shown in full: enough to see, few enough to read.
SAMPLE_LINES = (7, 14)


def sums_of_invoices(session: Session, account: Account) -> Sums:
    """What each client was invoiced in each currency."""
    rows = session.execute(
        select(Client.external_ref, Invoice.currency, func.sum(Invoice.total))
        .join(Client, Client.id == Invoice.client_id)
        .where(Invoice.account_id == account.id)
        .group_by(Client.external_ref, Invoice.currency)
    )
    return {(client or "", currency): Decimal(total) * CENT for client, currency, total in rows}


def revenue(session: Session, account: Account) -> dict[str, Counter[str]]:
    """Minor units by currency and description."""
    rows = session.execute(
        select(Invoice.currency, InvoiceLine.description, func.sum(InvoiceLine.amount))
        .join(Invoice, Invoice.id == InvoiceLine.invoice_id)
        .where(Invoice.account_id == account.id)
        .group_by(Invoice.currency, InvoiceLine.description)
        .order_by(Invoice.currency)
    )
    by_currency: dict[str, Counter[str]] = defaultdict(Counter)
    for currency, description, amount in rows:
        by_currency[currency][description] = int(amount)
    return dict(by_currency)


def sample_invoice(session: Session, account: Account) -> tuple[Invoice, list[InvoiceLine]]:
    """An invoice to look at, with its lines.

    Of those that are short enough: one that was mailed, and paid by credit and by card, if there
    is such a one; of these, the most varied.
    """
    was_mailed = exists().where(
        Invoice.id == Mail.invoice_ids.any_(),
        Mail.kind == MailKind.INVOICE_READY,
        Mail.message_id.is_not(None),
    )
    is_paid_both_ways = and_(Invoice.credit_applied > 0, Invoice.amount_paid > 0)
    invoice = session.scalars(
        select(Invoice)
        .join(InvoiceLine, InvoiceLine.invoice_id == Invoice.id)
        .where(Invoice.account_id == account.id)
        .group_by(Invoice.id)
        .order_by(
            func.count().between(*SAMPLE_LINES).desc(),
            was_mailed.desc(),
            is_paid_both_ways.desc(),
            (Invoice.status == InvoiceStatus.PAID).desc(),
            func.count(InvoiceLine.description.distinct()).desc(),
            Invoice.number,
        )
        .limit(1)
    ).one()
    lines = session.scalars(
        select(InvoiceLine)
        .where(InvoiceLine.invoice_id == invoice.id)
        .order_by(InvoiceLine.position)
    ).all()
    return invoice, list(lines)


def mail_about(session: Session, invoice: Invoice) -> Mail | None:
    """The mail that told its client of an invoice, if SendGrid took one."""
    return session.scalars(
        select(Mail)
        .where(literal(invoice.id) == Mail.invoice_ids.any_(), Mail.message_id.is_not(None))
        .order_by(Mail.id)
        .limit(1)
    ).one_or_none()
