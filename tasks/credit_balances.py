"""The movements of clients' credit: set-wise, and under the locks that keep it from being spent twice.

Promotional grants are a part of their balance. Whatever moves it leaves them so: what is spent is
taken from them first, and what a client owes is covered by them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Select, select, text, tuple_
from sqlalchemy.orm import Session

from billing.credit import (
    SPENDS_NO_GRANT,
    USED_BY_AN_INVOICE,
    CreditEntryKind,
    credit_to_apply,
)
from billing.cycles import local_date
from billing.invoice_states import InvoiceEvent, InvoiceStatus, transition
from billing.postings import (
    LedgerEvent,
    postings_for_applying_credit,
    postings_for_granting,
    reversed_postings,
)
from models import Account, CreditBalance, Invoice
from models.credit import balances_for_update
from models.payment_attempt import is_open_for
from models.refund import is_being_refunded
from tasks.auto_top_ups import ask_for_top_ups
from tasks.grants import Spending, empty_grants, expired_grants, may_expire, spend_grants
from tasks.page_closing import close_pages_for_credit
from tasks.posting import Entry, post


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditMove:
    """One movement of a client's credit, in ``currency``'s minor units: more is positive."""

    account_id: UUID
    client_id: UUID
    currency: str
    kind: CreditEntryKind
    amount: int
    requested_by: str
    invoice_id: UUID | None = None
    payment_id: UUID | None = None
    credit_note_id: UUID | None = None
    refund_id: UUID | None = None
    grant_id: UUID | None = None
    dispute_id: UUID | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """What of a grant has expired, in ``currency``'s minor units, and the day that counts for it."""

    grant_id: UUID
    client_id: UUID
    currency: str
    amount: int
    effective_on: date


# Entries and balances in one statement, so that a balance is always the sum of its entries. It
# answers with the grants that are a part of these balances, and with those.
_MOVE = text("""
WITH moves AS (
    SELECT * FROM unnest(:accounts ::uuid[], :clients ::uuid[], :currencies ::text[],
                         :kinds ::text[], :amounts ::bigint[], :invoices ::uuid[],
                         :payments ::uuid[], :credit_notes ::uuid[], :refunds ::uuid[],
                         :grants ::uuid[], :disputes ::uuid[], :notes ::text[],
                         :requesters ::text[])
        AS moves (account_id, client_id, currency, kind, amount, invoice_id, payment_id,
                  credit_note_id, refund_id, grant_id, dispute_id, note, requested_by)
), balances AS (
    INSERT INTO credit_balances (account_id, client_id, currency, balance)
    SELECT account_id, client_id, currency, sum(amount) FROM moves
     GROUP BY account_id, client_id, currency ORDER BY client_id, currency
        ON CONFLICT (client_id, currency)
        DO UPDATE SET balance = credit_balances.balance + EXCLUDED.balance
    RETURNING client_id, currency, balance
), entries AS (
    INSERT INTO credit_entries (client_id, currency, kind, amount, invoice_id, payment_id,
                                credit_note_id, refund_id, grant_id, dispute_id, note, requested_by)
    SELECT client_id, currency, kind, amount, invoice_id, payment_id, credit_note_id, refund_id,
           grant_id, dispute_id, note, requested_by
      FROM moves JOIN balances USING (client_id, currency)
)
SELECT id, client_id, currency, remaining, expires_on, balance
  FROM balances JOIN credit_grants USING (client_id, currency)
 WHERE remaining > 0
""")

_APPLY = text("""
UPDATE invoices
   SET credit_applied = credit_applied + applied.amount, status = applied.status,
       paid_at = CASE WHEN applied.status = 'paid' THEN :now ::timestamptz END,
       next_attempt_at = CASE WHEN applied.status = 'open' THEN next_attempt_at END
  FROM unnest(:ids ::uuid[], :amounts ::bigint[], :statuses ::text[])
       AS applied (id, amount, status)
 WHERE invoices.id = applied.id
""")


def balance_of(session: Session, client_id: UUID, currency: str) -> int:
    """A client's balance in minor units, locked until the transaction ends; 0 where it has none."""
    row = session.scalars(balances_for_update([(client_id, currency)])).one_or_none()
    return 0 if row is None else row.balance


def move_credit(session: Session, moves: Sequence[CreditMove]) -> None:
    """Write movements down, with the balances they change, in one statement.

    Where the clients have promotional credit, what is spent is taken from that first, in one
    statement more; spending may ask for a top-up. The caller holds the clients' locks; before it
    spends any, it has what has expired written down (``write_expiries``).
    """
    if not moves:
        return
    grants = session.execute(
        _MOVE,
        {
            "accounts": [move.account_id for move in moves],
            "clients": [move.client_id for move in moves],
            "currencies": [move.currency for move in moves],
            "kinds": [move.kind.value for move in moves],
            "amounts": [move.amount for move in moves],
            "invoices": [move.invoice_id for move in moves],
            "payments": [move.payment_id for move in moves],
            "credit_notes": [move.credit_note_id for move in moves],
            "refunds": [move.refund_id for move in moves],
            "grants": [move.grant_id for move in moves],
            "disputes": [move.dispute_id for move in moves],
            "notes": [move.note for move in moves],
            "requesters": [move.requested_by for move in moves],
        },
    ).all()
    if grants:
        spend_grants(session, grants, [_spending(move) for move in moves if _spends(move)])
    spenders = sorted({move.client_id for move in moves if move.amount < 0})
    if spenders:
        ask_for_top_ups(session, spenders, requested_by=moves[0].requested_by)


def _spends(move: CreditMove) -> bool:
    return move.amount < 0 and move.kind not in SPENDS_NO_GRANT


def _spending(move: CreditMove) -> Spending:
    return Spending(
        client_id=move.client_id,
        currency=move.currency,
        amount=-move.amount,
        invoice_id=move.invoice_id if move.kind in USED_BY_AN_INVOICE else None,
    )


def write_expiries(
    session: Session,
    account: Account,
    client_ids: Sequence[UUID],
    *,
    now: datetime,
    requested_by: str,
) -> int:
    """Write down what has expired of these clients' grants; of how many there was something.

    The caller holds the clients' locks. It counts for the day from which it could not be used.
    """
    expired = [
        Expired(
            grant_id=grant.id,
            client_id=grant.client_id,
            currency=grant.currency,
            amount=grant.remaining,
            effective_on=expires_on,
        )
        for grant, expires_on in expired_grants(session, account, client_ids, now)
    ]
    if expired:
        empty_grants(session, [one.grant_id for one in expired])
        expire(session, account, expired, requested_by=requested_by)
    return len(expired)


def expire(
    session: Session, account: Account, expired: Sequence[Expired], *, requested_by: str
) -> None:
    """Take from balances what is no part of a grant any more, and book it."""
    move_credit(
        session,
        [
            CreditMove(
                account_id=account.id,
                client_id=one.client_id,
                currency=one.currency,
                kind=CreditEntryKind.EXPIRED,
                amount=-one.amount,
                grant_id=one.grant_id,
                requested_by=requested_by,
            )
            for one in expired
        ],
    )
    post(
        session,
        LedgerEvent.EXPIRY,
        [
            Entry(
                account_id=account.id,
                client_id=one.client_id,
                currency=one.currency,
                effective_on=one.effective_on,
                grant_id=one.grant_id,
                postings=reversed_postings(postings_for_granting(one.amount)),
            )
            for one in expired
        ],
    )


def apply_credit(
    session: Session,
    account: Account,
    client_ids: Sequence[UUID],
    *,
    now: datetime,
    requested_by: str,
    invoice_ids: Sequence[UUID] | None = None,
    currency: str | None = None,
    at_most: int | None = None,
    takes_debits: bool = False,
) -> dict[UUID, int]:
    """Let open invoices use their clients' credit, oldest due first.

    The caller holds the clients' locks: a deposit and a finalization then see each other. An
    invoice with a charge or a refund under way is left alone; a page on which it could be paid is
    closed, so that it can use what is left then. What has expired pays nothing: that
    is written down first.

    Args:
        session: The transaction to do it in.
        account: Whose clients they are.
        client_ids: Whose credit.
        now: When it is used.
        requested_by: Who asks.
        invoice_ids: Only these invoices; any when ``None``.
        currency: Only in this currency.
        at_most: No more than this, in minor units, in all.
        takes_debits: Whether a balance below zero comes in, whole, with the first invoice.

    Returns:
        What each invoice used, in minor units, where that is not zero.
    """
    balances = session.execute(_balances(client_ids, currency, now)).all()
    if any(row.may_expire for row in balances) and write_expiries(
        session, account, client_ids, now=now, requested_by=requested_by
    ):
        balances = session.execute(_balances(client_ids, currency, now)).all()
    left = {
        (row.client_id, row.currency): row.balance
        for row in balances
        if row.balance > 0 or (row.balance < 0 and takes_debits)
    }
    if not left:
        return {}
    invoices = session.scalars(_candidates(list(left), invoice_ids)).all()
    used: dict[UUID, int] = {}
    for invoice in invoices:
        key = invoice.client_id, invoice.currency
        amount = credit_to_apply(left[key], invoice.amount_due)
        if at_most is not None:
            amount = min(amount, at_most - sum(used.values()))
        if amount:
            used[invoice.id] = amount
            left[key] -= amount
    using = [invoice for invoice in invoices if invoice.id in used]
    if using:
        _write(session, account, using, used, now=now, requested_by=requested_by)
    if invoice_ids is None and at_most is None:
        over = [key for key, balance in left.items() if balance > 0]
        if over:
            close_pages_for_credit(session, over, requested_by=requested_by)
    return used


def _balances(
    client_ids: Sequence[UUID], currency: str | None, now: datetime
) -> Select[UUID, str, int, bool]:
    """Balances, locked, and whether a grant that is a part of one may have expired."""
    wanted = (
        select(
            CreditBalance.client_id,
            CreditBalance.currency,
            CreditBalance.balance,
            may_expire(now).label("may_expire"),
        )
        .where(CreditBalance.client_id.in_(client_ids), CreditBalance.balance != 0)
        .order_by(CreditBalance.client_id, CreditBalance.currency)
        .with_for_update()
    )
    return wanted if currency is None else wanted.where(CreditBalance.currency == currency)


def _candidates(
    keys: Sequence[tuple[UUID, str]], invoice_ids: Sequence[UUID] | None
) -> Select[Invoice]:
    """Open invoices that may use credit, oldest due first, locked."""
    candidates = (
        select(Invoice)
        .where(
            tuple_(Invoice.client_id, Invoice.currency).in_(keys),
            Invoice.status == InvoiceStatus.OPEN,
            ~is_open_for(Invoice.id),
            ~is_being_refunded(Invoice.id),
        )
        .order_by(Invoice.due_on, Invoice.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return candidates if invoice_ids is None else candidates.where(Invoice.id.in_(invoice_ids))


def _write(
    session: Session,
    account: Account,
    invoices: Sequence[Invoice],
    used: dict[UUID, int],
    *,
    now: datetime,
    requested_by: str,
) -> None:
    today = local_date(now, ZoneInfo(account.time_zone))
    paid = transition(InvoiceStatus.OPEN, InvoiceEvent.PAY)
    session.execute(
        _APPLY,
        {
            "now": now,
            "ids": [invoice.id for invoice in invoices],
            "amounts": [used[invoice.id] for invoice in invoices],
            "statuses": [
                paid if invoice.amount_due == used[invoice.id] else InvoiceStatus.OPEN
                for invoice in invoices
            ],
        },
    )
    move_credit(
        session,
        [
            CreditMove(
                account_id=account.id,
                client_id=invoice.client_id,
                currency=invoice.currency,
                kind=CreditEntryKind.APPLIED,
                amount=-used[invoice.id],
                invoice_id=invoice.id,
                requested_by=requested_by,
            )
            for invoice in invoices
        ],
    )
    post(
        session,
        LedgerEvent.APPLY_CREDIT,
        [
            Entry(
                account_id=account.id,
                client_id=invoice.client_id,
                invoice_id=invoice.id,
                currency=invoice.currency,
                effective_on=today,
                postings=postings_for_applying_credit(used[invoice.id]),
            )
            for invoice in invoices
        ],
    )
    for invoice in invoices:
        session.expire(invoice)
