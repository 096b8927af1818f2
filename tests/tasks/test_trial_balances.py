from datetime import date, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models import Account, Invoice
from tasks.crediting import adjust_credit, deposit_credit
from tasks.drafting import draft_invoice
from tasks.enqueueing import enqueue
from tasks.finalizing import finalize_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.trial_balances import Balance, trial_balance
from tasks.voiding import void_invoice
from tests.money import an_invoice, done
from tests.worlds import NOW, a_charge, a_client, a_rate, perform, work


def billed(engine: Engine, account: Account, price: str, currency: str) -> UUID:
    """A finalized invoice."""
    client = a_client(engine, account)
    a_charge(engine, client, date(2026, 5, 1), price, currency=currency)
    with Session(engine) as session, session.begin():
        enqueue(
            session, draft_invoice, account_id=account.id, requested_by="t", client_id=client.id
        )
    work(engine)
    with Session(engine) as session, session.begin():
        invoice = session.scalars(select(Invoice).where(Invoice.client_id == client.id)).one()
        enqueue(
            session,
            finalize_invoice,
            account_id=account.id,
            requested_by="t",
            invoice_id=invoice.id,
        )
        invoice_id = invoice.id
    work(engine)
    return invoice_id


def test_empty_books_have_no_balances(session: Session, account: Account) -> None:
    assert trial_balance(session, account.id) == []


def test_both_sides_are_summed_by_account_and_currency(
    engine: Engine, session: Session, account: Account
) -> None:
    billed(engine, account, "10.00", "usd")
    billed(engine, account, "-2.50", "usd")
    billed(engine, account, "7.00", "gbp")

    balances = trial_balance(session, account.id)

    assert balances == [
        Balance("receivable", "gbp", 700, 0),
        Balance("revenue", "gbp", 0, 700),
        Balance("credit", "usd", 0, 250),
        Balance("receivable", "usd", 1000, 0),
        Balance("revenue", "usd", 250, 1000),
    ]
    for currency in ("usd", "gbp"):
        assert sum(one.balance for one in balances if one.currency == currency) == 0


def test_tax_is_summed_by_rate(engine: Engine, session: Session, account: Account) -> None:
    vat, city = a_rate(engine, account), a_rate(engine, account, "5", name="City")
    client = a_client(engine, account, tax_rates=[vat, city])
    for price in ("10.00", "-2.00"):
        a_charge(engine, client, date(2026, 5, 1), price)
        [draft] = done(engine, draft_invoice, account, client_id=client.id)["invoices"]
        perform(engine, finalize_invoice, account, invoice_id=UUID(draft))

    balances = trial_balance(session, account.id)

    assert balances[-2:] == [
        Balance("tax", "usd", 40, 200, vat, "VAT"),
        Balance("tax", "usd", 10, 50, city, "City"),
    ]
    assert sum(one.balance for one in balances) == 0


def test_a_void_invoice_leaves_both_its_sides(
    engine: Engine, session: Session, account: Account
) -> None:
    invoice_id = billed(engine, account, "10.00", "usd")
    enqueue(session, void_invoice, account_id=account.id, requested_by="t", invoice_id=invoice_id)
    session.commit()
    work(engine)

    assert trial_balance(session, account.id) == [
        Balance("receivable", "usd", 1000, 1000),
        Balance("revenue", "usd", 1000, 1000),
    ]


def test_credit_and_money_from_outside_stand_on_accounts_of_their_own(
    engine: Engine, session: Session, account: Account
) -> None:
    invoice_id = billed(engine, account, "10.00", "usd")
    client_id = session.get_one(Invoice, invoice_id).client_id
    perform(engine, mark_invoice_paid, account, invoice_id=invoice_id, amount=250)
    perform(engine, deposit_credit, account, client_id=client_id, amount=900, currency="usd")
    perform(
        engine,
        adjust_credit,
        account,
        client_id=client_id,
        amount=-50,
        currency="usd",
        note="typed twice",
    )

    balances = trial_balance(session, account.id)

    # Of the deposit 7.50 paid the rest of the invoice at once.
    assert balances == [
        Balance("adjustment", "usd", 0, 50),
        Balance("credit", "usd", 800, 900),
        Balance("outside", "usd", 1150, 0),
        Balance("receivable", "usd", 1000, 1000),
        Balance("revenue", "usd", 0, 1000),
    ]
    assert sum(one.balance for one in balances) == 0


def test_a_balance_is_of_the_days_that_are_asked_for(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    days = [NOW.date() + timedelta(days=day) for day in range(3)]
    some: dict[str, Any] = {"invoice_id": invoice.id, "amount": 400, "paid_on": days[1]}
    perform(engine, mark_invoice_paid, account, **some, now=NOW + timedelta(days=2))

    at_first = trial_balance(session, account.id, last=days[0])
    moved = trial_balance(session, account.id, first=days[1], last=days[1])

    assert at_first == [Balance("receivable", "usd", 1000, 0), Balance("revenue", "usd", 0, 1000)]
    assert moved == [Balance("outside", "usd", 400, 0), Balance("receivable", "usd", 0, 400)]
    assert trial_balance(session, account.id, first=days[2]) == []
    assert trial_balance(session, account.id, last=days[1]) == trial_balance(session, account.id)
