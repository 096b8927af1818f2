from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from models import Account, BillingRun, Client, CreditEntry
from models.client import clients_for_update
from tasks.credit_balances import CreditMove, apply_credit, balance_of, move_credit
from tasks.finalizing import finalize_invoices
from tests.money import (
    MAY,
    a_draft,
    an_attempt,
    an_invoice,
    assert_no_money_is_lost,
    balances,
    booked,
    deposit,
    moves,
    owe,
    paid_how,
)
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    allow_invoices_again,
    bill,
    charges,
    counted,
    invoices_of,
    refuse_invoices_of,
)

TODAY = NOW.date()


def monthly(engine: Engine, account: Account) -> Client:
    """A client whose May is due at ``NOW``."""
    since = datetime(2026, 5, 1, 12, tzinfo=UTC)
    return a_client(engine, account, now=since, billing_cycle="monthly")


def finalize_together(engine: Engine, account: Account, client: Client) -> None:
    """Finalize all of a client's drafts in one go, as a page does."""
    with Session(engine) as session, session.begin():
        session.scalars(clients_for_update([client.id])).one()
        drafts = [one.id for one in invoices_of(engine, client) if one.number is None]
        finalize_invoices(
            session, session.get_one(Account, account.id), drafts, now=NOW, requested_by="test"
        )


# When an invoice is finalized


@pytest.mark.parametrize(
    ("credit", "used", "status"),
    [(400, 400, "open"), (1000, 1000, "paid"), (1500, 1000, "paid")],
)
def test_an_invoice_finalized_by_hand_uses_what_credit_there_is(
    engine: Engine, account: Account, *, credit: int, used: int, status: str
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, credit)

    invoice = an_invoice(engine, account, client)

    assert (invoice.status, invoice.credit_applied) == (status, used)
    assert invoice.paid_at == (NOW if status == "paid" else None)
    assert balances(engine, client).get("usd", 0) == credit - used
    assert booked(engine, "apply_credit") == [(TODAY, {"credit": used, "receivable": -used})]
    assert_no_money_is_lost(engine, account)


def test_an_invoice_finalized_by_a_run_uses_credit_and_who_asked_is_written_down(
    engine: Engine, session: Session, account: Account
) -> None:
    clients = [monthly(engine, account) for _ in range(3)]
    for client, credit in zip(clients, (400, 1500, 0), strict=True):
        a_charge(engine, client, MAY)
        if credit:
            deposit(engine, account, client, credit)

    run = bill(engine, account, now=NOW)

    assert [paid_how(engine, client) for client in clients] == [
        [("open", 400, 0, 600)],
        [("paid", 1000, 0, 0)],
        [("open", 0, 0, 1000)],
    ]
    assert [balances(engine, client) for client in clients] == [{}, {"usd": 500}, {}]
    applied = select(CreditEntry.requested_by).where(CreditEntry.kind == CreditEntryKind.APPLIED)
    assert set(session.scalars(applied)) == {f"billing_run:{run.id}"}
    assert_no_money_is_lost(engine, account)


def test_a_page_applies_credit_in_as_many_statements_for_many_clients_as_for_two(
    engine: Engine, account: Account
) -> None:
    sent = []
    for clients in (2, 12):
        drafts = []
        for _ in range(clients):
            client = a_client(engine, account)
            deposit(engine, account, client, 400)
            drafts.append(a_draft(engine, account, client).id)
            drafts.append(a_draft(engine, account, client, "-1.00").id)
        with counted(engine) as statements, Session(engine) as session, session.begin():
            mine = session.get_one(Account, account.id)
            finalize_invoices(session, mine, drafts, now=NOW, requested_by="test")
        sent.append(len(statements))

    assert sent[0] == sent[1]
    assert_no_money_is_lost(engine, account)


def test_a_period_in_two_currencies_uses_the_credit_in_each(
    engine: Engine, account: Account
) -> None:
    client = monthly(engine, account)
    for currency, credit in (("usd", 300), ("eur", 1200), ("gbp", 700)):
        deposit(engine, account, client, credit, currency)
        if currency != "gbp":
            a_charge(engine, client, MAY, currency=currency)

    bill(engine, account, now=NOW)

    by_currency = {one.currency: one.credit_applied for one in invoices_of(engine, client)}
    assert by_currency == {"usd": 300, "eur": 1000}
    assert balances(engine, client) == {"eur": 200, "gbp": 700}
    assert_no_money_is_lost(engine, account)


def test_invoices_finalized_at_once_share_credit_out_in_order(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 1400)
    for _ in range(3):
        a_draft(engine, account, client)

    finalize_together(engine, account, client)

    assert paid_how(engine, client) == [
        ("paid", 1000, 0, 0),
        ("open", 400, 0, 600),
        ("open", 0, 0, 1000),
    ]
    assert_no_money_is_lost(engine, account)


def test_credit_is_spent_once_when_a_page_fails_and_its_halves_are_billed(
    engine: Engine, account: Account
) -> None:
    clients = [monthly(engine, account) for _ in range(5)]
    for client in clients:
        deposit(engine, account, client, 400)
        charges(engine, client, [(MAY, "10.00")])
    refuse_invoices_of(engine, clients[3])

    run = bill(engine, account, now=NOW)

    assert [balances(engine, client) for client in clients] == [{}, {}, {}, {"usd": 400}, {}]
    assert [moves(engine, client) for client in clients[:3]] == [
        [("applied", -400), ("deposit", 400)]
    ] * 3
    allow_invoices_again(engine)
    bill(engine, account, now=NOW)
    assert balances(engine, clients[3]) == {}
    with Session(engine) as session:
        assert session.get_one(BillingRun, run.id).finished_at == NOW
    assert_no_money_is_lost(engine, account)


def test_an_invoice_over_nothing_uses_no_credit_and_takes_no_debit(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    owe(engine, account, client, 30)
    deposit(engine, account, client, 500, "eur")

    an_invoice(engine, account, client, "0.00")
    an_invoice(engine, account, client, "0.00", currency="eur")

    assert balances(engine, client) == {"usd": -30, "eur": 500}
    assert_no_money_is_lost(engine, account)


# Debits


def test_a_carried_remainder_comes_in_whole_with_the_next_finalized_invoice(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    small = owe(engine, account, client, 49)
    assert (small.status, small.credit_applied, small.amount_due) == ("paid", 49, 0)
    assert balances(engine, client) == {"usd": -49}

    following = an_invoice(engine, account, client, "0.01")

    assert (following.status, following.credit_applied, following.amount_due) == ("open", -49, 50)
    assert moves(engine, client) == [("applied", 49), ("carried", -49)]
    assert booked(engine, "carry") == [(TODAY, {"credit": 49, "receivable": -49})]
    assert booked(engine, "apply_credit") == [(TODAY, {"credit": -49, "receivable": 49})]
    assert_no_money_is_lost(engine, account)


def test_a_remainder_is_carried_again_with_what_had_come_in(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    owe(engine, account, client, 20)
    second = owe(engine, account, client, 20)

    assert (second.status, second.credit_applied) == ("paid", 20)
    assert balances(engine, client) == {"usd": -40}
    assert an_invoice(engine, account, client).amount_due == 1040
    assert_no_money_is_lost(engine, account)


def test_a_debit_comes_in_with_the_first_of_two_and_not_with_both(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    owe(engine, account, client, 30)
    for _ in range(2):
        a_draft(engine, account, client)

    finalize_together(engine, account, client)

    assert paid_how(engine, client)[1:] == [("open", -30, 0, 1030), ("open", 0, 0, 1000)]
    assert_no_money_is_lost(engine, account)


def test_a_debit_comes_in_with_no_invoice_in_another_currency(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    owe(engine, account, client, 30)

    assert an_invoice(engine, account, client, currency="eur").amount_due == 1000

    assert balances(engine, client) == {"usd": -30}


def test_a_run_takes_debits_in(engine: Engine, account: Account) -> None:
    client = monthly(engine, account)
    owe(engine, account, client, 30)
    a_charge(engine, client, MAY)

    bill(engine, account, now=NOW)

    assert paid_how(engine, client)[-1] == ("open", -30, 0, 1030)
    assert_no_money_is_lost(engine, account)


# Negative invoices


def test_a_negative_invoice_becomes_credit_that_pays_older_open_invoices_at_once(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for day in range(3):
        an_invoice(engine, account, client, "3.00", now=NOW + timedelta(days=day))

    negative = an_invoice(engine, account, client, "-5.00", now=NOW + timedelta(days=5))

    assert (negative.status, negative.credit_applied, negative.amount_due) == ("paid", -500, 0)
    assert paid_how(engine, client)[:3] == [
        ("paid", 300, 0, 0),
        ("open", 200, 0, 100),
        ("open", 0, 0, 300),
    ]
    assert moves(engine, client) == [
        ("applied", -300),
        ("applied", -200),
        ("negative_invoice", 500),
    ]
    assert_no_money_is_lost(engine, account)


def test_what_no_invoice_needs_of_a_negative_one_is_in_hand(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client, "-5.00")

    assert balances(engine, client) == {"usd": 500}
    assert booked(engine, "apply_credit") == []
    assert_no_money_is_lost(engine, account)


def test_a_negative_and_a_positive_invoice_of_one_page_meet(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    owe(engine, account, client, 30)
    a_draft(engine, account, client, "10.00")
    a_draft(engine, account, client, "-4.00")

    finalize_together(engine, account, client)

    # 30 came in, 400 went out.
    assert paid_how(engine, client)[1:] == [("open", 370, 0, 630), ("paid", -400, 0, 0)]
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


def test_a_negative_invoice_first_settles_what_the_client_owes(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client)
    owe(engine, account, client, 30)

    an_invoice(engine, account, client, "-0.50")

    assert paid_how(engine, client)[0] == ("open", 20, 0, 980)
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


def test_a_negative_invoice_in_one_currency_spends_nothing_that_is_kept_in_another(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    an_invoice(engine, account, client, currency="eur")
    deposit(engine, account, client, 700, "eur", apply=False)
    an_invoice(engine, account, client)

    an_invoice(engine, account, client, "-5.00")

    assert paid_how(engine, client)[:2] == [("open", 0, 0, 1000), ("open", 500, 0, 500)]
    assert balances(engine, client) == {"eur": 700}
    assert_no_money_is_lost(engine, account)


def test_a_negative_invoice_leaves_alone_what_a_card_is_being_charged_for(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    an_attempt(engine, an_invoice(engine, account, client))

    an_invoice(engine, account, client, "-5.00")

    assert paid_how(engine, client)[0] == ("open", 0, 0, 1000)
    assert balances(engine, client) == {"usd": 500}


# The movements themselves


def test_movements_of_one_balance_in_one_go_add_up(
    engine: Engine, session: Session, account: Account
) -> None:
    client, other = a_client(engine, account), a_client(engine, account)
    move = partial(CreditMove, account_id=account.id, currency="usd", requested_by="test")
    given = [
        move(client_id=owner.id, kind=CreditEntryKind.ADJUSTMENT, amount=amount)
        for owner, amount in ((client, 500), (other, 70), (client, -500), (client, 30))
    ]

    move_credit(session, given)
    move_credit(session, [])

    assert (balance_of(session, client.id, "usd"), balance_of(session, other.id, "usd")) == (30, 70)
    assert balance_of(session, client.id, "eur") == 0
    session.rollback()
    assert balances(engine, client) == {}


def test_applying_where_there_is_neither_credit_nor_invoice_is_nothing(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account)
    apply = partial(apply_credit, session, account, now=NOW, requested_by="test")

    assert apply([]) == {}
    assert apply([client.id]) == {}
    deposit(engine, account, client, 500)
    assert apply([client.id, uuid4()]) == {}
