"""Invoices: read at once; drafted, finalized, voided and deleted by jobs."""

from collections.abc import Callable, Iterable
from datetime import date, datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth import Caller, Reader, Writer
from api.clients import client_of
from api.fields import FORBID_UNKNOWN, NoOptions, plain
from api.idempotency import Commanded, CommandedWithoutKey
from api.operations import commands, reads
from api.paging import Paging, newest_first
from api.shapes import JobReport, Page
from api.transactions import Transaction
from billing.errors import NotFound, RuleViolation
from billing.invoice_states import InvoiceEvent, InvoiceStatus, transition
from models import BillingPeriod, Charge, Invoice, InvoiceLine
from tasks.drafting import delete_draft, draft_invoice, require_draft, require_open
from tasks.enqueueing import enqueue
from tasks.finalizing import finalize_invoice
from tasks.kinds import JobKind
from tasks.voiding import void_invoice

router = APIRouter(tags=["invoices"])

MAX_SELECTED = 1_000

_EXAMPLE: dict[str, Any] = {
    "id": "019ae8a3-5c00-7000-8000-000000000003",
    "client": "019ae8a3-5c00-7000-8000-000000000001",
    "number": "INV-000042",
    "status": "open",
    "currency": "usd",
    "subtotal": 1100,
    "tax": 0,
    "total": 1100,
    "credit_applied": 0,
    "amount_paid": 0,
    "amount_due": 1100,
    "period_start": "2026-05-01",
    "period_end": "2026-06-01",
    "issued_on": "2026-06-01",
    "due_on": "2026-06-15",
    "finalized_at": "2026-06-01T12:00:00Z",
    "paid_at": None,
    "voided_at": None,
    "created_at": "2026-06-01T12:00:00Z",
    "bill_from": {"name": "Bluebird Prep"},
    "bill_to": {"name": "Ada Imports"},
    "links": {
        "self": "/v1/invoices/019ae8a3-5c00-7000-8000-000000000003",
        "client": "/v1/clients/019ae8a3-5c00-7000-8000-000000000001",
    },
}
_EXAMPLE_LINE: dict[str, Any] = {
    "charge": "019ae8a3-5c00-7000-8000-000000000004",
    "charged_on": "2026-05-12",
    "description": "FNSKU labelling",
    "quantity": "40",
    "unit_price": "0.275",
    "amount": 1100,
}


class InvoiceCreation(BaseModel):
    """Whose charges to draft: all that are open, or the selected ones."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={"examples": [{"client": "019ae8a3-5c00-7000-8000-000000000001"}]}
    )

    client: UUID
    charge_ids: Annotated[list[UUID], Field(min_length=1, max_length=MAX_SELECTED)] | None = None


class InvoiceSummary(BaseModel):
    """An invoice without its lines. Amounts are in `currency`'s minor unit."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: UUID
    client: UUID
    number: str | None
    status: InvoiceStatus
    currency: str
    subtotal: int
    tax: int
    total: int
    credit_applied: int
    amount_paid: int
    amount_due: int
    period_start: date | None
    period_end: date | None
    issued_on: date | None
    due_on: date | None
    finalized_at: datetime | None
    paid_at: datetime | None
    voided_at: datetime | None
    created_at: datetime
    bill_from: dict[str, Any] | None
    bill_to: dict[str, Any] | None
    links: dict[str, str]


class LineReport(BaseModel):
    """One charge on an invoice."""

    charge: UUID
    charged_on: date
    description: str
    quantity: str
    unit_price: str | None
    amount: int


class InvoiceReport(InvoiceSummary):
    """An invoice. A draft's lines are its charges as they are now; later ones are frozen."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_EXAMPLE, "lines": [_EXAMPLE_LINE]}]}
    )

    lines: list[LineReport]


class InvoiceFilters(Paging):
    """Which invoices to list."""

    client: UUID | None = None
    status: InvoiceStatus | None = None


@router.post(
    "/v1/invoices",
    summary="Draft a client's open charges",
    status_code=202,
    response_model=JobReport,
    responses=commands(
        "client_not_found", "charge_not_found", "charge_already_invoiced", "nothing_to_bill"
    ),
)
def draft(
    new: InvoiceCreation, caller: Writer, session: Transaction, command: Commanded
) -> Response:
    """Charges in two currencies make two drafts; the job's result lists them."""
    client = client_of(session, caller, new.client)
    if new.charge_ids is not None:
        require_open(session, client.id, new.charge_ids)
    elif _has_no_open_charges(session, client.id):
        raise RuleViolation("nothing_to_bill", "the client has no open charges")
    job = enqueue(
        session,
        draft_invoice,
        account_id=caller.account_id,
        requested_by=caller.requested_by,
        client_id=client.id,
        charge_ids=new.charge_ids,
    )
    return command.accepted(job.id)


@router.get("/v1/invoices", summary="List invoices", responses=reads())
def list_invoices(
    filters: Annotated[InvoiceFilters, Query()], caller: Reader, session: Transaction
) -> Page[InvoiceSummary]:
    """Newest first, without their lines."""
    invoices = select(Invoice).where(Invoice.account_id == caller.account_id)
    if filters.client is not None:
        invoices = invoices.where(Invoice.client_id == filters.client)
    if filters.status is not None:
        invoices = invoices.where(Invoice.status == filters.status)
    found = newest_first(session, invoices, Invoice.id, filters, read=UUID)
    periods = _periods(session, found.rows)
    return found.page(lambda invoice: InvoiceSummary(**_fields(invoice, periods)))


@router.get(
    "/v1/invoices/{invoice_id}", summary="Show an invoice", responses=reads("invoice_not_found")
)
def show_invoice(invoice_id: UUID, caller: Reader, session: Transaction) -> InvoiceReport:
    """One invoice with its lines."""
    invoice = _invoice_of(session, caller, invoice_id)
    return InvoiceReport(
        **_fields(invoice, _periods(session, [invoice])), lines=_lines(session, invoice)
    )


@router.delete(
    "/v1/invoices/{invoice_id}",
    summary="Delete a draft",
    status_code=202,
    response_model=JobReport,
    responses=commands("invoice_not_found", "invoice_not_draft"),
)
def delete(
    invoice_id: UUID, caller: Writer, session: Transaction, command: CommandedWithoutKey
) -> Response:
    """Its charges are open again; nothing else remembers it."""
    return command.accepted(_enqueue(session, caller, invoice_id, delete_draft, require_draft))


@router.post(
    "/v1/invoices/{invoice_id}/finalize",
    summary="Finalize and lock a draft",
    status_code=202,
    response_model=JobReport,
    responses=commands("invoice_not_found", "invoice_not_draft"),
)
def finalize(
    invoice_id: UUID,
    caller: Writer,
    session: Transaction,
    command: Commanded,
    _options: NoOptions | None = None,
) -> Response:
    """It gets its number, its lines are frozen, and it is posted to the books."""
    allowed = partial(transition, event=InvoiceEvent.FINALIZE)
    return command.accepted(_enqueue(session, caller, invoice_id, finalize_invoice, allowed))


@router.post(
    "/v1/invoices/{invoice_id}/void",
    summary="Void a finalized invoice",
    status_code=202,
    response_model=JobReport,
    responses=commands("invoice_not_found", "invoice_not_open"),
)
def void(
    invoice_id: UUID,
    caller: Writer,
    session: Transaction,
    command: Commanded,
    _options: NoOptions | None = None,
) -> Response:
    """It no longer requires payment. Its number and its charges stay with it."""
    allowed = partial(transition, event=InvoiceEvent.VOID)
    return command.accepted(_enqueue(session, caller, invoice_id, void_invoice, allowed))


def _enqueue(
    session: Session,
    caller: Caller,
    invoice_id: UUID,
    kind: JobKind,
    require_allowed: Callable[[InvoiceStatus], object],
) -> UUID:
    """The job that will do it, unless it is certain already that the status forbids it."""
    invoice = _invoice_of(session, caller, invoice_id)
    require_allowed(InvoiceStatus(invoice.status))
    job = enqueue(
        session,
        kind,
        account_id=caller.account_id,
        requested_by=caller.requested_by,
        invoice_id=invoice_id,
    )
    return job.id


def _invoice_of(session: Session, caller: Caller, invoice_id: UUID) -> Invoice:
    invoice = session.get(Invoice, invoice_id)
    if invoice is None or invoice.account_id != caller.account_id:
        raise NotFound("invoice", str(invoice_id))
    return invoice


def _has_no_open_charges(session: Session, client_id: UUID) -> bool:
    some = select(Charge.id).where(Charge.client_id == client_id, Charge.invoice_id.is_(None))
    return session.scalar(some.limit(1)) is None


def _periods(session: Session, invoices: Iterable[Invoice]) -> dict[UUID, BillingPeriod]:
    ids = [invoice.period_id for invoice in invoices if invoice.period_id is not None]
    periods = session.scalars(select(BillingPeriod).where(BillingPeriod.id.in_(ids)))
    return {period.id: period for period in periods}


def _fields(invoice: Invoice, periods: dict[UUID, BillingPeriod]) -> dict[str, Any]:
    """What both reports of an invoice show."""
    period = None if invoice.period_id is None else periods[invoice.period_id]
    same = InvoiceSummary.model_fields.keys() - {"client", "period_start", "period_end", "links"}
    return {
        **{name: getattr(invoice, name) for name in same},
        "client": invoice.client_id,
        "period_start": period and period.period_start,
        "period_end": period and period.period_end,
        "links": {
            "self": f"/v1/invoices/{invoice.id}",
            "client": f"/v1/clients/{invoice.client_id}",
        },
    }


def _lines(session: Session, invoice: Invoice) -> list[LineReport]:
    if invoice.status == InvoiceStatus.DRAFT:
        charges = session.scalars(
            select(Charge)
            .where(Charge.client_id == invoice.client_id, Charge.invoice_id == invoice.id)
            .order_by(Charge.charged_on, Charge.id)
        )
        return [_line(charge, charge.id) for charge in charges]
    lines = session.scalars(
        select(InvoiceLine)
        .where(InvoiceLine.invoice_id == invoice.id)
        .order_by(InvoiceLine.position)
    )
    return [_line(line, line.charge_id) for line in lines]


def _line(line: Charge | InvoiceLine, charge_id: UUID) -> LineReport:
    return LineReport(
        charge=charge_id,
        charged_on=line.charged_on,
        description=line.description,
        quantity=plain(line.quantity),
        unit_price=None if line.unit_price is None else plain(line.unit_price),
        amount=line.amount,
    )
