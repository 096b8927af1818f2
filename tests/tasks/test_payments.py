"""Money received: whatever becomes of its invoice, all of it is somewhere, once."""

from dataclasses import replace

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from billing.collection import AttemptState
from billing.credit import CreditEntryKind
from billing.errors import InvalidInput
from billing.outside_payments import OutsideMethod
from billing.postings import LedgerEvent
from models import Account, Client, Invoice, Payment, PaymentSource
from models.client import clients_for_update
from models.invoice import invoices_for_update
from tasks.kinds import JobKind
from tasks.marking_paid import mark_invoice_paid
from tasks.payments import Received, receive, require_some
from tasks.voiding import void_invoice
from tests.money import (
    an_attempt,
    an_invoice,
    assert_no_money_is_lost,
    balances,
    booked,
    deposit,
    moves,
    paid_how,
    payments_of,
    settle,
)
from tests.worlds import NOW, a_client, perform

TODAY = NOW.date()


def from_outside(client: Client, amount: int, currency: str = "usd") -> Received:
    return Received(
        client_id=client.id,
        currency=currency,
        amount=amount,
        source=PaymentSource.OUTSIDE,
        paid_on=TODAY,
        event=LedgerEvent.OUTSIDE_PAYMENT,
        excess=CreditEntryKind.UNEXPECTED,
        requested_by="test",
        method=OutsideMethod.CHECK,
    )


def take(engine: Engine, received: Received, invoice: Invoice | None = None) -> Payment:
    """Receive in a committed transaction, under the locks that are asked for."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        client = session.scalars(clients_for_update([received.client_id])).one()
        account = session.get_one(Account, client.account_id)
        locked = None
        if invoice is not None:
            locked = session.scalars(invoices_for_update([invoice.id])).one()
        return receive(session, account, received, invoice=locked, now=NOW)


@pytest.mark.parametrize(
    ("amount", "applied", "status", "credit"),
    [(400, 400, "open", 0), (1000, 1000, "paid", 0), (1001, 1000, "paid", 1)],
)
def test_an_open_invoice_takes_what_is_due_and_the_rest_is_credit(
    engine: Engine, account: Account, *, amount: int, applied: int, status: str, credit: int
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)

    payment = take(engine, from_outside(client, amount), invoice)

    assert (payment.amount, payment.applied) == (amount, applied)
    assert paid_how(engine, client) == [(status, 0, applied, 1000 - applied)]
    assert balances(engine, client) == ({"usd": credit} if credit else {})
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("job", [void_invoice, mark_invoice_paid])
def test_money_for_an_invoice_that_asks_for_none_any_more_becomes_credit(
    engine: Engine, account: Account, job: JobKind
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    perform(engine, job, account, invoice_id=invoice.id)
    before = paid_how(engine, client)

    payment = take(engine, replace(from_outside(client, 1000), flagged="invoice_void"), invoice)

    assert (payment.applied, payment.flagged) == (0, "invoice_void")
    assert payment.invoice_id == invoice.id
    assert paid_how(engine, client) == before
    assert balances(engine, client) == {"usd": 1000}
    assert (TODAY, {"outside": 1000, "credit": -1000}) in booked(engine, "outside_payment")
    assert_no_money_is_lost(engine, account)


def test_money_for_no_invoice_is_credit_and_pays_what_is_open(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client)

    take(engine, from_outside(client, 1400))

    assert paid_how(engine, client) == [("paid", 1000, 0, 0)]
    assert moves(engine, client) == [("applied", -1000), ("unexpected", 1400)]
    assert_no_money_is_lost(engine, account)


def test_money_that_is_to_be_kept_is_not_used(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client)

    take(engine, replace(from_outside(client, 1400), applies_credit=False))

    assert paid_how(engine, client) == [("open", 0, 0, 1000)]
    assert balances(engine, client) == {"usd": 1400}


def test_money_in_a_currency_pays_no_invoice_in_another(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)

    with pytest.raises(IntegrityError):
        take(engine, from_outside(client, 1000, "eur"), invoice)

    assert payments_of(engine, client) == []
    assert paid_how(engine, client) == [("open", 0, 0, 1000)]


def test_money_of_one_client_pays_no_invoice_of_another(engine: Engine, account: Account) -> None:
    client, other = a_client(engine, account), a_client(engine, account)
    invoice = an_invoice(engine, account, other)

    with pytest.raises(IntegrityError):
        take(engine, from_outside(client, 1000), invoice)

    assert paid_how(engine, other) == [("open", 0, 0, 1000)]


def test_one_charge_of_a_card_is_received_once_however_often_it_is_told(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    attempt = an_attempt(engine, invoice)
    by_card = replace(
        from_outside(client, 1000),
        source=PaymentSource.CARD,
        method=None,
        event=LedgerEvent.CARD_PAYMENT,
        attempt_id=attempt.id,
    )
    take(engine, by_card, invoice)

    with pytest.raises(IntegrityError):
        take(engine, by_card, invoice)
    settle(engine, attempt, AttemptState.SUCCEEDED)

    assert booked(engine, "card_payment") == [(TODAY, {"stripe": 1000, "receivable": -1000})]
    assert paid_how(engine, client) == [("paid", 0, 1000, 0)]
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("amount", [0, -1])
def test_money_received_is_above_zero(engine: Engine, account: Account, amount: int) -> None:
    client = a_client(engine, account)

    with pytest.raises(InvalidInput):
        require_some(amount)
    with pytest.raises(IntegrityError):
        take(engine, from_outside(client, amount))

    assert payments_of(engine, client) == []


def test_what_is_received_is_never_changed(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 700)

    session.scalars(select(Payment)).one().amount = 7000
    with pytest.raises(IntegrityError):
        session.flush()
