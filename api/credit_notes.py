"""Credit notes: written for an invoice, listed, and as the PDF that the client gets."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth import Caller, Reader, Writer
from api.documents import PDF, DocumentsOf, PdfAnswer
from api.fields import FORBID_UNKNOWN, Note, PositiveAmount
from api.idempotency import Commanded
from api.invoices import invoice_of
from api.operations import commands, reads
from api.paging import Paging, newest_first
from api.shapes import JobReport, Page
from api.transactions import Transaction
from billing.credit_notes import Destination, require_creditable
from billing.errors import NotFound
from billing.invoice_states import InvoiceStatus
from models import CreditNote, InvoiceLine
from tasks.credit_note_documents import credit_note_document
from tasks.enqueueing import enqueue
from tasks.invoice_credits import credit_invoice, credit_invoice_to_card, require_note
from tasks.invoice_documents import filename
from tasks.withdrawing import require_no_payment_in_flight

router = APIRouter(tags=["credit notes"])

MAX_LINES = 1_000

_ID = "019ae8a3-5c00-7000-8000-000000000012"
_INVOICE = "019ae8a3-5c00-7000-8000-000000000003"

_EXAMPLE: dict[str, Any] = {
    "id": _ID,
    "client": "019ae8a3-5c00-7000-8000-000000000001",
    "invoice": _INVOICE,
    "number": "CN-000007",
    "currency": "usd",
    "amount": 480,
    "net": 400,
    "tax": 80,
    "taxes": [{"tax_rate": "019ae8a3-5c00-7000-8000-000000000013", "tax": 80}],
    "lines": ["019ae8a3-5c00-7000-8000-000000000004"],
    "lowered_due": 0,
    "returned": 480,
    "returned_to": "credit",
    "voids": False,
    "reason": "Two boxes arrived damaged",
    "issued_on": "2026-06-12",
    "created_at": "2026-06-12T09:30:00Z",
    "bill_from": {"name": "Bluebird Prep"},
    "bill_to": {"name": "Ada Imports"},
    "links": {
        "self": f"/v1/credit-notes/{_ID}",
        "invoice": f"/v1/invoices/{_INVOICE}",
        "pdf": f"/v1/credit-notes/{_ID}/pdf",
    },
}


class Crediting(BaseModel):
    """By how much to credit an invoice, tax included, or which of its charges; and where to."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={
            "examples": [{"amount": 480, "to": "credit", "reason": "Two boxes arrived damaged"}]
        }
    )

    amount: PositiveAmount | None = None
    lines: Annotated[list[UUID], Field(min_length=1, max_length=MAX_LINES)] | None = Field(
        default=None, description="Ids of the charges on the invoice, instead of an amount."
    )
    to: Destination = Field(
        description="Where goes what is over what is due: to the client's credit, back to the card "
        "that paid, or outside."
    )
    reason: Note | None = None


class RateCredited(BaseModel):
    """The tax of one rate that a note takes back."""

    tax_rate: UUID
    tax: int


class CreditNoteReport(BaseModel):
    """What a note takes back of its invoice, in `currency`'s minor unit; `amount` includes tax.

    It lowered what was due by `lowered_due`, and `returned` went to `returned_to`. `lines` are the
    charges that it names. One that `voids` its invoice is the document of the void, which moved
    the money itself.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: UUID
    client: UUID
    invoice: UUID
    number: str
    currency: str
    amount: int
    net: int
    tax: int
    taxes: list[RateCredited]
    lines: list[UUID]
    lowered_due: int
    returned: int
    returned_to: Destination | None
    voids: bool
    reason: str | None
    issued_on: date
    created_at: datetime
    bill_from: dict[str, Any] | None
    bill_to: dict[str, Any] | None
    links: dict[str, str]


class CreditNoteFilters(Paging):
    """Which credit notes to list."""

    invoice: UUID | None = None
    client: UUID | None = None


@router.post(
    "/v1/invoices/{invoice_id}/credit-notes",
    summary="Credit an invoice",
    status_code=202,
    response_model=JobReport,
    responses=commands(
        "invoice_not_found",
        "invoice_not_finalized",
        "invoice_not_open",
        "nothing_to_credit",
        "line_already_credited",
        "charge_amended",
        "payment_disputed",
        "payment_in_flight",
        "refund_in_flight",
        "amount_exceeds_invoice",
        "amount_exceeds_paid",
    ),
)
def credit(
    invoice_id: UUID, asked: Crediting, caller: Writer, session: Transaction, command: Commanded
) -> Response:
    """A note first lowers what is due; what is over goes where it is said to, with tax in proportion.

    Of an invoice that is uncollectible it lowers what was written off.

    To the card, one payment must be able to carry it, and the note is written once it has.
    """
    invoice = invoice_of(session, caller, invoice_id)
    require_creditable(InvoiceStatus(invoice.status))
    require_no_payment_in_flight(session, invoice_id)
    require_note(session, invoice, to=asked.to, amount=asked.amount, lines=asked.lines)
    to_card = asked.to == Destination.CARD
    job = enqueue(
        session,
        credit_invoice_to_card if to_card else credit_invoice,
        account_id=caller.account_id,
        requested_by=caller.requested_by,
        invoice_id=invoice.id,
        **asked.model_dump(exclude={"to"} if to_card else None),
    )
    return command.accepted(job.id)


@router.get("/v1/credit-notes", summary="List credit notes", responses=reads())
def list_credit_notes(
    filters: Annotated[CreditNoteFilters, Query()], caller: Reader, session: Transaction
) -> Page[CreditNoteReport]:
    """Newest first."""
    notes = select(CreditNote).where(CreditNote.account_id == caller.account_id)
    if filters.invoice is not None:
        notes = notes.where(CreditNote.invoice_id == filters.invoice)
    if filters.client is not None:
        notes = notes.where(CreditNote.client_id == filters.client)
    found = newest_first(session, notes, CreditNote.id, filters, read=UUID)
    charges = _charges_named_by(session, found.rows)
    return found.page(lambda note: _report(note, charges))


@router.get(
    "/v1/credit-notes/{credit_note_id}",
    summary="Show a credit note",
    responses=reads("credit_note_not_found"),
)
def show_credit_note(
    credit_note_id: UUID, caller: Reader, session: Transaction
) -> CreditNoteReport:
    """One credit note."""
    note = _note_of(session, caller, credit_note_id)
    return _report(note, _charges_named_by(session, [note]))


@router.get(
    "/v1/credit-notes/{credit_note_id}/pdf",
    summary="Show a credit note as PDF",
    response_class=Response,
    responses={**PDF, **reads("credit_note_not_found")},
)
def show_pdf(
    credit_note_id: UUID, caller: Reader, session: Transaction, documents: DocumentsOf
) -> Response:
    """The document, to be handed to the client."""
    note = _note_of(session, caller, credit_note_id)
    return PdfAnswer(documents, credit_note_document(session, note), filename(note))


def _note_of(session: Session, caller: Caller, note_id: UUID) -> CreditNote:
    note = session.get(CreditNote, note_id)
    if note is None or note.account_id != caller.account_id:
        raise NotFound("credit_note", str(note_id))
    return note


Charges = dict[tuple[UUID, int], UUID]
"""The charge on each line, by invoice and position."""


def _charges_named_by(session: Session, notes: Sequence[CreditNote]) -> Charges:
    lines = session.execute(
        select(InvoiceLine.invoice_id, InvoiceLine.position, InvoiceLine.charge_id).where(
            InvoiceLine.invoice_id.in_({note.invoice_id for note in notes if note.positions})
        )
    )
    return {(invoice, position): charge for invoice, position, charge in lines}


def _report(note: CreditNote, charges: Charges) -> CreditNoteReport:
    others = {"client", "invoice", "taxes", "lines", "lowered_due", "links"}
    return CreditNoteReport(
        **{name: getattr(note, name) for name in CreditNoteReport.model_fields.keys() - others},
        client=note.client_id,
        invoice=note.invoice_id,
        taxes=[RateCredited(tax_rate=UUID(rate), tax=tax) for rate, tax in note.taxes.items()],
        lines=[charges[note.invoice_id, position] for position in note.positions],
        lowered_due=note.lowers_due,
        links={
            "self": f"/v1/credit-notes/{note.id}",
            "invoice": f"/v1/invoices/{note.invoice_id}",
            "pdf": f"/v1/credit-notes/{note.id}/pdf",
        },
    )
