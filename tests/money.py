"""Invoices, credit and payments made by tests, and what must be true of them at any time."""

from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from billing.collection import AttemptState, Origin
from models import (
    Account,
    Client,
    CreditBalance,
    CreditEntry,
    CreditGrant,
    Invoice,
    Job,
    LedgerEntry,
    LedgerPosting,
    Mail,
    Payment,
    PaymentAttempt,
)
from tasks.billing_methods import set_billing_method
from tasks.charging import charge_invoice
from tasks.crediting import adjust_credit, deposit_credit
from tasks.drafting import draft_invoice
from tasks.enqueueing import enqueue
from tasks.finalizing import finalize_invoice
from tasks.granting import grant_credit
from tasks.kinds import JobKind
from tests.worlds import NOW, a_charge, audited, invoices_of, perform

MAY = date(2026, 5, 1)

# Each is a row for every place where money is lost or doubled, whatever the audit says.
_MUST_BE_EMPTY = {
    "a balance is the sum of its entries": """
        SELECT client_id, currency, balance, entries.amount FROM credit_balances
          FULL JOIN (SELECT client_id, currency, sum(amount) AS amount FROM credit_entries
                      GROUP BY client_id, currency) AS entries USING (client_id, currency)
         WHERE balance IS DISTINCT FROM COALESCE(entries.amount, 0)
    """,
    "the books owe a client what it has in hand": """
        SELECT client_id, currency, balance, booked.amount FROM credit_balances
          FULL JOIN (SELECT client_id, entries.currency, -sum(amount) AS amount
                       FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
                      WHERE ledger_account = 'credit' GROUP BY client_id, entries.currency
                    ) AS booked USING (client_id, currency)
         WHERE COALESCE(balance, 0) <> COALESCE(booked.amount, 0)
    """,
    "an invoice's receivable is what is due of it": """
        SELECT number, amount_due, booked.amount FROM invoices
          LEFT JOIN (SELECT entries.invoice_id, sum(amount) AS amount
                       FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
                      WHERE ledger_account = 'receivable' GROUP BY entries.invoice_id
                    ) AS booked ON booked.invoice_id = invoices.id
         WHERE status <> 'draft' AND amount_due <> COALESCE(booked.amount, 0)
    """,
    "what is due is what neither credit nor money has paid": """
        SELECT number, status, total, credit_applied, amount_paid, amount_due FROM invoices
         WHERE amount_due
               <> CASE WHEN status = 'void' THEN 0
                       ELSE total - credit_applied - amount_paid - amount_credited
                            + amount_refunded - amount_written_off END
            OR (status = 'open') <> (status NOT IN ('draft', 'void') AND amount_due > 0)
    """,
    "an invoice's credit is its entries'": """
        SELECT number, credit_applied, entries.amount FROM invoices
          LEFT JOIN (SELECT invoice_id, -sum(amount) AS amount FROM credit_entries
                      WHERE kind IN ('applied', 'carried', 'negative_invoice')
                      GROUP BY invoice_id) AS entries ON entries.invoice_id = invoices.id
         WHERE status <> 'draft' AND credit_applied <> COALESCE(entries.amount, 0)
    """,
    "a void gave back what was used, once": """
        SELECT number, credit_applied, entries.amount FROM invoices
          LEFT JOIN (SELECT invoice_id, sum(amount) AS amount FROM credit_entries
                      WHERE kind = 'returned' GROUP BY invoice_id) AS entries
            ON entries.invoice_id = invoices.id
         WHERE CASE status WHEN 'void' THEN credit_applied ELSE 0 END <> COALESCE(entries.amount, 0)
    """,
    "a void left what was paid with the client, once": """
        SELECT number, amount_paid, amount_lost, entries.amount FROM invoices
          LEFT JOIN (SELECT invoice_id, sum(amount) AS amount FROM credit_entries
                      WHERE kind = 'settled' GROUP BY invoice_id) AS entries
            ON entries.invoice_id = invoices.id
         WHERE CASE status WHEN 'void' THEN amount_paid - amount_refunded - amount_lost ELSE 0 END
               <> COALESCE(entries.amount, 0)
    """,
    "an invoice's payments are what it was paid": """
        SELECT number, amount_paid, payments.applied FROM invoices
          LEFT JOIN (SELECT invoice_id, sum(applied) AS applied FROM payments GROUP BY invoice_id
                    ) AS payments ON payments.invoice_id = invoices.id
         WHERE amount_paid <> COALESCE(payments.applied, 0)
    """,
    "a payment is booked once, for all of it": """
        SELECT payments.id, payments.amount, count(entries.id), sum(postings.amount)
          FROM payments LEFT JOIN ledger_entries AS entries ON entries.payment_id = payments.id
          LEFT JOIN ledger_postings AS postings ON postings.entry_id = entries.id
           AND ledger_account IN ('stripe', 'outside')
         GROUP BY payments.id
        HAVING count(entries.id) <> 1 OR sum(postings.amount) <> payments.amount
    """,
    "what an invoice did not take of a payment is credit": """
        SELECT payments.id, payments.amount, applied, sum(entries.amount)
          FROM payments LEFT JOIN credit_entries AS entries ON entries.payment_id = payments.id
         GROUP BY payments.id
        HAVING COALESCE(sum(entries.amount), 0) <> payments.amount - applied
    """,
}


def losses(engine: Engine) -> dict[str, list[Any]]:
    """Every place where money is lost or doubled, by the sentence that is not true there."""
    with engine.connect() as connection:
        found = {rule: connection.execute(text(sql)).all() for rule, sql in _MUST_BE_EMPTY.items()}
    return {rule: [tuple(row) for row in rows] for rule, rows in found.items() if rows}


def assert_no_money_is_lost(engine: Engine, account: Account) -> None:
    """Neither by the sentences above nor by the account's own audit."""
    assert losses(engine) == {}
    assert audited(engine, account) == []


def a_draft(
    engine: Engine, account: Account, client: Client, price: str = "10.00", currency: str = "usd"
) -> Invoice:
    """A draft of one charge."""
    charge = a_charge(engine, client, MAY, price, currency=currency)
    drafted = perform(engine, draft_invoice, account, client_id=client.id, charge_ids=[charge])
    [invoice_id] = drafted.result["invoices"]  # type: ignore[union-attr]  # It is done.
    return invoice_of(engine, UUID(invoice_id))


def an_invoice(
    engine: Engine,
    account: Account,
    client: Client,
    price: str = "10.00",
    *,
    currency: str = "usd",
    now: datetime = NOW,
    collect: bool = False,
) -> Invoice:
    """A finalized invoice of one charge, due 14 days after ``now``."""
    draft = a_draft(engine, account, client, price, currency)
    perform(engine, finalize_invoice, account, invoice_id=draft.id, now=now, collect=collect)
    return invoice_of(engine, draft.id)


def deposit(
    engine: Engine,
    account: Account,
    client: Client,
    amount: int,
    currency: str = "usd",
    **options: Any,
) -> dict[str, Any]:
    """What the job that records a deposit says at its end."""
    return done(
        engine,
        deposit_credit,
        account,
        client_id=client.id,
        amount=amount,
        currency=currency,
        **options,
    )


def adjust(
    engine: Engine,
    account: Account,
    client: Client,
    amount: int,
    currency: str = "usd",
    **options: Any,
) -> dict[str, Any]:
    """What the job that corrects a balance says at its end."""
    return done(
        engine,
        adjust_credit,
        account,
        client_id=client.id,
        amount=amount,
        currency=currency,
        note="a miscount",
        **options,
    )


def grant(
    engine: Engine,
    account: Account,
    client: Client,
    amount: int,
    expires_on: date | None = None,
    **options: Any,
) -> UUID:
    """The id of a grant of promotional credit."""
    result = done(
        engine,
        grant_credit,
        account,
        client_id=client.id,
        amount=amount,
        expires_on=expires_on,
        **{"currency": "usd", **options},
    )
    return UUID(result["grant"])


def remaining(engine: Engine, client: Client) -> list[int]:
    """What remains of each of a client's grants, oldest first."""
    with Session(engine) as session:
        grants = select(CreditGrant.remaining).where(CreditGrant.client_id == client.id)
        return list(session.scalars(grants.order_by(CreditGrant.id)))


def done(engine: Engine, *job: Any, **arguments: Any) -> dict[str, Any]:
    """The result of a job's work, which comes to its end."""
    result: dict[str, Any] = perform(engine, *job, **arguments).result  # type: ignore[union-attr]
    return result


def ask(engine: Engine, kind: JobKind, account: Account, **arguments: Any) -> UUID:
    """The id of a job that waits to be run."""
    with Session(engine) as session, session.begin():
        asked = enqueue(session, kind, account_id=account.id, requested_by="test", **arguments)
    return asked.id


def owe(
    engine: Engine, account: Account, client: Client, amount: int = 30, currency: str = "usd"
) -> Invoice:
    """Take a client's balance below zero: an invoice too small for its card is carried."""
    with_a_card(engine, account, client)
    invoice = an_invoice(engine, account, client, f"{amount / 100:.2f}", currency=currency)
    perform(engine, charge_invoice, account, invoice_id=invoice.id)
    return invoice_of(engine, invoice.id)


def with_a_card(engine: Engine, account: Account, client: Client) -> None:
    """Put a client on a card that nobody charges."""
    with Session(engine) as session, session.begin():
        set_billing_method(
            session,
            account.id,
            client.id,
            stripe_customer=f"cus_{client.id.hex}",
            payment_method="pm_1",
            now=NOW,
            requested_by="test",
        )


def an_attempt(
    engine: Engine, invoice: Invoice, state: AttemptState = AttemptState.PENDING
) -> PaymentAttempt:
    """A committed try at a card for all that is due of an invoice, with no outcome yet."""
    attempt = PaymentAttempt(
        account_id=invoice.account_id,
        client_id=invoice.client_id,
        invoice_id=invoice.id,
        job_id=uuid4(),
        ordinal=1,
        origin=Origin.STAFF,
        state=state,
        amount=invoice.amount_due,
        currency=invoice.currency,
        customer="cus_1",
        payment_method="pm_1",
        idempotency_key=str(uuid4()),
        payment_intent="pi_1",
        first_asked_at=NOW,
        next_ask_at=None if state == AttemptState.NEEDS_ACTION else NOW,
    )
    with Session(engine, expire_on_commit=False) as session, session.begin():
        session.get_one(Invoice, invoice.id).attempt_count += 1
        session.add(attempt)
    return attempt


def settle(engine: Engine, attempt: PaymentAttempt, to: AttemptState) -> None:
    """Let an attempt have had this outcome, without what follows from it."""
    with Session(engine) as session, session.begin():
        session.get_one(PaymentAttempt, attempt.id).move(to, NOW)


def invoice_of(engine: Engine, invoice_id: UUID) -> Invoice:
    """An invoice as it stands now."""
    with Session(engine) as session:
        return session.get_one(Invoice, invoice_id)


def paid_how(engine: Engine, client: Client) -> list[tuple[str, int, int, int]]:
    """Status, credit, money and what is still due of each of a client's invoices, by number."""
    return [
        (one.status, one.credit_applied, one.amount_paid, one.amount_due)
        for one in invoices_of(engine, client)
    ]


def balances(engine: Engine, client: Client) -> dict[str, int]:
    """What a client has in hand by currency, where that is not nothing."""
    with Session(engine) as session:
        rows = session.execute(
            select(CreditBalance.currency, CreditBalance.balance).where(
                CreditBalance.client_id == client.id, CreditBalance.balance != 0
            )
        )
        return dict(rows.all())


def moves(engine: Engine, client: Client) -> list[tuple[str, int]]:
    """Kind and amount of every movement of a client's credit, by kind and amount."""
    with Session(engine) as session:
        rows = session.execute(
            select(CreditEntry.kind, CreditEntry.amount).where(CreditEntry.client_id == client.id)
        )
        return sorted(rows)


def payments_of(engine: Engine, client: Client) -> list[Payment]:
    """A client's payments, oldest first."""
    with Session(engine) as session:
        return list(
            session.scalars(
                select(Payment).where(Payment.client_id == client.id).order_by(Payment.id)
            )
        )


def booked(engine: Engine, event: str) -> list[tuple[date, dict[str, int]]]:
    """Each entry of an event: when it counts, and its sides by account."""
    with Session(engine) as session:
        rows = session.execute(
            select(
                LedgerEntry.effective_on,
                func.jsonb_object_agg(LedgerPosting.ledger_account, LedgerPosting.amount),
            )
            .join(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
            .where(LedgerEntry.event == event)
            .group_by(LedgerEntry.id)
            .order_by(LedgerEntry.id)
        )
        return list(rows)


def counts(engine: Engine) -> dict[str, int]:
    """How many rows there are of everything that moves money or tells of it."""
    tables = (CreditEntry, Payment, LedgerEntry, LedgerPosting, Mail, Job)
    with Session(engine) as session:
        return {
            table.__tablename__: session.scalars(select(func.count()).select_from(table)).one()
            for table in tables
        }
