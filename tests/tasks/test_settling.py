from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from gateways.cards import CardReport, CardStatus, ChargeRefused
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, Invoice, PaymentAttempt
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.settling import settle_attempt
from tasks.voiding import void_invoice
from tests.cards import (
    HARD,
    a_client_with,
    a_pending_attempt,
    an_open_invoice,
    assert_books_agree,
    attempts_of,
    card_of,
    credit_of,
    do,
    give_money,
    invoice_of,
    mails,
    payments,
    sweep,
)
from tests.worlds import NOW, audited

SUCCEEDED, DECLINED, NEEDS_ACTION, PROCESSING, CANCELED = (
    CardStatus.SUCCEEDED,
    CardStatus.DECLINED,
    CardStatus.NEEDS_ACTION,
    CardStatus.PROCESSING,
    CardStatus.CANCELED,
)
CODES = {DECLINED: "insufficient_funds", NEEDS_ACTION: "authentication_required"}


def told(status: CardStatus, amount: int = 1000) -> CardReport:
    return CardReport(
        payment_intent="pi_1",
        status=status,
        amount_received=amount if status == SUCCEEDED else 0,
        currency="usd",
        decline_code=CODES.get(status),
    )


def tell(engine: Engine, attempt_id: UUID, *news: CardReport | ChargeRefused) -> str:
    """Each piece of news in a transaction of its own; how the attempt stands then."""
    state = ""
    for minute, one in enumerate(news):
        with Session(engine) as session, session.begin():
            now = NOW + timedelta(minutes=minute)
            attempt = settle_attempt(session, attempt_id, one, now=now, requested_by="test")
            state = attempt.state
    return state


@pytest.fixture
def pending(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> UUID:
    return a_pending_attempt(engine, account, vendors, stripe_sandbox).id


@pytest.mark.parametrize(
    ("news", "state"),
    [
        ([SUCCEEDED, SUCCEEDED], "succeeded"),
        ([SUCCEEDED, DECLINED], "succeeded"),
        ([SUCCEEDED, PROCESSING], "succeeded"),
        ([SUCCEEDED, CANCELED], "succeeded"),
        ([SUCCEEDED, NEEDS_ACTION], "succeeded"),
        ([DECLINED, SUCCEEDED], "succeeded"),
        ([CANCELED, SUCCEEDED], "succeeded"),
        ([NEEDS_ACTION, SUCCEEDED], "succeeded"),
        ([PROCESSING, NEEDS_ACTION, SUCCEEDED], "succeeded"),
        ([DECLINED, DECLINED], "declined"),
        ([DECLINED, PROCESSING], "declined"),
        ([DECLINED, NEEDS_ACTION], "declined"),
        ([DECLINED, CANCELED], "declined"),
        ([NEEDS_ACTION, PROCESSING, NEEDS_ACTION], "processing"),
        ([PROCESSING, PROCESSING], "processing"),
        ([PROCESSING, NEEDS_ACTION], "processing"),
    ],
)
def test_news_may_come_twice_and_in_any_order_and_money_is_booked_once(
    engine: Engine, account: Account, pending: UUID, *, news: Sequence[CardStatus], state: str
) -> None:
    assert tell(engine, pending, *[told(status) for status in news]) == state

    [attempt] = attempts_of(engine)
    came = state == "succeeded"
    assert [payment.amount for payment in payments(engine)] == ([1000] if came else [])
    invoice = invoice_tried(engine, attempt)
    assert invoice.status == ("paid" if came else "open")
    assert invoice.failures == (DECLINED in news and news[0] == DECLINED)
    assert mails(engine).count("receipt") == came
    assert mails(engine).count("payment_failed") <= 1
    assert audited(engine, account) == []


def test_a_refusal_that_is_told_twice_counts_once(
    engine: Engine, account: Account, pending: UUID
) -> None:
    refused = ChargeRefused("resource_missing", "no such customer")
    assert tell(engine, pending, refused, refused) == "declined"
    [attempt] = attempts_of(engine)
    assert (attempt.decline_class, attempt.decline_code) == ("needs_new_card", "resource_missing")
    assert invoice_tried(engine, attempt).failures == 1
    assert audited(engine, account) == []


def test_money_for_a_void_invoice_is_the_clients_credit_and_flagged(
    engine: Engine, account: Account, vendors: Gateways, pending: UUID
) -> None:
    tell(engine, pending, told(CANCELED))
    [attempt] = attempts_of(engine)
    do(engine, vendors, void_invoice, account, invoice_id=attempt.invoice_id)

    tell(engine, pending, told(SUCCEEDED))

    [payment] = payments(engine)
    assert (payment.amount, payment.applied, payment.flagged) == (1000, 0, "invoice_void")
    assert credit_of_attempt(engine, attempt) == 1000
    assert invoice_tried(engine, attempt).status == "void"
    assert audited(engine, account) == []


def test_money_for_an_invoice_that_was_paid_meanwhile_is_credit_and_flagged(
    engine: Engine, account: Account, vendors: Gateways, pending: UUID
) -> None:
    tell(engine, pending, told(CANCELED))
    [attempt] = attempts_of(engine)
    do(engine, vendors, mark_invoice_paid, account, invoice_id=attempt.invoice_id)

    tell(engine, pending, told(SUCCEEDED))

    flags = [(payment.applied, payment.flagged) for payment in payments(engine)]
    assert flags == [(1000, None), (0, "invoice_paid")]
    assert credit_of_attempt(engine, attempt) == 1000
    assert audited(engine, account) == []


def test_more_money_than_is_due_is_credit_for_what_is_over_and_flagged(
    engine: Engine, account: Account, pending: UUID
) -> None:
    tell(engine, pending, told(SUCCEEDED, 1250))

    [payment] = payments(engine)
    assert (payment.amount, payment.applied, payment.flagged) == (1250, 1000, "another_amount")
    [attempt] = attempts_of(engine)
    assert credit_of_attempt(engine, attempt) == 250
    assert audited(engine, account) == []


def test_less_money_than_is_due_leaves_the_rest_open(
    engine: Engine, account: Account, pending: UUID
) -> None:
    tell(engine, pending, told(SUCCEEDED, 400))

    [attempt] = attempts_of(engine)
    invoice = invoice_tried(engine, attempt)
    assert (invoice.status, invoice.amount_paid, invoice.amount_due) == ("open", 400, 600)
    assert [payment.flagged for payment in payments(engine)] == ["another_amount"]
    assert audited(engine, account) == []


def test_a_success_by_hand_makes_a_stopped_card_good_again(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    give_money(stripe_sandbox)

    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    method = card_of(engine, client)
    assert method is not None
    assert method.stopped_for is None
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def credit_of_attempt(engine: Engine, attempt: PaymentAttempt) -> int:
    with Session(engine) as session:
        client = session.get_one(Client, attempt.client_id)
    return credit_of(engine, client)


def invoice_tried(engine: Engine, attempt: PaymentAttempt) -> Invoice:
    assert attempt.invoice_id is not None
    return invoice_of(engine, attempt.invoice_id)
