from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound, RuleViolation
from models import Account, Client, CreditEntry, LedgerEntry, Refund
from tasks.paying_out import refund_credit
from tests.money import (
    an_invoice,
    assert_no_money_is_lost,
    balances,
    booked,
    deposit,
    done,
    grant,
    owe,
    remaining,
)
from tests.worlds import NOW, a_client

TODAY = NOW.date()
DAY = timedelta(days=1)


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    return a_client(engine, account)


def pay_out(
    engine: Engine, account: Account, client: Client, amount: int, **options: object
) -> dict[str, object]:
    some = {"client_id": client.id, "amount": amount, "currency": "usd", **options}
    return done(engine, refund_credit, account, **some)


def test_unused_credit_is_paid_out_with_what_is_said_of_it(
    engine: Engine, session: Session, account: Account, client: Client
) -> None:
    deposit(engine, account, client, 500)

    result = pay_out(engine, account, client, 300, reason="Has left", reference="wire 9120")

    refund = session.scalars(select(Refund)).one()
    assert result == {"client": str(client.id), "refund": str(refund.id), "balance": 200}
    assert (refund.state, refund.destination, refund.amount) == ("succeeded", "outside", 300)
    assert (refund.payment_id, refund.invoice_id, refund.settled_at) == (None, None, NOW)
    assert (refund.reason, refund.reference) == ("Has left", "wire 9120")
    entry = session.scalars(select(CreditEntry).where(CreditEntry.kind == "paid_out")).one()
    assert (entry.amount, entry.refund_id, entry.note) == (-300, refund.id, "Has left")
    assert booked(engine, "credit_refund") == [(TODAY, {"credit": 300, "outside": -300})]
    posted = session.scalars(select(LedgerEntry).where(LedgerEntry.event == "credit_refund")).one()
    assert posted.refund_id == refund.id
    assert balances(engine, client) == {"usd": 200}
    assert_no_money_is_lost(engine, account)


def test_promotional_credit_is_never_paid_out(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 1000)
    deposit(engine, account, client, 200)
    an_invoice(engine, account, client, "3.00")

    with pytest.raises(RuleViolation, match="900, of which 700 are promotional: 201") as refusal:
        pay_out(engine, account, client, 201)
    assert refusal.value.code == "insufficient_credit"
    pay_out(engine, account, client, 200)

    assert (balances(engine, client), remaining(engine, client)) == ({"usd": 700}, [700])
    assert_no_money_is_lost(engine, account)


def test_what_has_expired_changes_nothing_about_what_can_be_paid_out(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 1000, TODAY + DAY)
    deposit(engine, account, client, 200)

    with pytest.raises(RuleViolation, match="200, of which 0 are promotional"):
        pay_out(engine, account, client, 201, now=NOW + DAY)
    pay_out(engine, account, client, 200, now=NOW + DAY)

    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


def test_nothing_is_paid_out_of_what_a_client_owes_or_has_in_another_currency(
    engine: Engine, account: Account, client: Client
) -> None:
    deposit(engine, account, client, 500, "eur")
    with pytest.raises(RuleViolation, match="the balance is 0"):
        pay_out(engine, account, client, 1)
    owe(engine, account, client, 30)
    with pytest.raises(RuleViolation, match="the balance is -30"):
        pay_out(engine, account, client, 1)


def test_what_is_paid_out_is_some_and_of_a_client_of_the_account(
    engine: Engine, account: Account, client: Client
) -> None:
    deposit(engine, account, client, 500)
    for amount in (0, -500):
        with pytest.raises(InvalidInput, match="amount: must be above zero"):
            pay_out(engine, account, client, amount)
    with pytest.raises(NotFound):
        done(engine, refund_credit, account, client_id=uuid4(), amount=1, currency="usd")
