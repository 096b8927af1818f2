"""What can be asked of invoices: each command is done by a job, unless it is certain to be refused."""

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.auth import Caller, Writer
from api.clients import client_of
from api.credit import balance_now
from api.fields import (
    FORBID_UNKNOWN,
    Flag,
    IsoDate,
    NoOptions,
    Note,
    PositiveAmount,
    ShortText,
    Total,
)
from api.idempotency import Commanded, CommandedWithoutKey
from api.invoices import invoice_of
from api.operations import commands
from api.shapes import JobReport
from api.transactions import Transaction
from billing.cycles import local_date
from billing.errors import RuleViolation
from billing.invoice_states import InvoiceEvent, InvoiceStatus, transition
from billing.outside_payments import OutsideMethod
from models import Account, Charge, Client, Invoice
from models.database import database_now
from tasks.amending import require_unamended
from tasks.announcing import require_sendable, send_invoice
from tasks.archiving import require_not_archived
from tasks.charging import charge_invoice, require_billing_method
from tasks.charging import require_open as require_unpaid
from tasks.closing import require_open_books
from tasks.crediting import apply_invoice_credit, require_credit
from tasks.drafting import delete_draft, draft_invoice, require_draft
from tasks.drafting import require_open as require_open_charges
from tasks.enqueueing import enqueue
from tasks.finalizing import finalize_invoice, require_total
from tasks.kinds import JobKind
from tasks.marking_paid import mark_invoice_paid, require_owed, require_payable
from tasks.reissuing import reissue_invoice, require_reissuable
from tasks.voiding import VoidSettlement, require_voidable, void_invoice
from tasks.withdrawing import require_no_payment_in_flight
from tasks.writing_off import require_open_debt, write_off_invoice

router = APIRouter(tags=["invoices"])

MAX_SELECTED = 1_000


class InvoiceCreation(BaseModel):
    """Whose charges to draft: all that are open, or the selected ones."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={"examples": [{"client": "019ae8a3-5c00-7000-8000-000000000001"}]}
    )

    client: UUID
    charge_ids: Annotated[list[UUID], Field(min_length=1, max_length=MAX_SELECTED)] | None = None


class Finalization(BaseModel):
    """On what condition, and how to go on once it is final."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={"examples": [{"collect": True, "expected_total": 3300}]}
    )

    collect: Flag | None = Field(
        default=None,
        description="Charge the client's card by itself, also for a draft that was made by hand.",
    )
    expected_total: Total | None = Field(
        default=None,
        description="What the draft came to when it was looked at, in minor units; where it comes "
        "to something else by now, it stays a draft (`total_changed`).",
    )


class Voiding(BaseModel):
    """What becomes of what was paid, and of what was billed."""

    model_config = FORBID_UNKNOWN | ConfigDict(json_schema_extra={"examples": [{"reissue": True}]})

    settle: VoidSettlement | None = Field(
        default=None,
        description="`credit` keeps what was paid for it in part as the client's credit; without "
        "it, such an invoice is not voided.",
    )
    reissue: Flag | None = Field(
        default=None, description="Open copies of its charges, to be billed again."
    )


class Overpayment(StrEnum):
    """What becomes of money above what is due."""

    CREDIT = "credit"


class OutsidePayment(BaseModel):
    """Money that came in some other way: all that is due, by an unnamed way, today, if left out."""

    model_config = FORBID_UNKNOWN | ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "amount": 1100,
                    "method": "bank_transfer",
                    "reference": "wire 8841",
                    "paid_on": "2026-06-10",
                }
            ]
        }
    )

    amount: PositiveAmount | None = None
    method: OutsideMethod = OutsideMethod.OTHER
    reference: ShortText | None = None
    paid_on: IsoDate | None = Field(default=None, description="Today in the account's zone.")
    note: Note | None = None
    overpayment: Overpayment | None = Field(
        default=None, description="Send `credit` to keep what is above the amount due as credit."
    )


class CreditApplication(BaseModel):
    """How much credit to use: as much as is there and due, or less."""

    model_config = FORBID_UNKNOWN | ConfigDict(json_schema_extra={"examples": [{"amount": 500}]})

    amount: PositiveAmount | None = None


@router.post(
    "/v1/invoices",
    summary="Draft a client's open charges",
    status_code=202,
    response_model=JobReport,
    responses=commands(
        "client_not_found",
        "client_archived",
        "charge_not_found",
        "charge_already_invoiced",
        "nothing_to_bill",
    ),
)
def draft(
    new: InvoiceCreation, caller: Writer, session: Transaction, command: Commanded
) -> Response:
    """Charges in two currencies make two drafts; the job's result lists them."""
    client = client_of(session, caller, new.client)
    require_not_archived(client)
    if new.charge_ids is not None:
        require_open_charges(session, client.id, new.charge_ids)
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
    invoice = invoice_of(session, caller, invoice_id)
    require_draft(InvoiceStatus(invoice.status))
    return command.accepted(_enqueue(session, caller, delete_draft, invoice))


@router.post(
    "/v1/invoices/{invoice_id}/finalize",
    summary="Finalize and lock a draft",
    status_code=202,
    response_model=JobReport,
    responses=commands("invoice_not_found", "invoice_not_draft", "total_changed"),
)
def finalize(
    invoice_id: UUID,
    caller: Writer,
    session: Transaction,
    command: Commanded,
    options: Finalization | None = None,
) -> Response:
    """It gets its number and is posted to the books; credit pays what it can, the client is told."""
    invoice = invoice_of(session, caller, invoice_id)
    transition(InvoiceStatus(invoice.status), InvoiceEvent.FINALIZE)
    options = options or Finalization()
    require_total(invoice.total, options.expected_total)
    job = _enqueue(session, caller, finalize_invoice, invoice, **options.model_dump())
    return command.accepted(job)


@router.post(
    "/v1/invoices/{invoice_id}/void",
    summary="Void a finalized invoice",
    status_code=202,
    response_model=JobReport,
    responses=commands(
        "invoice_not_found",
        "invoice_not_open",
        "invoice_partly_paid",
        "charge_amended",
        "invoice_credited",
        "payment_in_flight",
        "refund_in_flight",
    ),
)
def void(
    invoice_id: UUID,
    caller: Writer,
    session: Transaction,
    command: Commanded,
    options: Voiding | None = None,
) -> Response:
    """It no longer requires payment. Its number and charges stay with it; credit used is returned.

    What would have billed a difference to its charges, being edited since, is removed. It is not
    voided where that is on a finalized invoice: void that one first.
    """
    invoice = invoice_of(session, caller, invoice_id)
    options = options or Voiding()
    require_voidable(invoice, options.settle)
    require_unamended(session, invoice)
    require_no_payment_in_flight(session, invoice_id)
    job = _enqueue(session, caller, void_invoice, invoice, **options.model_dump())
    return command.accepted(job)


@router.post(
    "/v1/invoices/{invoice_id}/reissue",
    summary="Open a void invoice's charges again",
    status_code=202,
    response_model=JobReport,
    responses=commands("invoice_not_found", "invoice_not_void", "invoice_already_reissued"),
)
def reissue(
    invoice_id: UUID,
    caller: Writer,
    session: Transaction,
    command: Commanded,
    _options: NoOptions | None = None,
) -> Response:
    """Copies of its charges, with their dates and prices, are open to be billed; once an invoice.

    Amendments among them go on amending the same charges, but for those of charges that were
    edited since: what that edit asked for stands.
    """
    invoice = invoice_of(session, caller, invoice_id)
    require_reissuable(invoice)
    return command.accepted(_enqueue(session, caller, reissue_invoice, invoice))


@router.post(
    "/v1/invoices/{invoice_id}/charge",
    summary="Charge the client's card",
    status_code=202,
    response_model=JobReport,
    responses=commands(
        "invoice_not_found",
        "invoice_not_open",
        "no_billing_method",
        "payment_in_flight",
        "refund_in_flight",
    ),
)
def charge(
    invoice_id: UUID,
    caller: Writer,
    session: Transaction,
    command: Commanded,
    _options: NoOptions | None = None,
) -> Response:
    """For all that is due; it uses up no scheduled try. A decline is the job's result, no error."""
    invoice = invoice_of(session, caller, invoice_id)
    require_unpaid(InvoiceStatus(invoice.status))
    require_no_payment_in_flight(session, invoice_id)
    require_billing_method(session, invoice.client_id)
    return command.accepted(_enqueue(session, caller, charge_invoice, invoice))


@router.post(
    "/v1/invoices/{invoice_id}/mark-paid",
    summary="Record an outside payment",
    status_code=202,
    response_model=JobReport,
    responses=commands(
        "invoice_not_found",
        "invoice_not_open",
        "payment_in_flight",
        "refund_in_flight",
        "amount_exceeds_due",
        "books_closed",
    ),
)
def mark_paid(
    invoice_id: UUID,
    caller: Writer,
    session: Transaction,
    command: Commanded,
    payment: OutsidePayment | None = None,
) -> Response:
    """Of all that is due, or of a part of it, which leaves the invoice open. The client is told.

    An uncollectible invoice recovers what was written off of it, and is paid once that is nothing.
    """
    told = payment or OutsidePayment()
    invoice = invoice_of(session, caller, invoice_id)
    account = session.get_one(Account, caller.account_id)
    require_owed(InvoiceStatus(invoice.status))
    require_payable(
        invoice,
        told.amount,
        told.paid_on,
        today=local_date(database_now(session), ZoneInfo(account.time_zone)),
        overpayment=told.overpayment,
    )
    require_open_books(session, account.id, "paid_on", told.paid_on)
    require_no_payment_in_flight(session, invoice_id)
    return command.accepted(
        _enqueue(session, caller, mark_invoice_paid, invoice, **told.model_dump())
    )


@router.post(
    "/v1/invoices/{invoice_id}/write-off",
    summary="Give up what is due of an invoice",
    status_code=202,
    response_model=JobReport,
    responses=commands("invoice_not_found", "invoice_not_open", "payment_in_flight"),
)
def write_off(
    invoice_id: UUID,
    caller: Writer,
    session: Transaction,
    command: Commanded,
    _options: NoOptions | None = None,
) -> Response:
    """It is bad debt in the books and charged to no card any more. What is paid later is recovered."""
    invoice = invoice_of(session, caller, invoice_id)
    require_open_debt(invoice)
    require_no_payment_in_flight(session, invoice_id)
    return command.accepted(_enqueue(session, caller, write_off_invoice, invoice))


@router.post(
    "/v1/invoices/{invoice_id}/apply-credit",
    summary="Use credit for an invoice",
    status_code=202,
    response_model=JobReport,
    responses=commands(
        "invoice_not_found",
        "invoice_not_open",
        "insufficient_credit",
        "payment_in_flight",
        "refund_in_flight",
        "amount_exceeds_due",
    ),
)
def apply_credit(
    invoice_id: UUID,
    caller: Writer,
    session: Transaction,
    command: Commanded,
    use: CreditApplication | None = None,
) -> Response:
    """The client's credit in the invoice's currency, as far as it goes."""
    amount = None if use is None else use.amount
    invoice = invoice_of(session, caller, invoice_id)
    require_unpaid(InvoiceStatus(invoice.status), "apply credit to")
    require_credit(balance_now(session, invoice.client_id, invoice.currency), invoice, amount)
    require_no_payment_in_flight(session, invoice_id)
    return command.accepted(_enqueue(session, caller, apply_invoice_credit, invoice, amount=amount))


@router.post(
    "/v1/invoices/{invoice_id}/send",
    summary="Mail an invoice to its client again",
    status_code=202,
    response_model=JobReport,
    responses=commands("invoice_not_found", "invoice_not_open", "no_email", "nothing_to_send"),
)
def send(
    invoice_id: UUID,
    caller: Writer,
    session: Transaction,
    command: Commanded,
    _options: NoOptions | None = None,
) -> Response:
    """Whatever is switched off; one that is paid is sent as a receipt."""
    invoice = invoice_of(session, caller, invoice_id)
    require_sendable(invoice, session.get_one(Client, invoice.client_id))
    return command.accepted(_enqueue(session, caller, send_invoice, invoice))


def _enqueue(
    session: Session, caller: Caller, kind: JobKind, invoice: Invoice, **told: Any
) -> UUID:
    """The job that will do it."""
    job = enqueue(
        session,
        kind,
        account_id=caller.account_id,
        requested_by=caller.requested_by,
        invoice_id=invoice.id,
        **told,
    )
    return job.id


def _has_no_open_charges(session: Session, client_id: UUID) -> bool:
    some = select(Charge.id).where(Charge.client_id == client_id, Charge.invoice_id.is_(None))
    return session.scalar(some.limit(1)) is None
