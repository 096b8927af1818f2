from datetime import date, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from psycopg.errors import RestrictViolation
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from billing.errors import InvalidInput
from models import Account
from tasks.accounts import change_account
from tasks.finalizing import finalize_invoice
from tasks.kinds import Run
from tasks.marking_paid import mark_invoice_paid
from tasks.voiding import void_invoice
from tests import corrections
from tests.money import a_draft, an_invoice, assert_no_money_is_lost, booked, invoice_of
from tests.tasks.test_crediting_races import meet
from tests.worlds import NOW, a_charge, a_client, bill, invoices_of, perform

TODAY = NOW.date()
MAY_31 = date(2026, 5, 31)


def close(engine: Engine, account: Account, through: date | None) -> None:
    with Session(engine) as session, session.begin():
        change_account(session, account.id, {"books_closed_through": through}, now=NOW)


def test_a_cycle_invoice_of_a_closed_month_keeps_its_date_and_counts_for_the_next(
    engine: Engine, account: Account
) -> None:
    client = a_client(
        engine, account, billing_cycle="monthly", billing_starts_on=date(2026, 5, 1), now=NOW
    )
    a_charge(engine, client, date(2026, 5, 3))
    later = NOW + timedelta(days=9)
    with Session(engine) as session, session.begin():
        closed = {"books_closed_through": date(2026, 6, 5)}
        change_account(session, account.id, closed, now=later)

    bill(engine, account, now=later)

    [invoice] = invoices_of(engine, client)
    assert invoice.issued_on == date(2026, 6, 1)
    assert [day for day, _ in booked(engine, "finalize")] == [date(2026, 6, 6)]
    assert_no_money_is_lost(engine, account)


def test_a_payment_of_a_closed_day_is_refused_and_one_of_no_named_day_is_todays(
    engine: Engine, account: Account
) -> None:
    invoice = an_invoice(engine, account, a_client(engine, account))
    close(engine, account, MAY_31)
    some: dict[str, Any] = {"invoice_id": invoice.id, "amount": 100}

    with pytest.raises(InvalidInput, match="books are closed") as refused:
        perform(engine, mark_invoice_paid, account, **some, paid_on=MAY_31)
    assert (refused.value.field, refused.value.code) == ("paid_on", "books_closed")

    perform(engine, mark_invoice_paid, account, **some, paid_on=TODAY)
    perform(engine, mark_invoice_paid, account, **some)
    assert {day for day, _ in booked(engine, "outside_payment")} == {TODAY}


def test_what_is_booked_of_a_closed_day_counts_for_the_first_open_one(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    corrections.write_off(engine, invoice.id)
    close(engine, account, MAY_31)

    corrections.recover(engine, invoice.id, 400, paid_on=date(2026, 5, 2))

    for event in ("recovery", "outside_payment"):
        assert [day for day, _ in booked(engine, event)] == [TODAY]


def test_books_are_closed_forward_and_never_through_today(
    engine: Engine, session: Session, account: Account
) -> None:
    close(engine, account, date(2026, 4, 30))
    close(engine, account, MAY_31)
    for wrong in (TODAY, date(2026, 4, 30), None):
        with pytest.raises(InvalidInput):
            close(engine, account, wrong)

    assert session.get_one(Account, account.id).books_closed_through == MAY_31


def test_today_is_the_accounts_own(engine: Engine, session: Session, account: Account) -> None:
    change_account(session, account.id, {"time_zone": "Pacific/Kiritimati"}, now=NOW)
    session.commit()

    # At noon in London it is tomorrow there.
    close(engine, account, TODAY)

    session.expire_all()
    assert session.get_one(Account, account.id).books_closed_through == TODAY


def test_a_void_counts_for_today_whatever_was_closed(engine: Engine, account: Account) -> None:
    invoice = an_invoice(engine, account, a_client(engine, account), now=NOW - timedelta(days=9))
    close(engine, account, MAY_31)

    perform(engine, void_invoice, account, invoice_id=invoice.id)

    assert [day for day, _ in booked(engine, "void")] == [TODAY]
    assert [day for day, _ in booked(engine, "finalize")] == [date(2026, 5, 23)]
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize(
    "other", [{"stripe_account": "acct_ada"}, {"name": "B"}, {"number_format": "A-{seq}"}]
)
def test_books_are_closed_by_themselves(
    engine: Engine, account: Account, other: dict[str, str]
) -> None:
    changes = {"books_closed_through": MAY_31, **other}
    with (
        Session(engine) as session,
        session.begin(),
        pytest.raises(InvalidInput, match="must be changed by itself"),
    ):
        change_account(session, account.id, changes, now=NOW)


def test_what_is_posted_while_books_are_closed_is_in_them_or_after_them(
    engine: Engine, account: Account
) -> None:
    where = set()
    for round_ in range(6):
        through = date(2026, 5, 1 + round_)
        draft = a_draft(engine, account, a_client(engine, account))
        at = NOW.replace(month=5, day=through.day)
        run = Run(job_id=uuid4(), account_id=account.id, attempt=1, now=at, requested_by="test")
        finalize = partial(finalize_invoice.body, run, invoice_id=draft.id)

        def closing(session: Session, through: date = through) -> None:
            change_account(session, account.id, {"books_closed_through": through}, now=NOW)

        outcomes = meet(engine, round_, finalize, closing)

        assert not any(isinstance(one, Exception) for one in outcomes), outcomes
        assert invoice_of(engine, draft.id).issued_on == through
        day, _ = booked(engine, "finalize")[-1]
        where.add((day - through).days)
    assert where == {0, 1}
    assert_no_money_is_lost(engine, account)


def test_the_database_refuses_what_passes_the_rule_by(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    close(engine, account, MAY_31)

    with pytest.raises(DBAPIError) as refused, session.begin_nested():
        session.execute(
            text(
                "INSERT INTO ledger_entries (account_id, client_id, event, currency, effective_on)"
                " VALUES (:account, :client, 'adjustment', 'usd', '2026-05-31')"
            ),
            {"account": account.id, "client": client.id},
        )
    assert isinstance(refused.value.orig, RestrictViolation)
