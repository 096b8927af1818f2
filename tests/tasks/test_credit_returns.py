from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from models import Account, Client, CreditGrantUse, Invoice
from tasks.voiding import void_invoice
from tests.money import (
    adjust,
    an_invoice,
    assert_no_money_is_lost,
    balances,
    booked,
    deposit,
    done,
    grant,
    moves,
    owe,
    paid_how,
    remaining,
)
from tests.worlds import NOW, a_client

TODAY = NOW.date()
TOMORROW, SOON = TODAY + timedelta(days=1), TODAY + timedelta(days=10)
DAY = timedelta(days=1)


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    return a_client(engine, account)


def void(engine: Engine, account: Account, invoice: Invoice, **options: object) -> int:
    """How much of what a void gave back has expired again at once."""
    result = done(engine, void_invoice, account, invoice_id=invoice.id, **options)
    expired: int = result.get("credit_expired", 0)
    return expired


def test_a_void_gives_each_grant_what_was_used_of_it(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 100, SOON)
    grant(engine, account, client, 200)
    deposit(engine, account, client, 50)
    paid = an_invoice(engine, account, client, "0.60")
    invoice = an_invoice(engine, account, client)
    assert remaining(engine, client) == [0, 0]

    assert void(engine, account, invoice) == 0

    assert (balances(engine, client), remaining(engine, client)) == ({"usd": 290}, [40, 200])
    with Session(engine) as session:
        used = session.execute(select(CreditGrantUse.invoice_id, CreditGrantUse.amount)).all()
    assert used == [(paid.id, 60)]
    assert_no_money_is_lost(engine, account)


def test_what_a_void_gives_back_after_its_date_expires_again_at_once(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 100, TOMORROW)
    grant(engine, account, client, 200, SOON)
    invoice = an_invoice(engine, account, client)
    deposit(engine, account, client, 50)

    assert void(engine, account, invoice, now=NOW + 2 * DAY) == 100

    assert (balances(engine, client), remaining(engine, client)) == ({"usd": 250}, [0, 200])
    assert [move for move in moves(engine, client) if move[0] in {"expired", "returned"}] == [
        ("expired", -100),
        ("returned", 350),
    ]
    # For the day of the void: until then the invoice had it.
    assert booked(engine, "expiry") == [
        (TODAY + timedelta(days=2), {"credit": 100, "promotion": -100})
    ]
    assert_no_money_is_lost(engine, account)


def test_what_had_expired_of_a_grant_and_what_a_void_gives_it_back_each_expire_once(
    engine: Engine, account: Account, client: Client
) -> None:
    invoice = an_invoice(engine, account, client)
    grant(engine, account, client, 100, TOMORROW)
    grant(engine, account, client, 70, TOMORROW, apply=False)

    assert void(engine, account, invoice, now=NOW + 2 * DAY) == 100

    assert balances(engine, client) == {}
    assert booked(engine, "expiry") == [
        (TOMORROW, {"credit": 70, "promotion": -70}),
        (TODAY + timedelta(days=2), {"credit": 100, "promotion": -100}),
    ]
    assert_no_money_is_lost(engine, account)


def test_what_is_given_back_is_used_at_once_but_not_what_has_expired(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 100, TOMORROW)
    grant(engine, account, client, 200, SOON)
    invoice = an_invoice(engine, account, client)
    an_invoice(engine, account, client, "5.00")

    void(engine, account, invoice, now=NOW + 2 * DAY)

    assert paid_how(engine, client) == [("void", 300, 0, 0), ("open", 200, 0, 300)]
    assert remaining(engine, client) == [0, 0]
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize(
    ("days", "left", "balance"),
    [(0, 70, 70), (2, 0, -30)],
)
def test_a_debit_that_comes_back_is_covered_by_what_comes_back_unless_that_has_expired(
    engine: Engine, account: Account, client: Client, *, days: int, left: int, balance: int
) -> None:
    owe(engine, account, client, 30)
    invoice = an_invoice(engine, account, client)
    grant(engine, account, client, 100, TOMORROW)
    assert paid_how(engine, client)[1] == ("open", 70, 0, 930)

    void(engine, account, invoice, now=NOW + days * DAY)

    assert (balances(engine, client), remaining(engine, client)) == ({"usd": balance}, [left])
    assert_no_money_is_lost(engine, account)


def test_a_debit_and_as_much_of_a_grant_that_come_back_cancel_out(
    engine: Engine, account: Account, client: Client
) -> None:
    owe(engine, account, client, 30)
    invoice = an_invoice(engine, account, client)
    grant(engine, account, client, 30, SOON)
    assert paid_how(engine, client)[1] == ("open", 0, 0, 1000)

    void(engine, account, invoice)

    assert (balances(engine, client), remaining(engine, client)) == ({}, [0])
    with Session(engine) as session:
        assert session.scalar(select(func.count()).select_from(CreditGrantUse)) == 0
    assert_no_money_is_lost(engine, account)


def test_a_debit_that_comes_back_is_taken_from_what_was_granted_since(
    engine: Engine, account: Account, client: Client
) -> None:
    owe(engine, account, client, 30)
    invoice = an_invoice(engine, account, client)
    grant(engine, account, client, 40, TOMORROW, apply=False)
    grant(engine, account, client, 100, SOON, apply=False)

    # The first has expired, and covers nothing.
    void(engine, account, invoice, now=NOW + 2 * DAY)

    assert (balances(engine, client), remaining(engine, client)) == ({"usd": 70}, [0, 70])
    assert_no_money_is_lost(engine, account)


def test_what_a_void_gives_back_first_covers_what_the_client_owes_by_now(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 100, SOON)
    invoice = an_invoice(engine, account, client)
    owe(engine, account, client, 30)

    void(engine, account, invoice)

    assert (balances(engine, client), remaining(engine, client)) == ({"usd": 70}, [70])
    adjust(engine, account, client, -70)
    assert remaining(engine, client) == [0]
    assert_no_money_is_lost(engine, account)
