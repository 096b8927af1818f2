from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from billing.collection import AttemptState
from billing.errors import IllegalTransition, InvalidInput, NotFound, RuleViolation
from gateways.cards import CardReport, CardStatus
from models import Account, Client, Invoice, LedgerEntry, Mail
from tasks.accounts import create_account
from tasks.aging import aging_report
from tasks.billing_methods import set_billing_method
from tasks.charging import charge_invoice
from tasks.crediting import apply_client_credit, apply_invoice_credit
from tasks.finalizing import finalize_invoice
from tasks.invoice_documents import invoice_document
from tasks.letters import letter_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.outcomes import Done
from tasks.settling import settle_attempt
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
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
    owe,
    paid_how,
    payments_of,
    settle,
    with_a_card,
)
from tests.worlds import NOW, a_client, perform, work

TODAY = NOW.date()


def write_off(engine: Engine, account: Account, invoice: Invoice, **options: Any) -> dict[str, Any]:
    return done(engine, write_off_invoice, account, invoice_id=invoice.id, **options)


def mark_paid(engine: Engine, account: Account, invoice: Invoice, **options: Any) -> dict[str, Any]:
    return done(engine, mark_invoice_paid, account, invoice_id=invoice.id, **options)


@pytest.fixture
def ada(engine: Engine, account: Account) -> Client:
    return a_client(engine, account, email="ada@ada-imports.example")


@pytest.fixture
def given_up(engine: Engine, account: Account, ada: Client) -> Invoice:
    """One of 10.00, of which 1.00 was paid before."""
    invoice = an_invoice(engine, account, ada)
    mark_paid(engine, account, invoice, amount=100)
    write_off(engine, account, invoice)
    return invoice


def written_off(engine: Engine, invoice: Invoice) -> tuple[str, int, int, int]:
    """Status, what was paid, what is given up and what is due."""
    now = invoice_of(engine, invoice.id)
    return now.status, now.amount_paid, now.amount_written_off, now.amount_due


# Giving up


def test_what_is_due_becomes_bad_debt_on_the_day_it_is_done(
    engine: Engine, account: Account, ada: Client
) -> None:
    deposit(engine, account, ada, 300)
    invoice = an_invoice(engine, account, ada, collect=True)
    mark_paid(engine, account, invoice, amount=100)
    later = NOW + timedelta(days=40)

    result = write_off(engine, account, invoice, now=later)

    assert result == {"invoice": str(invoice.id), "written_off": 600}
    assert written_off(engine, invoice) == ("uncollectible", 100, 600, 0)
    after = invoice_of(engine, invoice.id)
    assert (after.written_off_at, after.next_attempt_at) == (later, None)
    assert booked(engine, "write_off") == [(later.date(), {"bad_debt": 600, "receivable": -600})]
    assert_no_money_is_lost(engine, account)


def test_the_day_is_the_accounts(engine: Engine, session: Session) -> None:
    account = create_account(session, "Antipodes", time_zone="Pacific/Auckland")
    session.commit()
    invoice = an_invoice(engine, account, a_client(engine, account))

    write_off(engine, account, invoice, now=datetime(2026, 6, 10, 12, tzinfo=UTC))

    assert [day for day, _ in booked(engine, "write_off")] == [date(2026, 6, 11)]


def test_only_an_open_invoice_is_written_off(
    engine: Engine, session: Session, account: Account, ada: Client, given_up: Invoice
) -> None:
    draft = a_draft(engine, account, ada)
    paid = an_invoice(engine, account, ada, "0.00")
    void = an_invoice(engine, account, ada)
    perform(engine, void_invoice, account, invoice_id=void.id)

    for invoice in (draft, paid, void, given_up):
        with pytest.raises(IllegalTransition) as refused:
            write_off(engine, account, invoice)
        assert refused.value.code == "invoice_not_open"
    other = create_account(session, "Other")
    session.commit()
    for owner, invoice_id in ((account, uuid4()), (other, given_up.id)):
        with pytest.raises(NotFound):
            perform(engine, write_off_invoice, owner, invoice_id=invoice_id)
    assert len(booked(engine, "write_off")) == 1


@pytest.mark.parametrize(
    "state", [AttemptState.PENDING, AttemptState.PROCESSING, AttemptState.UNKNOWN]
)
def test_one_whose_card_is_being_charged_is_not_written_off(
    engine: Engine, account: Account, ada: Client, state: AttemptState
) -> None:
    invoice = an_invoice(engine, account, ada)
    attempt = an_attempt(engine, invoice, state)

    with pytest.raises(RuleViolation) as refused:
        write_off(engine, account, invoice)
    assert refused.value.code == "payment_in_flight"
    settle(engine, attempt, AttemptState.DECLINED)
    write_off(engine, account, invoice)
    assert_no_money_is_lost(engine, account)


def test_an_attempt_that_waits_for_the_client_is_withdrawn_first(
    engine: Engine, account: Account, ada: Client
) -> None:
    invoice = an_invoice(engine, account, ada)
    attempt = an_attempt(engine, invoice, AttemptState.NEEDS_ACTION)
    job_id = ask(engine, write_off_invoice, account, invoice_id=invoice.id)

    work(engine, now=NOW)

    assert (job_of(engine, job_id).state, invoice_of(engine, invoice.id).status) == (
        "scheduled",
        "open",
    )
    settle(engine, attempt, AttemptState.CANCELED)
    work(engine, now=NOW, queues=("billing", "payments"))
    assert job_of(engine, job_id).state == "succeeded"
    assert written_off(engine, invoice) == ("uncollectible", 0, 1000, 0)
    assert_no_money_is_lost(engine, account)


def test_a_second_press_writes_nothing_off(engine: Engine, account: Account, ada: Client) -> None:
    invoice = an_invoice(engine, account, ada)
    jobs = [ask(engine, write_off_invoice, account, invoice_id=invoice.id) for _ in range(2)]

    work(engine, now=NOW)

    ended = [job_of(engine, job_id) for job_id in jobs]
    assert sorted((job.state, job.reason) for job in ended) == [
        ("skipped", "invoice_not_open"),
        ("succeeded", None),
    ]
    assert len(booked(engine, "write_off")) == 1


# Afterwards


def test_it_is_neither_charged_nor_paid_by_credit_nor_woken_by_a_new_card(
    engine: Engine, session: Session, account: Account, ada: Client
) -> None:
    with_a_card(engine, account, ada)
    invoice = an_invoice(engine, account, ada, collect=True)
    write_off(engine, account, invoice)

    set_billing_method(
        session,
        account.id,
        ada.id,
        stripe_customer=f"cus_{ada.id.hex}",
        payment_method="pm_2",
        now=NOW,
        requested_by="test",
    )
    session.commit()
    deposit(engine, account, ada, 400)
    perform(engine, apply_client_credit, account, client_id=ada.id, currency="usd", amount=400)
    for kind in (charge_invoice, apply_invoice_credit):
        with pytest.raises(RuleViolation) as refused:
            perform(engine, kind, account, invoice_id=invoice.id)
        assert refused.value.code == "invoice_not_open"

    assert written_off(engine, invoice) == ("uncollectible", 0, 1000, 0)
    assert invoice_of(engine, invoice.id).next_attempt_at is None
    assert balances(engine, ada) == {"usd": 400}
    assert_no_money_is_lost(engine, account)


def test_it_is_nobodys_debt_in_the_aging_report(
    session: Session, account: Account, given_up: Invoice
) -> None:
    assert given_up.number == "INV-000001"
    assert aging_report(session, account.id, TODAY).clients == ()


def test_what_the_client_reads_still_asks_for_it(
    engine: Engine, session: Session, given_up: Invoice
) -> None:
    invoice = invoice_of(engine, given_up.id)

    assert invoice_document(session, invoice).amount_due == "9.00 USD"
    letter = letter_invoice(invoice, None)
    assert (letter.amount_due, letter.status, letter.is_due) == ("9.00 USD", "Open", True)


# Recovery


def test_one_press_records_that_all_of_it_was_paid_after_all(
    engine: Engine, session: Session, account: Account, ada: Client, given_up: Invoice
) -> None:
    earlier, later = date(2026, 5, 20), NOW + timedelta(days=90)

    mark_paid(engine, account, given_up, paid_on=earlier, now=later)

    assert written_off(engine, given_up) == ("paid", 1000, 0, 0)
    assert invoice_of(engine, given_up.id).paid_at == later
    assert booked(engine, "recovery") == [(earlier, {"receivable": 900, "bad_debt": -900})]
    assert booked(engine, "outside_payment")[1:] == [
        (earlier, {"outside": 900, "receivable": -900})
    ]
    events = select(LedgerEntry.event).order_by(LedgerEntry.id)
    assert session.scalars(events).all()[-2:] == ["recovery", "outside_payment"]
    assert [(one.amount, one.applied) for one in payments_of(engine, ada)] == [
        (100, 100),
        (900, 900),
    ]
    assert len(session.scalars(select(Mail).where(Mail.kind == "receipt")).all()) == 2
    assert_no_money_is_lost(engine, account)


def test_it_stays_uncollectible_until_all_of_it_has_come(
    engine: Engine, account: Account, given_up: Invoice
) -> None:
    mark_paid(engine, account, given_up, amount=400)
    assert written_off(engine, given_up) == ("uncollectible", 500, 500, 0)
    assert_no_money_is_lost(engine, account)

    mark_paid(engine, account, given_up, amount=500)
    assert written_off(engine, given_up) == ("paid", 1000, 0, 0)
    assert [sides["bad_debt"] for _, sides in booked(engine, "recovery")] == [-400, -500]
    assert_no_money_is_lost(engine, account)


def test_what_is_more_than_was_given_up_is_credit_where_staff_say_so(
    engine: Engine, account: Account, ada: Client, given_up: Invoice
) -> None:
    with pytest.raises(InvalidInput, match="more than the 900") as refused:
        mark_paid(engine, account, given_up, amount=901)
    assert refused.value.code == "amount_exceeds_due"

    mark_paid(engine, account, given_up, amount=1000, overpayment="credit")
    assert written_off(engine, given_up) == ("paid", 1000, 0, 0)
    assert balances(engine, ada) == {"usd": 100}
    assert_no_money_is_lost(engine, account)


def arrive(engine: Engine, attempt_id: UUID, amount: int) -> None:
    """Let Stripe say after all that an attempt was paid."""
    news = CardReport(
        payment_intent="pi_1",
        status=CardStatus.SUCCEEDED,
        amount_received=amount,
        currency="usd",
        decline_code=None,
    )
    with Session(engine) as session, session.begin():
        settle_attempt(session, attempt_id, news, now=NOW, requested_by="test")


@pytest.mark.parametrize(
    ("paid", "after", "kept", "flagged"),
    [
        (0, ("paid", 1000, 0, 0), 0, None),
        (400, ("paid", 1000, 0, 0), 400, "invoice_uncollectible"),
    ],
)
def test_a_cards_success_that_comes_late_is_recovery_and_the_rest_credit(
    engine: Engine,
    account: Account,
    ada: Client,
    *,
    paid: int,
    after: tuple[str, int, int, int],
    kept: int,
    flagged: str | None,
) -> None:
    invoice = an_invoice(engine, account, ada)
    attempt = an_attempt(engine, invoice)
    settle(engine, attempt, AttemptState.CANCELED)
    write_off(engine, account, invoice)
    if paid:
        mark_paid(engine, account, invoice, amount=paid)

    arrive(engine, attempt.id, 1000)

    assert written_off(engine, invoice) == after
    assert balances(engine, ada) == ({"usd": kept} if kept else {})
    assert payments_of(engine, ada)[-1].flagged == flagged
    assert_no_money_is_lost(engine, account)


# Void


def test_a_void_takes_the_bad_debt_back_first(
    engine: Engine, session: Session, account: Account, ada: Client
) -> None:
    deposit(engine, account, ada, 300)
    invoice = an_invoice(engine, account, ada)
    write_off(engine, account, invoice)
    later = NOW + timedelta(days=40)

    result = perform(engine, void_invoice, account, invoice_id=invoice.id, now=later)

    assert result == Done({"invoice": str(invoice.id), "credit_returned": 300})
    assert written_off(engine, invoice) == ("void", 0, 0, 0)
    assert booked(engine, "recovery") == [(later.date(), {"receivable": 700, "bad_debt": -700})]
    assert booked(engine, "void") == [
        (later.date(), {"revenue": 1000, "receivable": -700, "credit": -300})
    ]
    events = select(LedgerEntry.event).order_by(LedgerEntry.id)
    assert session.scalars(events).all()[-2:] == ["recovery", "void"]
    assert balances(engine, ada) == {"usd": 300}
    assert_no_money_is_lost(engine, account)


def test_a_void_of_what_was_paid_in_part_says_what_becomes_of_that(
    engine: Engine, account: Account, ada: Client, given_up: Invoice
) -> None:
    mark_paid(engine, account, given_up, amount=400)
    with pytest.raises(RuleViolation) as refused:
        perform(engine, void_invoice, account, invoice_id=given_up.id)
    assert refused.value.code == "invoice_partly_paid"

    perform(engine, void_invoice, account, invoice_id=given_up.id, settle="credit")

    assert [sides["bad_debt"] for _, sides in booked(engine, "recovery")] == [-400, -500]
    assert balances(engine, ada) == {"usd": 500}
    assert paid_how(engine, ada) == [("void", 0, 500, 0)]
    assert_no_money_is_lost(engine, account)


def test_a_debit_that_came_in_is_part_of_what_is_given_up_and_comes_back_with_a_void(
    engine: Engine, account: Account, ada: Client
) -> None:
    owe(engine, account, ada, 30)
    draft = a_draft(engine, account, ada)
    perform(engine, finalize_invoice, account, invoice_id=draft.id)
    write_off(engine, account, draft)
    assert written_off(engine, draft) == ("uncollectible", 0, 1030, 0)

    perform(engine, void_invoice, account, invoice_id=draft.id)

    assert balances(engine, ada) == {"usd": -30}
    assert_no_money_is_lost(engine, account)
