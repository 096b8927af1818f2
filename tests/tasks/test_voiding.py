from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import IllegalTransition, NotFound, RuleViolation
from models import Account, Charge, Client, Invoice, LedgerEntry, LedgerPosting
from tasks.accounts import create_account
from tasks.charges import edit_charge
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.voiding import void_invoice
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    audited,
    bill,
    invoices_of,
    perform,
    periods_of,
)

MAY = date(2026, 5, 1)


def an_invoice(engine: Engine, account: Account, client: Client, price: str = "10.00") -> Invoice:
    charge = a_charge(engine, client, MAY, price)
    perform(engine, draft_invoice, account, client_id=client.id, charge_ids=[charge])
    invoice = invoices_of(engine, client)[-1]
    perform(engine, finalize_invoice, account, invoice_id=invoice.id)
    return invoice


def test_a_void_reverses_the_books_on_the_day_it_is_done(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    later = NOW + timedelta(days=40)

    perform(engine, void_invoice, account, invoice_id=invoice.id, now=later)

    [void] = invoices_of(engine, client)
    assert (void.status, void.voided_at, void.amount_due, void.total) == ("void", later, 0, 1000)
    assert void.number == "INV-000001"
    rows = session.execute(
        select(LedgerEntry.effective_on, LedgerPosting.ledger_account, LedgerPosting.amount)
        .join(LedgerPosting, LedgerPosting.entry_id == LedgerEntry.id)
        .where(LedgerEntry.event == "void")
        .order_by(LedgerPosting.id)
    )
    assert [tuple(row) for row in rows] == [
        (later.date(), "revenue", 1000),
        (later.date(), "receivable", -1000),
    ]
    assert audited(engine, account) == []


def test_the_day_of_a_void_is_the_accounts(engine: Engine, session: Session) -> None:
    account = create_account(session, "Antipodes", time_zone="Pacific/Auckland")
    session.commit()
    invoice = an_invoice(engine, account, a_client(engine, account))

    perform(
        engine,
        void_invoice,
        account,
        invoice_id=invoice.id,
        now=datetime(2026, 6, 10, 12, tzinfo=UTC),
    )

    entry = session.scalars(select(LedgerEntry).where(LedgerEntry.event == "void")).one()
    assert entry.effective_on == date(2026, 6, 11)


def test_a_void_invoice_keeps_its_charges_locked(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    perform(engine, void_invoice, account, invoice_id=invoice.id)

    charge = session.scalars(select(Charge)).one()
    assert charge.invoice_id == invoice.id
    with pytest.raises(RuleViolation) as refused:
        edit_charge(session, account.id, charge.id, {"amount": 1})
    assert refused.value.code == "charge_locked"
    with pytest.raises(RuleViolation, match="no open charges"):
        perform(engine, draft_invoice, account, client_id=client.id)


@pytest.mark.parametrize("price", ["0.00", "-5.00"])
def test_what_was_paid_at_once_cannot_be_voided(
    engine: Engine, account: Account, price: str
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client, price)

    with pytest.raises(IllegalTransition) as refused:
        perform(engine, void_invoice, account, invoice_id=invoice.id)
    assert refused.value.code == "invoice_not_open"
    assert invoices_of(engine, client)[0].status == "paid"


def test_neither_a_draft_nor_a_void_invoice_can_be_voided(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    void = an_invoice(engine, account, client)
    perform(engine, void_invoice, account, invoice_id=void.id)
    a_charge(engine, client, MAY)
    perform(engine, draft_invoice, account, client_id=client.id)

    for invoice in invoices_of(engine, client):
        with pytest.raises(IllegalTransition) as refused:
            perform(engine, void_invoice, account, invoice_id=invoice.id)
        assert refused.value.code == "invoice_not_open"
    assert len(session.scalars(select(LedgerEntry)).all()) == 2


def test_an_unknown_or_another_accounts_invoice_is_not_found(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    theirs = an_invoice(engine, other, a_client(engine, other))

    for invoice_id in (theirs.id, uuid4()):
        with pytest.raises(NotFound):
            perform(engine, void_invoice, account, invoice_id=invoice_id)
    assert invoices_of(engine, other)[0].status == "open"


def test_voiding_leaves_the_period_billed_and_the_next_number_in_line(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account, billing_cycle="monthly", billing_starts_on=date(2026, 4, 1))
    a_charge(engine, client, date(2026, 4, 1))
    bill(engine, account, now=NOW, as_of=MAY)
    [invoice] = invoices_of(engine, client)
    perform(engine, void_invoice, account, invoice_id=invoice.id)
    a_charge(engine, client, date(2026, 5, 2))

    bill(engine, account, now=NOW)

    assert [one.state for one in periods_of(engine, client)] == ["billed", "billed", "open"]
    assert [(one.number, one.status) for one in invoices_of(engine, client)] == [
        ("INV-000001", "void"),
        ("INV-000002", "open"),
    ]
    assert audited(engine, account) == []
