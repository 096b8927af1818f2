from datetime import UTC, date, datetime, timedelta
from functools import partial
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.collection import AttemptState
from billing.errors import IllegalTransition, NotFound, RuleViolation
from models import Account, Charge, LedgerEntry, LedgerPosting
from tasks.accounts import create_account
from tasks.charges import edit_charge
from tasks.drafting import draft_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.outcomes import Done
from tasks.voiding import void_invoice
from tests.jobs import job_of
from tests.money import (
    an_attempt,
    an_invoice,
    ask,
    assert_no_money_is_lost,
    balances,
    booked,
    deposit,
    invoice_of,
    moves,
    owe,
    paid_how,
    payments_of,
    settle,
    with_a_card,
)
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    audited,
    bill,
    invoices_of,
    perform,
    periods_of,
    together,
    work,
)

MAY = date(2026, 5, 1)
ROUNDS = 10


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
    # It holds the locks of an edit, and drafting would wait for them.
    session.rollback()
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


# What it had used


def test_a_void_gives_back_exactly_the_credit_that_was_used(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 400)
    invoice = an_invoice(engine, account, client)
    deposit(engine, account, client, 250, apply=False)
    later = NOW + timedelta(days=2)

    result = perform(engine, void_invoice, account, invoice_id=invoice.id, now=later)

    assert result == Done({"invoice": str(invoice.id), "credit_returned": 400})
    assert balances(engine, client) == {"usd": 650}
    assert moves(engine, client) == [
        ("applied", -400),
        ("deposit", 250),
        ("deposit", 400),
        ("returned", 400),
    ]
    assert booked(engine, "void") == [
        (later.date(), {"revenue": 1000, "receivable": -600, "credit": -400})
    ]
    # It stays on the record that credit was used.
    assert paid_how(engine, client) == [("void", 400, 0, 0)]
    assert_no_money_is_lost(engine, account)


def test_credit_used_in_several_steps_is_given_back_in_one(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    for amount in (100, 200, 300):
        deposit(engine, account, client, amount)

    perform(engine, void_invoice, account, invoice_id=invoice.id)

    assert [amount for kind, amount in moves(engine, client) if kind == "returned"] == [600]
    assert balances(engine, client) == {"usd": 600}
    assert_no_money_is_lost(engine, account)


def test_a_debit_that_had_come_in_is_owed_again_and_comes_in_with_the_next_invoice(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    owe(engine, account, client, 30)
    invoice = an_invoice(engine, account, client)
    assert (invoice.credit_applied, invoice.amount_due) == (-30, 1030)

    result = perform(engine, void_invoice, account, invoice_id=invoice.id)

    assert result == Done({"invoice": str(invoice.id), "credit_returned": -30})
    assert balances(engine, client) == {"usd": -30}
    assert booked(engine, "void") == [
        (NOW.date(), {"revenue": 1000, "receivable": -1030, "credit": 30})
    ]
    assert an_invoice(engine, account, client).amount_due == 1030
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


def test_a_debit_and_as_much_credit_cancel_out_and_nothing_is_given_back(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    owe(engine, account, client, 30)
    invoice = an_invoice(engine, account, client)
    deposit(engine, account, client, 30)

    perform(engine, void_invoice, account, invoice_id=invoice.id)

    assert moves(engine, client) == [
        ("applied", -30),
        ("applied", 30),
        ("carried", -30),
        ("deposit", 30),
    ]
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


def test_credit_that_a_void_gave_back_pays_the_next_invoice(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 400)
    invoice = an_invoice(engine, account, client)
    perform(engine, void_invoice, account, invoice_id=invoice.id)

    assert an_invoice(engine, account, client).amount_due == 600
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


def test_a_second_void_gives_nothing_back(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 400)
    invoice = an_invoice(engine, account, client)
    jobs = [ask(engine, void_invoice, account, invoice_id=invoice.id) for _ in range(2)]

    work(engine, now=NOW)

    ended = [job_of(engine, job_id) for job_id in jobs]
    assert sorted((job.state, job.reason) for job in ended) == [
        ("skipped", "invoice_not_open"),
        ("succeeded", None),
    ]
    assert balances(engine, client) == {"usd": 400}
    assert_no_money_is_lost(engine, account)


# What was paid


def test_a_partly_paid_invoice_is_not_voided(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 400)
    invoice = an_invoice(engine, account, client)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice.id, amount=1)

    with pytest.raises(RuleViolation) as refused:
        perform(engine, void_invoice, account, invoice_id=invoice.id)

    assert refused.value.code == "invoice_partly_paid"
    assert paid_how(engine, client) == [("open", 400, 1, 599)]
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


def test_what_was_paid_in_part_is_left_as_credit_where_staff_say_so(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 400)
    invoice = an_invoice(engine, account, client)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice.id, amount=150)
    later = NOW + timedelta(days=2)

    result = perform(
        engine, void_invoice, account, invoice_id=invoice.id, settle="credit", now=later
    )

    assert result == Done(
        {"invoice": str(invoice.id), "credit_returned": 400, "kept_as_credit": 150}
    )
    assert paid_how(engine, client) == [("void", 400, 150, 0)]
    assert balances(engine, client) == {"usd": 550}
    assert booked(engine, "void") == [
        (later.date(), {"revenue": 1000, "receivable": -450, "credit": -550})
    ]
    assert_no_money_is_lost(engine, account)


def test_credit_that_is_given_back_is_used_at_once_for_what_else_is_open(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 400)
    wrong = an_invoice(engine, account, client)
    other = an_invoice(engine, account, client)

    perform(engine, void_invoice, account, invoice_id=wrong.id)

    assert invoice_of(engine, other.id).amount_due == 600
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize(("reissue", "left", "due"), [(None, 0, 850), (True, 150, 1000)])
def test_what_was_paid_is_used_for_what_else_is_open_unless_copies_wait_for_it(
    engine: Engine, account: Account, *, reissue: bool | None, left: int, due: int
) -> None:
    client = a_client(engine, account)
    wrong = an_invoice(engine, account, client)
    other = an_invoice(engine, account, client)
    perform(engine, mark_invoice_paid, account, invoice_id=wrong.id, amount=150)

    perform(engine, void_invoice, account, invoice_id=wrong.id, settle="credit", reissue=reissue)

    assert invoice_of(engine, other.id).amount_due == due
    assert balances(engine, client) == ({"usd": left} if left else {})
    assert_no_money_is_lost(engine, account)


def test_money_that_comes_while_it_is_voided_is_credit_either_way(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        invoice = an_invoice(engine, account, client)
        together(
            partial(perform, engine, void_invoice, account, invoice_id=invoice.id, settle="credit"),
            partial(perform, engine, mark_invoice_paid, account, invoice_id=invoice.id, amount=1),
        )

    received = sum(payment.amount for payment in payments_of(engine, client))
    assert {status for status, *_ in paid_how(engine, client)} == {"void"}
    assert balances(engine, client).get("usd", 0) == received
    assert_no_money_is_lost(engine, account)


def test_what_credit_or_money_has_paid_whole_is_not_voided(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    by_money = an_invoice(engine, account, client)
    perform(engine, mark_invoice_paid, account, invoice_id=by_money.id)
    deposit(engine, account, client, 1000)
    by_credit = an_invoice(engine, account, client)

    for invoice in (by_money, by_credit):
        with pytest.raises(IllegalTransition) as refused:
            perform(engine, void_invoice, account, invoice_id=invoice.id)
        assert refused.value.code == "invoice_not_open"
    assert paid_how(engine, client) == [("paid", 0, 1000, 0), ("paid", 1000, 0, 0)]


@pytest.mark.parametrize(
    "state", [AttemptState.PENDING, AttemptState.PROCESSING, AttemptState.UNKNOWN]
)
def test_an_invoice_whose_card_is_being_charged_is_not_voided(
    engine: Engine, account: Account, state: AttemptState
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 400)
    invoice = an_invoice(engine, account, client)
    attempt = an_attempt(engine, invoice, state)

    with pytest.raises(RuleViolation) as refused:
        perform(engine, void_invoice, account, invoice_id=invoice.id)
    assert refused.value.code == "payment_in_flight"
    assert balances(engine, client) == {}
    settle(engine, attempt, AttemptState.DECLINED)
    perform(engine, void_invoice, account, invoice_id=invoice.id)

    assert balances(engine, client) == {"usd": 400}
    assert_no_money_is_lost(engine, account)


def test_an_attempt_that_waits_for_the_client_is_withdrawn_before_credit_is_given_back(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 400)
    invoice = an_invoice(engine, account, client)
    attempt = an_attempt(engine, invoice, AttemptState.NEEDS_ACTION)
    job_id = ask(engine, void_invoice, account, invoice_id=invoice.id)

    work(engine, now=NOW)

    assert (job_of(engine, job_id).state, balances(engine, client)) == ("scheduled", {})
    settle(engine, attempt, AttemptState.CANCELED)
    work(engine, now=NOW, queues=("billing", "payments"))
    assert job_of(engine, job_id).state == "succeeded"
    assert balances(engine, client) == {"usd": 400}
    assert_no_money_is_lost(engine, account)


def test_a_void_invoice_is_charged_to_no_card_and_paid_by_no_credit(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    with_a_card(engine, account, client)
    invoice = an_invoice(engine, account, client, collect=True)
    assert invoice_of(engine, invoice.id).next_attempt_at == NOW

    perform(engine, void_invoice, account, invoice_id=invoice.id)
    deposit(engine, account, client, 700)

    assert invoice_of(engine, invoice.id).next_attempt_at is None
    assert paid_how(engine, client) == [("void", 0, 0, 0)]
    assert balances(engine, client) == {"usd": 700}
    assert [one.applied for one in payments_of(engine, client)] == [0]
