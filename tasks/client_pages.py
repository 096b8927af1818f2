"""A client's own page: its invoices, its credit and its cards, as it may see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.card_names import card_name, last_day
from billing.cycles import local_date
from billing.errors import NotFound, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.money import format_amount
from models import Account, BackupMethod, BillingMethod, Client, CreditBalance, Invoice
from models.billing_method import CardOfClient
from models.client import clients_for_update
from tasks.card_changes import begin_with_card
from tasks.invoice_documents import written_date
from tasks.tried_cards import change_places

PAID_SHOWN = 12
"""The last ones that were paid; the others the client has as documents."""

# Giving up on one is ours to do, not the client's to read.
_OWED = (InvoiceStatus.OPEN, InvoiceStatus.UNCOLLECTIBLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedInvoice:
    """An invoice in the list. ``amount`` is what is due of it, or what it was for once paid."""

    invoice_id: UUID
    number: str
    amount: str
    day: str
    is_overdue: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCard:
    """A card. ``good_until`` is its last day, where it has one and that is known."""

    name: str
    good_until: str | None
    has_expired: bool
    was_declined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPage:
    """All that the page shows.

    ``takes_backup`` says that a second card may be left, and ``can_swap`` that the two cards may
    change places.
    """

    account: str
    client: str
    is_charged: bool
    owed: Sequence[ListedInvoice]
    paid: Sequence[ListedInvoice]
    credit: Sequence[str]
    card: ShownCard | None
    backup: ShownCard | None
    takes_backup: bool
    can_swap: bool


def client_page(session: Session, client_id: UUID, now: datetime) -> ClientPage:
    """A client's page as it stands now.

    Raises:
        NotFound: There is no such client.
    """
    client = session.get(Client, client_id)
    if client is None:
        raise NotFound("client", str(client_id))
    account = session.get_one(Account, client.account_id)
    today = local_date(now, client.zone(account))
    card, backup = session.get(BillingMethod, client_id), session.get(BackupMethod, client_id)
    balances = session.scalars(
        select(CreditBalance)
        .where(CreditBalance.client_id == client_id, CreditBalance.balance != 0)
        .order_by(CreditBalance.currency)
    )
    is_automatic = account.auto_collect if client.auto_collect is None else client.auto_collect
    return ClientPage(
        account=account.name,
        client=client.name,
        is_charged=is_automatic,
        owed=_owed(session, client_id, today),
        paid=_paid(session, client_id),
        credit=[format_amount(one.balance, one.currency) for one in balances],
        card=_shown(card, today),
        backup=_shown(backup, today),
        takes_backup=card is not None and (client.use_backup_card or backup is not None),
        can_swap=card is not None and backup is not None and backup.stopped_for is None,
    )


def _owed(session: Session, client_id: UUID, today: date) -> list[ListedInvoice]:
    found = session.scalars(
        select(Invoice)
        .where(Invoice.client_id == client_id, Invoice.status.in_(_OWED))
        .order_by(Invoice.due_on, Invoice.id)
    )
    return [
        ListedInvoice(
            invoice_id=invoice.id,
            number=str(invoice.number),
            amount=format_amount(invoice.outstanding, invoice.currency),
            day=written_date(invoice.due_on),
            is_overdue=invoice.due_on < today,
        )
        for invoice in found
        if invoice.due_on is not None
    ]


def _paid(session: Session, client_id: UUID) -> list[ListedInvoice]:
    found = session.scalars(
        select(Invoice)
        .where(Invoice.client_id == client_id, Invoice.status == InvoiceStatus.PAID)
        .order_by(Invoice.paid_at.desc(), Invoice.id.desc())
        .limit(PAID_SHOWN)
    )
    return [
        ListedInvoice(
            invoice_id=invoice.id,
            number=str(invoice.number),
            amount=format_amount(invoice.total, invoice.currency),
            day=written_date(invoice.issued_on),
        )
        for invoice in found
        if invoice.issued_on is not None
    ]


def _shown(card: CardOfClient | None, today: date) -> ShownCard | None:
    if card is None:
        return None
    until = (
        None
        if card.exp_year is None or card.exp_month is None
        else last_day(card.exp_year, card.exp_month)
    )
    return ShownCard(
        name=card_name(card.brand, card.last4),
        good_until=None if until is None else written_date(until),
        has_expired=until is not None and until < today,
        was_declined=card.stopped_for is not None,
    )


def swap_cards(session: Session, client_id: UUID, *, now: datetime, requested_by: str) -> None:
    """Charge a client's second card from now on, and keep the first one behind it.

    Raises:
        RuleViolation: There are no two, or the second one cannot be charged
            (``no_billing_method``).
    """
    session.scalars(clients_for_update([client_id])).one()
    card, backup = session.get(BillingMethod, client_id), session.get(BackupMethod, client_id)
    if card is None or backup is None or backup.stopped_for is not None:
        raise RuleViolation("no_billing_method", "there is no second card that can be charged")
    change_places(session, card, backup)
    begin_with_card(session, client_id, now=now, requested_by=requested_by)
