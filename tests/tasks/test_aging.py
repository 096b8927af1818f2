from datetime import date, timedelta

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.aging import AgeBucket
from models import Account
from tasks.accounts import create_account
from tasks.aging import AgingReport, aging_report
from tasks.crediting import deposit_credit
from tasks.drafting import draft_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.voiding import void_invoice
from tests.money import an_invoice
from tests.worlds import NOW, a_charge, a_client, perform

DUE = NOW.date() + timedelta(days=14)


def nonzero(report: AgingReport) -> list[tuple[str, str, dict[str, int]]]:
    return [
        (
            one.name,
            one.currency,
            {bucket: amount for bucket, amount in one.debt.amounts.items() if amount},
        )
        for one in report.clients
    ]


def test_each_client_owes_what_is_due_of_its_open_invoices(
    engine: Engine, session: Session, account: Account
) -> None:
    zoe, ada = (a_client(engine, account, name=name) for name in ("Zoë", "Ada"))
    an_invoice(engine, account, zoe, "1.00", now=NOW - timedelta(days=40))
    an_invoice(engine, account, zoe, "2.00")
    an_invoice(engine, account, zoe, "4.00", currency="eur")
    partly = an_invoice(engine, account, ada, "8.00")
    perform(engine, mark_invoice_paid, account, invoice_id=partly.id, amount=300)

    report = aging_report(session, account.id, DUE + timedelta(days=1))

    assert nonzero(report) == [
        ("Ada", "usd", {AgeBucket.DAYS_1_30: 500}),
        ("Zoë", "eur", {AgeBucket.DAYS_1_30: 400}),
        ("Zoë", "usd", {AgeBucket.DAYS_1_30: 200, AgeBucket.DAYS_31_60: 100}),
    ]
    assert {currency: debt.total for currency, debt in report.totals.items()} == {
        "eur": 400,
        "usd": 800,
    }


def test_on_its_due_date_an_invoice_is_current(
    engine: Engine, session: Session, account: Account
) -> None:
    an_invoice(engine, account, a_client(engine, account))

    assert nonzero(aging_report(session, account.id, DUE)) == [
        ("Ada Imports", "usd", {AgeBucket.CURRENT: 1000})
    ]


def test_what_is_paid_void_credited_or_not_finalized_is_not_owed(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    paid, void = an_invoice(engine, account, client), an_invoice(engine, account, client)
    perform(engine, mark_invoice_paid, account, invoice_id=paid.id)
    perform(engine, void_invoice, account, invoice_id=void.id)
    perform(engine, deposit_credit, account, client_id=client.id, amount=1000, currency="usd")
    an_invoice(engine, account, client)
    a_charge(engine, client, date(2026, 5, 1))
    perform(engine, draft_invoice, account, client_id=client.id)

    assert aging_report(session, account.id, DUE + timedelta(days=99)) == AgingReport((), {})


def test_another_accounts_clients_owe_nothing_here(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    an_invoice(engine, other, a_client(engine, other))

    assert aging_report(session, account.id, DUE).clients == ()
