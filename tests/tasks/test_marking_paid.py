from datetime import date, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.collection import AttemptState
from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.outside_payments import OutsideMethod
from models import Account, Invoice, Mail
from tasks.accounts import create_account
from tasks.marking_paid import mark_invoice_paid
from tasks.voiding import void_invoice
from tests.jobs import job_of
from tests.money import (
    a_draft,
    an_attempt,
    an_invoice,
    ask,
    assert_no_money_is_lost,
    balances,
    booked,
    deposit,
    done,
    invoice_of,
    moves,
    owe,
    paid_how,
    payments_of,
    settle,
    with_a_card,
)
from tests.worlds import NOW, a_client, perform, work

TODAY = NOW.date()


def mark_paid(engine: Engine, account: Account, invoice: Invoice, **options: Any) -> dict[str, Any]:
    return done(engine, mark_invoice_paid, account, invoice_id=invoice.id, **options)


def refused(engine: Engine, account: Account, invoice: Invoice, **options: Any) -> str:
    """The code with which marking an invoice as paid is refused."""
    with pytest.raises((InvalidInput, RuleViolation)) as refusal:
        mark_paid(engine, account, invoice, **options)
    assert isinstance(refusal.value, InvalidInput | RuleViolation)
    return refusal.value.code


def test_one_press_records_all_that_is_due_as_paid_today_in_some_other_way(
    engine: Engine, session: Session, account: Account
) -> None:
    client = a_client(engine, account, email="ada@ada-imports.example")
    invoice = an_invoice(engine, account, client)

    result = mark_paid(engine, account, invoice)

    [payment] = payments_of(engine, client)
    assert result == {"invoice": str(invoice.id), "payment": str(payment.id)}
    assert (payment.amount, payment.applied, payment.invoice_id) == (1000, 1000, invoice.id)
    assert (payment.source, payment.method, payment.paid_on) == ("outside", "other", TODAY)
    assert paid_how(engine, client) == [("paid", 0, 1000, 0)]
    assert invoice_of(engine, invoice.id).paid_at == NOW
    assert booked(engine, "outside_payment") == [(TODAY, {"outside": 1000, "receivable": -1000})]
    mail = session.scalars(select(Mail).where(Mail.kind == "receipt")).one()
    assert (mail.payment_id, mail.invoice_ids) == (payment.id, [invoice.id])
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("method", [*OutsideMethod])
def test_method_reference_date_and_note_are_kept_and_the_books_take_the_date(
    engine: Engine, account: Account, method: OutsideMethod
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    earlier = date(2026, 5, 20)

    mark_paid(
        engine,
        account,
        invoice,
        method=method,
        reference="chq 1234",
        paid_on=earlier,
        note="left at the desk",
    )

    [payment] = payments_of(engine, client)
    assert (payment.method, payment.reference, payment.note) == (
        method,
        "chq 1234",
        "left at the desk",
    )
    assert payment.paid_on == earlier
    assert payment.created_at == NOW
    assert [day for day, _ in booked(engine, "outside_payment")] == [earlier]
    # When it was paid is when we were told.
    assert invoice_of(engine, invoice.id).paid_at == NOW


def test_today_is_the_accounts_day(engine: Engine, session: Session) -> None:
    account = create_account(session, "Antipodes", time_zone="Pacific/Auckland")
    session.commit()
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    tomorrow, day_after = TODAY + timedelta(days=1), TODAY + timedelta(days=2)

    # Noon in London is midnight there.
    assert refused(engine, account, invoice, paid_on=day_after) == "invalid"
    mark_paid(engine, account, invoice, paid_on=tomorrow)

    assert payments_of(engine, client)[0].paid_on == tomorrow


def test_a_day_that_is_still_to_come_is_refused(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)

    with pytest.raises(InvalidInput, match="paid_on: must not be after today, 2026-06-01"):
        mark_paid(engine, account, invoice, paid_on=TODAY + timedelta(days=1))

    assert paid_how(engine, client) == [("open", 0, 0, 1000)]


def test_an_invoice_is_paid_in_several_parts_the_last_of_which_settles_it(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)

    for amount, left in ((1, 999), (499, 500)):
        mark_paid(engine, account, invoice, amount=amount)
        assert paid_how(engine, client) == [("open", 0, 1000 - left, left)]
        assert invoice_of(engine, invoice.id).paid_at is None
    mark_paid(engine, account, invoice, now=NOW + timedelta(days=3))

    assert [one.amount for one in payments_of(engine, client)] == [1, 499, 500]
    assert paid_how(engine, client) == [("paid", 0, 1000, 0)]
    assert invoice_of(engine, invoice.id).paid_at == NOW + timedelta(days=3)
    assert_no_money_is_lost(engine, account)


def test_what_credit_has_paid_is_not_due_any_more(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 300)
    invoice = an_invoice(engine, account, client)

    assert refused(engine, account, invoice, amount=701) == "amount_exceeds_due"
    mark_paid(engine, account, invoice)

    assert paid_how(engine, client) == [("paid", 300, 700, 0)]
    assert_no_money_is_lost(engine, account)


def test_a_debit_that_came_in_is_due_like_the_rest(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    owe(engine, account, client, 30)
    invoice = an_invoice(engine, account, client)

    mark_paid(engine, account, invoice)

    assert paid_how(engine, client)[1] == ("paid", -30, 1030, 0)
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("overpayment", [None, "refund", ""])
def test_more_than_is_due_is_refused_unless_the_rest_is_said_to_be_credit(
    engine: Engine, account: Account, overpayment: str | None
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)

    code = refused(engine, account, invoice, amount=1001, overpayment=overpayment)

    assert code == "amount_exceeds_due"
    assert paid_how(engine, client) == [("open", 0, 0, 1000)]
    assert payments_of(engine, client) == []


def test_what_is_overpaid_becomes_credit_on_purpose(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)

    mark_paid(engine, account, invoice, amount=1250, overpayment="credit")

    [payment] = payments_of(engine, client)
    assert (payment.amount, payment.applied, payment.flagged) == (1250, 1000, None)
    assert paid_how(engine, client) == [("paid", 0, 1000, 0)]
    assert moves(engine, client) == [("overpayment", 250)]
    assert booked(engine, "outside_payment") == [
        (TODAY, {"outside": 1250, "receivable": -1000, "credit": -250})
    ]
    assert_no_money_is_lost(engine, account)


def test_what_is_overpaid_pays_the_clients_other_invoices_at_once(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    an_invoice(engine, account, client)
    an_invoice(engine, account, client, currency="eur")

    mark_paid(engine, account, invoice, amount=1600, overpayment="credit")

    assert paid_how(engine, client) == [
        ("paid", 0, 1000, 0),
        ("open", 600, 0, 400),
        ("open", 0, 0, 1000),
    ]
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


def test_overpayment_may_be_allowed_though_nothing_is_overpaid(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)

    mark_paid(engine, account, invoice, amount=400, overpayment="credit")
    mark_paid(engine, account, invoice, overpayment="credit")

    assert paid_how(engine, client) == [("paid", 0, 1000, 0)]
    assert moves(engine, client) == []


@pytest.mark.parametrize("amount", [0, -1])
def test_a_payment_is_above_zero(engine: Engine, account: Account, amount: int) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)

    assert refused(engine, account, invoice, amount=amount) == "invalid"
    assert paid_how(engine, client) == [("open", 0, 0, 1000)]


def test_only_an_open_invoice_is_marked_and_the_job_says_so(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    draft = a_draft(engine, account, client)
    paid, void = an_invoice(engine, account, client), an_invoice(engine, account, client)
    mark_paid(engine, account, paid)
    perform(engine, void_invoice, account, invoice_id=void.id)
    zero = an_invoice(engine, account, client, "0.00")
    # All of them before the first is run: none can pass for another's second press.
    jobs = [
        ask(engine, mark_invoice_paid, account, invoice_id=one.id)
        for one in (draft, paid, void, zero)
    ]

    work(engine, now=NOW)

    ended = [job_of(engine, job_id) for job_id in jobs]
    assert {(job.state, job.reason) for job in ended} == {("skipped", "invoice_not_open")}
    assert len(payments_of(engine, client)) == 1
    assert_no_money_is_lost(engine, account)


def test_another_accounts_invoice_is_not_found(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    theirs = an_invoice(engine, other, a_client(engine, other))

    for invoice_id in (theirs.id, uuid4()):
        with pytest.raises(NotFound):
            perform(engine, mark_invoice_paid, account, invoice_id=invoice_id)
    assert invoice_of(engine, theirs.id).status == "open"


@pytest.mark.parametrize(
    "state", [AttemptState.PENDING, AttemptState.PROCESSING, AttemptState.UNKNOWN]
)
def test_an_invoice_whose_card_is_being_charged_is_not_marked(
    engine: Engine, account: Account, state: AttemptState
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    attempt = an_attempt(engine, invoice, state)

    assert refused(engine, account, invoice) == "payment_in_flight"
    assert payments_of(engine, client) == []
    settle(engine, attempt, AttemptState.DECLINED)
    mark_paid(engine, account, invoice)

    assert paid_how(engine, client) == [("paid", 0, 1000, 0)]


def test_an_attempt_that_waits_for_the_client_is_withdrawn_before_anything_is_written(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    attempt = an_attempt(engine, invoice, AttemptState.NEEDS_ACTION)
    job_id = ask(engine, mark_invoice_paid, account, invoice_id=invoice.id)

    work(engine, now=NOW)

    assert (job_of(engine, job_id).state, payments_of(engine, client)) == ("scheduled", [])
    settle(engine, attempt, AttemptState.CANCELED)
    work(engine, now=NOW, queues=("billing", "payments"))
    assert job_of(engine, job_id).state == "succeeded"
    assert [one.amount for one in payments_of(engine, client)] == [1000]
    assert_no_money_is_lost(engine, account)


def test_a_part_leaves_the_rest_to_the_card_and_the_whole_takes_it_off_the_schedule(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    with_a_card(engine, account, client)
    invoice = an_invoice(engine, account, client, collect=True)

    mark_paid(engine, account, invoice, amount=400)
    assert invoice_of(engine, invoice.id).next_attempt_at == NOW
    mark_paid(engine, account, invoice)

    assert invoice_of(engine, invoice.id).next_attempt_at is None
