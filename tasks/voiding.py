"""Voiding: a finalized invoice no longer requires payment."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.cycles import local_date
from billing.errors import RuleViolation
from billing.invoice_states import InvoiceEvent, InvoiceStatus, transition
from billing.postings import LedgerEvent, postings_for_voiding
from models import Account, Invoice
from tasks.amending import remove_open_amendments, require_unamended
from tasks.bad_debt import recover
from tasks.credit_balances import CreditMove, apply_credit
from tasks.credit_notes import write_void_note
from tasks.credit_returns import return_credit
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome
from tasks.posting import Entry, post
from tasks.reissuing import reissue_charges
from tasks.taxing import taxes_of
from tasks.withdrawing import lock_invoice, withdraw_first


class VoidSettlement(StrEnum):
    """What becomes of money that was received for an invoice that is voided."""

    CREDIT = "credit"


@job(queue="billing", subject="invoice")
def void_invoice(
    run: Run,
    session: Session,
    *,
    invoice_id: UUID,
    settle: VoidSettlement | None = None,
    reissue: bool | None = None,
) -> Outcome:
    """Void an invoice: reversed in the books today, and the credit it had used given back.

    What was paid for it becomes credit where ``settle`` says so. A grant that it had used has it
    again, and what has expired since expires again at once. Credit is used at once for what
    else is open. Its charges stay with it; with ``reissue`` copies of them are open to be billed
    again, and the credit waits for those.
    """
    invoice = lock_invoice(session, run, invoice_id)
    require_voidable(invoice, settle)
    require_unamended(session, invoice)
    waits = withdraw_first(session, run, invoice)
    if waits is not None:
        return waits
    account = session.get_one(Account, invoice.account_id)
    today = local_date(run.now, ZoneInfo(account.time_zone))
    given_up, invoice.amount_written_off = invoice.amount_written_off, 0
    invoice.apply(InvoiceEvent.VOID, run.now)
    session.flush()
    # A void reverses a debt, so what was given up of it is one again first.
    recover(session, invoice, given_up, effective_on=today)
    post(
        session,
        LedgerEvent.VOID,
        [
            Entry(
                account_id=account.id,
                client_id=invoice.client_id,
                currency=invoice.currency,
                effective_on=today,
                invoice_id=invoice_id,
                postings=postings_for_voiding(
                    invoice.total,
                    invoice.credit_applied,
                    _kept(invoice),
                    taxes_of(session, invoice_id),
                    invoice.amount_lost,
                ),
            )
        ],
    )
    given_back = list(_given_back(invoice, run.requested_by))
    expired = return_credit(
        session, account, invoice, given_back, now=run.now, requested_by=run.requested_by
    )
    removed = remove_open_amendments(session, invoice)
    done: dict[str, Any] = {"invoice": str(invoice_id), "credit_returned": invoice.credit_applied}
    if expired:
        done["credit_expired"] = expired
    if _kept(invoice):
        done["kept_as_credit"] = _kept(invoice)
    if removed:
        done["amendments_removed"] = removed
    if account.void_makes_credit_note:
        note = write_void_note(
            session, account, invoice, now=run.now, requested_by=run.requested_by
        )
        done["credit_note"] = None if note is None else str(note.id)
    if reissue:
        # What it gave back waits for the copies, which are what it was meant for.
        done["charges"] = reissue_charges(session, run, invoice)
    else:
        apply_credit(
            session,
            account,
            [invoice.client_id],
            currency=invoice.currency,
            now=run.now,
            requested_by=f"job:{run.job_id}",
        )
    return Done(done)


def require_voidable(invoice: Invoice, settle: VoidSettlement | None = None) -> None:
    """Check that an invoice may be voided, but for charges under way.

    Raises:
        IllegalTransition: It is neither open nor uncollectible (``invoice_not_open``).
        RuleViolation: It has credit notes (``invoice_credited``); or money was received for it, and
            ``settle`` does not say what becomes of that (``invoice_partly_paid``).
    """
    transition(InvoiceStatus(invoice.status), InvoiceEvent.VOID)
    if invoice.amount_credited:
        raise RuleViolation(
            "invoice_credited", "this invoice has credit notes: credit the rest instead"
        )
    if _kept(invoice) and settle is None:
        raise RuleViolation(
            "invoice_partly_paid",
            "money was received for this invoice already; settle: credit keeps it for the client",
        )


def _kept(invoice: Invoice) -> int:
    """Money that was received for an invoice, and neither given back nor lost in a dispute."""
    return invoice.amount_paid - invoice.amount_refunded - invoice.amount_lost


def _given_back(invoice: Invoice, requested_by: str) -> Iterator[CreditMove]:
    """What the client has in hand again: credit that was used, and money that was paid."""
    for kind, amount in (
        (CreditEntryKind.RETURNED, invoice.credit_applied),
        (CreditEntryKind.SETTLED, _kept(invoice)),
    ):
        if amount:
            yield CreditMove(
                account_id=invoice.account_id,
                client_id=invoice.client_id,
                currency=invoice.currency,
                kind=kind,
                amount=amount,
                invoice_id=invoice.id,
                requested_by=requested_by,
            )
