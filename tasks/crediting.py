"""Credit on demand: deposits, corrections, and using it for what is open."""

from datetime import date
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.currencies import currency_code
from billing.cycles import local_date
from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.outside_payments import OutsideMethod
from billing.postings import LedgerEvent, postings_for_adjusting
from models import Account, Client, Invoice, PaymentSource
from models.client import clients_for_update
from tasks.charging import require_open
from tasks.credit_balances import (
    CreditMove,
    apply_credit,
    balance_of,
    move_credit,
    write_expiries,
)
from tasks.kinds import Run, job
from tasks.mailing import tell_receipt
from tasks.outcomes import Done, Outcome
from tasks.payments import Received, receive, require_some
from tasks.posting import Entry, post
from tasks.withdrawing import lock_invoice, withdraw_first


@job(queue="billing", subject="client")
def deposit_credit(
    run: Run,
    session: Session,
    *,
    client_id: UUID,
    amount: int,
    currency: str,
    reference: str | None = None,
    note: str | None = None,
    apply: bool = True,
) -> Outcome:
    """Record money that a client paid in ahead; its open invoices use it at once."""
    require_some(amount)
    currency = currency_code(currency)
    account, client = lock_client(session, run, client_id)
    payment = receive(
        session,
        account,
        Received(
            client_id=client_id,
            currency=currency,
            amount=amount,
            source=PaymentSource.OUTSIDE,
            paid_on=_today(run, account),
            event=LedgerEvent.DEPOSIT,
            excess=CreditEntryKind.DEPOSIT,
            requested_by=run.requested_by,
            method=OutsideMethod.OTHER,
            reference=reference,
            note=note,
            applies_credit=apply,
        ),
        invoice=None,
        now=run.now,
    )
    tell_receipt(session, account, client, payment, requested_by=f"job:{run.job_id}")
    return Done(
        {
            "client": str(client_id),
            "payment": str(payment.id),
            "balance": balance_of(session, client_id, currency),
        }
    )


@job(queue="billing", subject="client")
def adjust_credit(
    run: Run, session: Session, *, client_id: UUID, amount: int, currency: str, note: str
) -> Outcome:
    """Correct a balance up or down; never below zero. What is added is used at once."""
    currency = currency_code(currency)
    account, _client = lock_client(session, run, client_id)
    write_expiries(session, account, [client_id], now=run.now, requested_by=f"job:{run.job_id}")
    require_covered(balance_of(session, client_id, currency), amount)
    move_credit(
        session,
        [
            CreditMove(
                account_id=account.id,
                client_id=client_id,
                currency=currency,
                kind=CreditEntryKind.ADJUSTMENT,
                amount=amount,
                note=note,
                requested_by=run.requested_by,
            )
        ],
    )
    post(
        session,
        LedgerEvent.ADJUSTMENT,
        [
            Entry(
                account_id=account.id,
                client_id=client_id,
                currency=currency,
                effective_on=_today(run, account),
                postings=postings_for_adjusting(amount),
            )
        ],
    )
    if amount > 0:
        apply_credit(
            session,
            account,
            [client_id],
            currency=currency,
            now=run.now,
            requested_by=f"job:{run.job_id}",
        )
    return Done({"client": str(client_id), "balance": balance_of(session, client_id, currency)})


@job(queue="billing", subject="client")
def apply_client_credit(
    run: Run,
    session: Session,
    *,
    client_id: UUID,
    currency: str | None = None,
    amount: int | None = None,
) -> Outcome:
    """Use a client's credit for its open invoices, oldest due first.

    Every currency for its own invoices; an ``amount`` without one is in the client's own.
    """
    account, client = lock_client(session, run, client_id)
    if amount is not None:
        require_some(amount)
        currency = currency or client.currency or account.currency
    if currency is not None:
        currency = currency_code(currency)
    used = apply_credit(
        session,
        account,
        [client_id],
        currency=currency,
        at_most=amount,
        now=run.now,
        requested_by=run.requested_by,
    )
    return Done({"client": str(client_id), "applied": {str(key): used[key] for key in used}})


@job(queue="billing", subject="invoice")
def apply_invoice_credit(
    run: Run, session: Session, invoice_id: UUID, amount: int | None = None
) -> Outcome:
    """Use its client's credit for one open invoice, as far as it goes or as much as is asked."""
    invoice = lock_invoice(session, run, invoice_id)
    require_open(InvoiceStatus(invoice.status), "apply credit to")
    account = session.get_one(Account, invoice.account_id)
    write_expiries(
        session, account, [invoice.client_id], now=run.now, requested_by=f"job:{run.job_id}"
    )
    require_credit(balance_of(session, invoice.client_id, invoice.currency), invoice, amount)
    waits = withdraw_first(session, run, invoice)
    if waits is not None:
        return waits
    used = apply_credit(
        session,
        account,
        [invoice.client_id],
        invoice_ids=[invoice_id],
        currency=invoice.currency,
        at_most=amount,
        now=run.now,
        requested_by=run.requested_by,
    )
    return Done({"invoice": str(invoice_id), "applied": used.get(invoice_id, 0)})


def require_covered(balance: int, amount: int) -> None:
    """Check that a correction moves something, and does not take a balance below zero.

    Raises:
        InvalidInput: ``amount`` is zero.
        RuleViolation: It would (``insufficient_credit``).
    """
    if amount == 0:
        raise InvalidInput("amount", "must not be zero")
    if amount < 0 and balance + amount < 0:
        raise RuleViolation(
            "insufficient_credit", f"the balance is {balance}: it cannot go down by {-amount}"
        )


def require_credit(balance: int, invoice: Invoice, amount: int | None) -> None:
    """Check that an invoice can use so much credit.

    Raises:
        InvalidInput: Nothing, or more than is due (``amount_exceeds_due``).
        RuleViolation: More than there is, or there is none (``insufficient_credit``).
    """
    if amount is not None:
        require_some(amount)
    if amount is not None and amount > invoice.amount_due:
        raise InvalidInput(
            "amount", f"is more than the {invoice.amount_due} that are due", "amount_exceeds_due"
        )
    if balance < (amount or 1):
        raise RuleViolation("insufficient_credit", f"the client's balance is {balance}")


def lock_client(session: Session, run: Run, client_id: UUID) -> tuple[Account, Client]:
    """A client of the job's account, locked, and the account.

    Raises:
        NotFound: The account has no such client.
    """
    find = clients_for_update([client_id]).where(Client.account_id == run.account_id)
    client = session.scalars(find).one_or_none()
    if client is None:
        raise NotFound("client", str(client_id))
    return session.get_one(Account, client.account_id), client


def _today(run: Run, account: Account) -> date:
    return local_date(run.now, ZoneInfo(account.time_zone))
