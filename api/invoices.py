"""Invoices, read: in lists, each with its whole story, and as the PDF that the client gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth import Caller, Reader
from api.client_links import LinksOf
from api.clients import methods_of
from api.credit import ENTRY_EXAMPLE, EntryReport
from api.disputes import DISPUTE_EXAMPLE, DisputeReport, disputes_of, questioned
from api.documents import PDF, DocumentsOf, PdfAnswer
from api.invoice_lines import LineReport, TaxReport, lines_and_taxes
from api.invoice_stories import HistoryItem, NextReport, Story, WriteOff, history_of, next_of
from api.mails import MAIL_EXAMPLE, MailReport
from api.operations import reads
from api.paging import Paging, newest_first
from api.payments import PAYMENT_EXAMPLE, PaymentReport
from api.refunds import refunds_by_payment
from api.shapes import Page
from api.transactions import Transaction
from billing.collection import AttemptState, Collection, Origin, collection_of
from billing.declines import DeclineClass
from billing.dunning import tries_from
from billing.errors import NotFound, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.postings import LedgerAccount, LedgerEvent
from models import (
    Account,
    BillingMethod,
    BillingPeriod,
    Client,
    CreditEntry,
    CreditNote,
    Invoice,
    LedgerEntry,
    LedgerPosting,
    Mail,
    Payment,
    PaymentAttempt,
    Refund,
)
from models.payment_attempt import open_attempts_of
from tasks.invoice_documents import filename, invoice_document
from tasks.links import Links
from tasks.merchants import with_cards_elsewhere

router = APIRouter(tags=["invoices"])

_ID = "019ae8a3-5c00-7000-8000-000000000003"

_EXAMPLE: dict[str, Any] = {
    "id": _ID,
    "client": "019ae8a3-5c00-7000-8000-000000000001",
    "number": "INV-000042",
    "status": "open",
    "collection": "scheduled",
    "auto_collect": True,
    "next_attempt_at": "2026-06-04T15:00:00Z",
    "attempt_count": 1,
    "disputed": False,
    "currency": "usd",
    "subtotal": 1100,
    "tax": 220,
    "total": 1320,
    "credit_applied": 0,
    "amount_paid": 0,
    "amount_credited": 0,
    "amount_refunded": 0,
    "amount_written_off": 0,
    "amount_due": 1320,
    "period_start": "2026-05-01",
    "period_end": "2026-06-01",
    "issued_on": "2026-06-01",
    "due_on": "2026-06-15",
    "finalized_at": "2026-06-01T12:00:00Z",
    "paid_at": None,
    "voided_at": None,
    "written_off_at": None,
    "reissued_at": None,
    "created_at": "2026-06-01T12:00:00Z",
    "memo": "Thank you for a quick unloading.",
    "po_number": "PO-7781",
    "review_ends_at": None,
    "bill_from": {"name": "Bluebird Prep"},
    "bill_to": {"name": "Ada Imports"},
    "hosted_url": "https://billing.bluebird-prep.example/i/"
    "IjAxOWFlOGEzNWMwMDcwMDA4MDAwMDAwMDAwMDAwMDAzIg.Qm9keSBpcyBub3QgYSBzaWduYXR1cmU",
    "links": {
        "self": f"/v1/invoices/{_ID}",
        "client": "/v1/clients/019ae8a3-5c00-7000-8000-000000000001",
        "pdf": f"/v1/invoices/{_ID}/pdf",
    },
}
_EXAMPLE_STORY: dict[str, Any] = {
    "lines": [
        {
            "charge": "019ae8a3-5c00-7000-8000-000000000004",
            "charged_on": "2026-05-12",
            "description": "FNSKU labelling",
            "quantity": "40",
            "unit_price": "0.275",
            "amount": 1100,
            "net": 1100,
            "tax": 220,
        }
    ],
    "taxes": [
        {
            "tax_rate": "019ae8a3-5c00-7000-8000-000000000011",
            "name": "VAT",
            "percent": "20",
            "inclusive": False,
            "net": 1100,
            "tax": 220,
        }
    ],
    "payments": [PAYMENT_EXAMPLE],
    "attempts": [
        {
            "id": "019ae8a3-5c00-7000-8000-00000000000e",
            "ordinal": 1,
            "origin": "automatic",
            "state": "declined",
            "amount": 1320,
            "decline_code": "insufficient_funds",
            "decline_class": "soft",
            "message": "Your card has insufficient funds.",
            "payment_intent": "pi_3MtwBwLkdIwHu7ix28a3tqPa",
            "created_at": "2026-06-01T12:00:01Z",
            "settled_at": "2026-06-01T12:00:01Z",
        }
    ],
    "disputes": [DISPUTE_EXAMPLE],
    "credit": [ENTRY_EXAMPLE],
    "mails": [MAIL_EXAMPLE],
    "next": {
        "what": "charge",
        "at": "2026-06-04T15:00:00Z",
        "why": "The client's card is charged by itself. The last try was declined "
        "(insufficient_funds).",
    },
    "retry_schedule": [
        "2026-06-04T15:00:00Z",
        "2026-06-09T15:00:00Z",
        "2026-06-16T15:00:00Z",
        "2026-06-23T15:00:00Z",
    ],
    "history": [
        {"at": "2026-06-01T12:00:00Z", "what": "drafted", "detail": "for a billing period"},
        {
            "at": "2026-06-01T12:00:00Z",
            "what": "finalized",
            "detail": "INV-000042: 13.20 USD, due on 2026-06-15",
        },
    ],
}


class InvoiceSummary(BaseModel):
    """An invoice without its story. Amounts are in `currency`'s minor unit.

    `collection` says how its card is charged, and `next_attempt_at` when that is tried again by
    itself; `auto_collect`, null before it is finalized, whether it is at all. `attempt_count` is
    how often it was tried. `disputed` says that a bank questions a payment of it, or has taken it
    back and has not decided yet. `amount_credited` is the sum of its credit notes, and `amount_refunded`
    what was given back of it, with a note or without. Of an `uncollectible` one nothing is due;
    `amount_written_off` is what was given up of it and neither paid nor credited since. A draft of a billing period
    is finalized by itself at `review_ends_at`, or by a person where that is null. `hosted_url` is the
    page on which its client sees and pays it, null for a draft: whoever has it may see the invoice.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: UUID
    client: UUID
    number: str | None
    status: InvoiceStatus
    collection: Collection
    auto_collect: bool | None
    next_attempt_at: datetime | None
    attempt_count: int
    disputed: bool
    currency: str
    subtotal: int
    tax: int
    total: int
    credit_applied: int
    amount_paid: int
    amount_credited: int
    amount_refunded: int
    amount_written_off: int
    amount_due: int
    period_start: date | None
    period_end: date | None
    issued_on: date | None
    due_on: date | None
    finalized_at: datetime | None
    paid_at: datetime | None
    voided_at: datetime | None
    written_off_at: datetime | None
    reissued_at: datetime | None
    created_at: datetime
    memo: str | None
    po_number: str | None
    review_ends_at: datetime | None
    bill_from: dict[str, Any] | None
    bill_to: dict[str, Any] | None
    hosted_url: str | None
    links: dict[str, str]


class AttemptReport(BaseModel):
    """One try of a card. Only those whose `origin` is `automatic` count for the schedule."""

    id: UUID
    ordinal: int
    origin: Origin
    state: AttemptState
    amount: int
    decline_code: str | None
    decline_class: DeclineClass | None
    message: str | None
    payment_intent: str | None
    created_at: datetime
    settled_at: datetime | None


class InvoiceReport(InvoiceSummary):
    """An invoice with all that is known of it, and what it waits for.

    A draft's lines are its charges as they are now, with the taxes of now; later ones are frozen.
    `credit` are the movements of the client's credit because of it. `retry_schedule` is when its
    card is charged by itself, should each of these tries be declined for now, the next one first;
    empty where none is planned, or collection is paused.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{**_EXAMPLE, **_EXAMPLE_STORY}]})

    lines: list[LineReport]
    taxes: list[TaxReport]
    payments: list[PaymentReport]
    attempts: list[AttemptReport]
    disputes: list[DisputeReport]
    credit: list[EntryReport]
    mails: list[MailReport]
    next: NextReport
    retry_schedule: list[datetime]
    history: list[HistoryItem]


class InvoiceFilters(Paging):
    """Which invoices to list."""

    client: UUID | None = None
    status: InvoiceStatus | None = None


@router.get("/v1/invoices", summary="List invoices", responses=reads())
def list_invoices(
    filters: Annotated[InvoiceFilters, Query()],
    caller: Reader,
    session: Transaction,
    links: LinksOf,
) -> Page[InvoiceSummary]:
    """Newest first, without their stories."""
    invoices = select(Invoice).where(Invoice.account_id == caller.account_id)
    if filters.client is not None:
        invoices = invoices.where(Invoice.client_id == filters.client)
    if filters.status is not None:
        invoices = invoices.where(Invoice.status == filters.status)
    found = newest_first(session, invoices, Invoice.id, filters, read=UUID)
    beside = _Beside.of(session, found.rows, links)
    return found.page(lambda invoice: InvoiceSummary(**beside.fields(invoice)))


@router.get(
    "/v1/invoices/{invoice_id}", summary="Show an invoice", responses=reads("invoice_not_found")
)
def show_invoice(
    invoice_id: UUID, caller: Reader, session: Transaction, links: LinksOf
) -> InvoiceReport:
    """One invoice: its lines, what was paid and tried, what the client was told, what comes next."""
    return report_of(session, invoice_of(session, caller, invoice_id), links)


@router.get(
    "/v1/invoices/{invoice_id}/pdf",
    summary="Show an invoice as PDF",
    response_class=Response,
    responses={**PDF, **reads("invoice_not_found", "invoice_not_finalized")},
)
def show_pdf(
    invoice_id: UUID,
    caller: Reader,
    session: Transaction,
    documents: DocumentsOf,
    links: LinksOf,
) -> Response:
    """As the client gets it by mail; what was paid or credited since is on it."""
    invoice = invoice_of(session, caller, invoice_id)
    if invoice.status == InvoiceStatus.DRAFT:
        raise RuleViolation("invoice_not_finalized", "a draft has no document: finalize it first")
    return PdfAnswer(documents, invoice_document(session, invoice, links), filename(invoice))


def report_of(session: Session, invoice: Invoice, links: Links | None) -> InvoiceReport:
    """An invoice as it is shown, with its whole story."""
    beside = _Beside.of(session, [invoice], links)
    story = _story(session, invoice, beside)
    lines, taxes = lines_and_taxes(session, invoice)
    refunds = refunds_by_payment(session, story.payments)
    return InvoiceReport(
        **beside.fields(invoice),
        lines=lines,
        taxes=taxes,
        payments=[
            PaymentReport.of(payment, refunds.get(payment.id, ())) for payment in story.payments
        ],
        attempts=[
            AttemptReport.model_validate(attempt, from_attributes=True)
            for attempt in story.attempts
        ],
        disputes=[DisputeReport.of(dispute) for dispute in story.disputes],
        credit=[EntryReport.of(entry) for entry in story.credit],
        mails=[MailReport.of(mail) for mail in story.mails],
        next=next_of(story),
        retry_schedule=_retry_schedule(session, invoice, story.collection),
        history=history_of(story),
    )


def _retry_schedule(session: Session, invoice: Invoice, collection: Collection) -> list[datetime]:
    if collection is not Collection.SCHEDULED or invoice.next_attempt_at is None:
        return []
    account = session.get_one(Account, invoice.account_id)
    zone = session.get_one(Client, invoice.client_id).zone(account)
    return tries_from(invoice.next_attempt_at, invoice.failures, zone, account.dunning_days)


def invoice_of(session: Session, caller: Caller, invoice_id: UUID) -> Invoice:
    """An invoice of the caller's.

    Raises:
        NotFound: The caller's account has no such invoice.
    """
    invoice = session.get(Invoice, invoice_id)
    if invoice is None or invoice.account_id != caller.account_id:
        raise NotFound("invoice", str(invoice_id))
    return invoice


@dataclass(frozen=True, slots=True)
class _Beside:
    """What stands beside invoices in other tables and is shown with them."""

    periods: dict[UUID, BillingPeriod]
    open_attempts: dict[UUID, AttemptState]
    methods: dict[UUID, BillingMethod]
    cards_elsewhere: frozenset[UUID]
    collection_paused: frozenset[UUID]
    questioned: frozenset[UUID | None]
    links: Links | None

    @classmethod
    def of(cls, session: Session, invoices: Sequence[Invoice], links: Links | None) -> "_Beside":
        """Read for all invoices at once."""
        periods = session.scalars(
            select(BillingPeriod).where(
                BillingPeriod.id.in_([one.period_id for one in invoices if one.period_id])
            )
        )
        attempts = session.scalars(open_attempts_of([one.id for one in invoices]))
        clients = list({one.client_id for one in invoices})
        paused = session.scalars(
            select(Client.id)
            .join(Account, Account.id == Client.account_id)
            .where(Client.id.in_(clients), Client.collection_paused | Account.collection_paused)
        )
        return cls(
            {period.id: period for period in periods},
            {one.invoice_id: AttemptState(one.state) for one in attempts if one.invoice_id},
            methods_of(session, clients),
            frozenset(session.scalars(with_cards_elsewhere(clients))),
            frozenset(paused),
            questioned(session, [one.id for one in invoices]),
            links,
        )

    def collection(self, invoice: Invoice) -> Collection:
        """How an invoice is being collected."""
        return collection_of(
            status=InvoiceStatus(invoice.status),
            is_automatic=invoice.auto_collect,
            attempt=self.open_attempts.get(invoice.id),
            has_next_try=invoice.next_attempt_at is not None,
            has_card=invoice.client_id in self.methods
            and invoice.client_id not in self.cards_elsewhere,
            is_paused=invoice.client_id in self.collection_paused,
        )

    def fields(self, invoice: Invoice) -> dict[str, Any]:
        """What both reports of an invoice show."""
        period = None if invoice.period_id is None else self.periods[invoice.period_id]
        collection = self.collection(invoice)
        is_draft = invoice.status == InvoiceStatus.DRAFT
        links = {
            "self": f"/v1/invoices/{invoice.id}",
            "client": f"/v1/clients/{invoice.client_id}",
        }
        if not is_draft:
            links["pdf"] = f"/v1/invoices/{invoice.id}/pdf"
        return {
            **{name: getattr(invoice, name) for name in _SAME},
            "client": invoice.client_id,
            "collection": collection,
            "disputed": invoice.id in self.questioned,
            # While a charge is under way, the time of its own try is still there.
            "next_attempt_at": invoice.next_attempt_at
            if collection is Collection.SCHEDULED
            else None,
            "auto_collect": None if is_draft else invoice.auto_collect,
            "period_start": period and period.period_start,
            "period_end": period and period.period_end,
            "hosted_url": None
            if is_draft or self.links is None
            else self.links.to_invoice(invoice.id),
            "links": links,
        }


_SAME = InvoiceSummary.model_fields.keys() - {
    "client", "collection", "auto_collect", "next_attempt_at", "period_start", "period_end",
    "hosted_url", "links", "disputed",
}  # fmt: skip


def _story(session: Session, invoice: Invoice, beside: _Beside) -> Story:
    return Story(
        invoice=invoice,
        collection=beside.collection(invoice),
        is_billing_paused=session.get_one(Client, invoice.client_id).is_billing_paused(
            session.get_one(Account, invoice.account_id)
        ),
        method=beside.methods.get(invoice.client_id),
        is_card_elsewhere=invoice.client_id in beside.cards_elsewhere,
        attempts=session.scalars(
            select(PaymentAttempt)
            .where(PaymentAttempt.invoice_id == invoice.id)
            .order_by(PaymentAttempt.ordinal)
        ).all(),
        payments=session.scalars(
            select(Payment).where(Payment.invoice_id == invoice.id).order_by(Payment.id)
        ).all(),
        credit=session.scalars(
            select(CreditEntry).where(CreditEntry.invoice_id == invoice.id).order_by(CreditEntry.id)
        ).all(),
        notes=session.scalars(
            select(CreditNote).where(CreditNote.invoice_id == invoice.id).order_by(CreditNote.id)
        ).all(),
        refunds=session.scalars(
            select(Refund).where(Refund.invoice_id == invoice.id).order_by(Refund.id)
        ).all(),
        disputes=disputes_of(session, invoice.id),
        mails=session.scalars(
            select(Mail)
            .where(Mail.client_id == invoice.client_id, Mail.invoice_ids.contains([invoice.id]))
            .order_by(Mail.id)
        ).all(),
        write_offs=[
            WriteOff(at, amount)
            for at, amount in session.execute(
                select(LedgerEntry.posted_at, LedgerPosting.amount)
                .join(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
                .where(
                    LedgerEntry.invoice_id == invoice.id,
                    LedgerEntry.event == LedgerEvent.WRITE_OFF,
                    LedgerPosting.ledger_account == LedgerAccount.BAD_DEBT,
                )
                .order_by(LedgerEntry.id)
            )
        ],
    )
