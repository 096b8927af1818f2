from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.errors import DuecourseError, InvalidInput
from models import Account, Client, CreditEntry, CreditGrant, CreditGrantUse
from tasks.charging import charge_invoice
from tasks.finalizing import finalize_invoices
from tasks.granting import grant_credit
from tests.money import (
    a_draft,
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
    payments_of,
    remaining,
    with_a_card,
)
from tests.worlds import NOW, a_client, counted

TODAY = NOW.date()
SOON, LATER = TODAY + timedelta(days=10), TODAY + timedelta(days=90)


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    return a_client(engine, account)


def uses(engine: Engine) -> list[int]:
    """What invoices use of grants, use by use."""
    with Session(engine) as session:
        found = select(CreditGrantUse.amount).order_by(
            CreditGrantUse.invoice_id, CreditGrantUse.grant_id
        )
        return list(session.scalars(found))


def test_a_grant_pays_what_is_open_at_once_and_is_no_payment(
    engine: Engine, account: Account, client: Client
) -> None:
    an_invoice(engine, account, client, "3.00")

    granted = grant(engine, account, client, 500, SOON, note="Welcome")

    assert paid_how(engine, client) == [("paid", 300, 0, 0)]
    assert (balances(engine, client), remaining(engine, client)) == ({"usd": 200}, [200])
    assert moves(engine, client) == [("applied", -300), ("granted", 500)]
    assert booked(engine, "grant") == [(TODAY, {"promotion": 500, "credit": -500})]
    assert payments_of(engine, client) == []
    with Session(engine) as session:
        row = session.get_one(CreditGrant, granted)
        assert (row.amount, row.expires_on, row.note) == (500, SOON, "Welcome")
        [entry] = session.scalars(select(CreditEntry).where(CreditEntry.kind == "granted"))
        assert (entry.grant_id, entry.note) == (granted, "Welcome")
    assert_no_money_is_lost(engine, account)


def test_a_grant_that_is_not_to_be_applied_waits_for_the_next_invoice(
    engine: Engine, account: Account, client: Client
) -> None:
    an_invoice(engine, account, client, "3.00")

    grant(engine, account, client, 500, apply=False)
    assert remaining(engine, client) == [500]
    an_invoice(engine, account, client, "4.00")

    assert paid_how(engine, client) == [("open", 0, 0, 300), ("paid", 400, 0, 0)]
    assert remaining(engine, client) == [100]
    assert_no_money_is_lost(engine, account)


def test_what_expires_soonest_is_spent_first_then_what_never_does_then_what_was_paid_in(
    engine: Engine, account: Account, client: Client
) -> None:
    deposit(engine, account, client, 400)
    for expires_on in (None, LATER, SOON, SOON):
        grant(engine, account, client, 100, expires_on)

    left = []
    for price in ("1.50", "1.00", "1.00", "1.00"):
        an_invoice(engine, account, client, price)
        left.append(remaining(engine, client))

    assert left == [[100, 100, 0, 50], [100, 50, 0, 0], [50, 0, 0, 0], [0, 0, 0, 0]]
    assert uses(engine) == [100, 50, 50, 50, 50, 50, 50]
    assert balances(engine, client) == {"usd": 350}
    assert_no_money_is_lost(engine, account)


def test_a_grant_pays_nothing_in_another_currency(
    engine: Engine, account: Account, client: Client
) -> None:
    grant(engine, account, client, 500, SOON)
    deposit(engine, account, client, 400, "eur")

    an_invoice(engine, account, client, "3.00", currency="eur")

    assert remaining(engine, client) == [500]
    assert balances(engine, client) == {"usd": 500, "eur": 100}


def test_a_grant_first_covers_what_the_client_owes_from_before(
    engine: Engine, account: Account, client: Client
) -> None:
    owe(engine, account, client, 30)

    grant(engine, account, client, 20, SOON)
    assert (balances(engine, client), remaining(engine, client)) == ({"usd": -10}, [0])
    grant(engine, account, client, 500, SOON)
    assert (balances(engine, client), remaining(engine, client)) == ({"usd": 490}, [0, 490])

    assert uses(engine) == []
    assert_no_money_is_lost(engine, account)


def test_a_correction_downward_takes_promotional_credit_first(
    engine: Engine, account: Account, client: Client
) -> None:
    deposit(engine, account, client, 100)
    grant(engine, account, client, 50, LATER)
    grant(engine, account, client, 50, SOON)

    adjust(engine, account, client, -60)
    assert remaining(engine, client) == [40, 0]
    adjust(engine, account, client, -100)

    assert (balances(engine, client), remaining(engine, client)) == ({"usd": 40}, [0, 0])
    assert_no_money_is_lost(engine, account)


def test_a_remainder_that_is_carried_uses_what_is_kept_for_later_and_owes_the_rest(
    engine: Engine, account: Account, client: Client
) -> None:
    with_a_card(engine, account, client)
    small = an_invoice(engine, account, client, "0.45")
    grant(engine, account, client, 20, SOON, apply=False)

    done(engine, charge_invoice, account, invoice_id=small.id)

    assert paid_how(engine, client) == [("paid", 45, 0, 0)]
    assert (balances(engine, client), remaining(engine, client)) == ({"usd": -25}, [0])
    assert uses(engine) == [20]
    assert_no_money_is_lost(engine, account)


def test_a_page_spends_grants_in_as_many_statements_for_many_clients_as_for_two(
    engine: Engine, account: Account
) -> None:
    sent = []
    for clients, grants in ((2, 0), (2, 1), (12, 1), (6, 3)):
        drafts = []
        for number in range(clients):
            client = a_client(engine, account)
            deposit(engine, account, client, 400)
            for _ in range(grants):
                grant(engine, account, client, 150, SOON if number % 2 else None)
            drafts += [a_draft(engine, account, client, "3.00").id for _ in range(2)]
        with counted(engine) as statements, Session(engine) as session, session.begin():
            mine = session.get_one(Account, account.id)
            finalize_invoices(session, mine, drafts, now=NOW, requested_by="test")
        sent.append(len(statements))

    assert sent[2] == sent[3] == sent[1] == sent[0] + 1
    assert_no_money_is_lost(engine, account)


# What a grant may say


@pytest.mark.parametrize("amount", [0, -1])
def test_a_grant_is_above_zero(
    engine: Engine, account: Account, client: Client, amount: int
) -> None:
    with pytest.raises(InvalidInput, match="amount: must be above zero"):
        grant(engine, account, client, amount)


@pytest.mark.parametrize(
    ("zone", "first"),
    [(None, date(2026, 6, 2)), ("Pacific/Kiritimati", date(2026, 6, 3)), ("Etc/GMT+12", TODAY)],
)
def test_a_grant_ends_after_today_by_the_clients_own_calendar(
    engine: Engine, account: Account, zone: str | None, first: date
) -> None:
    now = datetime(2026, 6, 1, 11, tzinfo=UTC)
    client = a_client(engine, account, time_zone=zone)

    with pytest.raises(InvalidInput, match="expires_on: must be after today"):
        grant(engine, account, client, 100, first - timedelta(days=1), now=now)
    grant(engine, account, client, 100, first, now=now)

    assert remaining(engine, client) == [100]


def test_a_grant_is_in_a_currency_that_there_is(
    engine: Engine, account: Account, client: Client
) -> None:
    with pytest.raises(InvalidInput, match="currency"):
        grant(engine, account, client, 1, currency="xyz")
    grant(engine, account, client, 1, currency="EUR")

    assert balances(engine, client) == {"eur": 1}


def test_a_client_that_is_not_the_accounts_is_granted_nothing(
    engine: Engine, account: Account
) -> None:
    some = {"client_id": uuid4(), "amount": 1, "currency": "usd"}
    with pytest.raises(DuecourseError, match="client"):
        done(engine, grant_credit, account, **some)
