"""Refunding payments: with a note and without, to the card, to credit and outside."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Payment
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.outcomes import Done
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
from tests.cards import a_client_with, an_open_invoice, do, sweep
from tests.money import (
    an_invoice,
    assert_no_money_is_lost,
    balances,
    booked,
    deposit,
    invoice_of,
    moves,
    payments_of,
)
from tests.refunds import (
    a_card_payment,
    assert_stripe_agrees,
    credit,
    notes_of,
    refund,
    refund_keys,
    refunds_of,
    sent_back,
)
from tests.worlds import NOW, a_client, perform

TODAY = NOW.date()


def of_invoice(engine: Engine, invoice_id: UUID | None) -> tuple[str, int, int, int]:
    """Status, what was credited and refunded, and what is due."""
    assert invoice_id is not None
    one = invoice_of(engine, invoice_id)
    return one.status, one.amount_credited, one.amount_refunded, one.amount_due


def an_outside_payment(
    engine: Engine, account: Account, price: str = "10.00", amount: int | None = None
) -> Payment:
    """What a new client paid for an invoice in some other way."""
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client, price)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice.id, amount=amount)
    [payment] = payments_of(engine, client)
    return payment


def refused(engine: Engine, account: Account, payment: Payment, **asked: object) -> str | None:
    """The code by which the job is refused; it changes nothing."""
    before = len(refunds_of(engine))
    job = refund(engine, Gateways(), account, payment, **asked)
    assert job.state == "skipped"
    assert len(refunds_of(engine)) == before
    return job.reason


def test_a_refund_gives_all_of_a_payment_back_to_its_card_and_makes_a_note(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)

    job = refund(engine, vendors, account, payment, reason="sent twice")

    [one], [note] = refunds_of(engine), notes_of(engine)
    assert job.result == {
        "refund": str(one.id),
        "payment": str(payment.id),
        "invoice": str(payment.invoice_id),
        "credit_note": str(note.id),
        "state": "succeeded",
        "amount": 1000,
    }
    assert (one.state, one.succeeded_at, one.settled_at, one.next_ask_at) == (
        "succeeded",
        NOW,
        NOW,
        None,
    )
    assert (note.amount, note.returned, note.returned_to, note.reason) == (
        1000,
        1000,
        "card",
        "sent twice",
    )
    assert of_invoice(engine, payment.invoice_id) == ("paid", 1000, 1000, 0)
    assert booked(engine, "credit_note") == [(TODAY, {"revenue": 1000, "stripe": -1000})]
    assert refund_keys(stripe_sandbox) == [one.idempotency_key]
    assert refused(engine, account, payment) == "nothing_to_refund"
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_without_a_note_the_debt_is_there_again_and_nobody_charges_for_it_by_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    [payment] = payments_of(engine, client)

    refund(engine, vendors, account, payment, amount=400, credit_note=False)
    sweep(engine, vendors)

    invoice = invoice_of(engine, invoice_id)
    assert of_invoice(engine, invoice_id) == ("open", 0, 400, 400)
    assert (invoice.paid_at, invoice.auto_collect, invoice.next_attempt_at) == (None, False, None)
    assert notes_of(engine) == []
    assert booked(engine, "refund") == [(TODAY, {"receivable": 400, "stripe": -400})]
    assert_stripe_agrees(engine, account, stripe_sandbox)

    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    assert of_invoice(engine, invoice_id) == ("paid", 0, 400, 0)
    assert [one.amount for one in payments_of(engine, client)] == [1000, 400]
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_a_refund_outside_is_done_at_once(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    payment = an_outside_payment(engine, account)

    refund(engine, vendors, account, payment, amount=300, to="outside")
    refund(engine, vendors, account, payment, amount=200, to="outside", credit_note=False)

    assert of_invoice(engine, payment.invoice_id) == ("open", 300, 500, 200)
    assert booked(engine, "credit_note") == [(TODAY, {"revenue": 300, "outside": -300})]
    assert booked(engine, "refund") == [(TODAY, {"receivable": 200, "outside": -200})]
    assert [(one.state, one.idempotency_key) for one in refunds_of(engine)] == [
        ("succeeded", None)
    ] * 2
    assert_no_money_is_lost(engine, account)


def test_a_refund_to_credit_pays_what_else_is_open_and_leaves_its_own_debt_alone(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice.id)
    other = an_invoice(engine, account, client, "4.00")
    [payment] = payments_of(engine, client)

    refund(engine, vendors, account, payment, amount=500, to="credit", credit_note=False)

    assert of_invoice(engine, invoice.id) == ("open", 0, 500, 500)
    assert invoice_of(engine, other.id).status == "paid"
    assert moves(engine, client) == [("applied", -400), ("refund", 500)]
    assert balances(engine, client) == {"usd": 100}
    assert booked(engine, "refund") == [(TODAY, {"receivable": 500, "credit": -500})]
    assert_no_money_is_lost(engine, account)


def test_a_refund_of_a_part_payment_leaves_the_rest_of_the_debt_as_it_is(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    payment = an_outside_payment(engine, account, amount=400)

    refund(engine, vendors, account, payment, to="outside")

    [note] = notes_of(engine)
    assert (note.amount, note.lowers_due, note.returned) == (400, 0, 400)
    assert of_invoice(engine, payment.invoice_id) == ("open", 400, 400, 600)
    assert_no_money_is_lost(engine, account)


def test_no_more_goes_back_than_was_paid_and_kept(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    payment = an_outside_payment(engine, account)
    assert payment.invoice_id is not None

    assert refused(engine, account, payment, amount=1001, to="outside") == "amount_exceeds_paid"
    assert refused(engine, account, payment, amount=0, to="outside") == "invalid"
    assert refused(engine, account, payment, to="card") == "invalid"
    # What a note gave as credit was given back as well.
    credit(engine, vendors, account, payment.invoice_id, amount=800)
    assert refused(engine, account, payment, amount=201, to="outside") == "amount_exceeds_paid"
    refund(engine, vendors, account, payment, to="outside")
    assert of_invoice(engine, payment.invoice_id) == ("paid", 1000, 1000, 0)
    assert refused(engine, account, payment, to="credit") == "nothing_to_refund"
    assert_no_money_is_lost(engine, account)


def test_what_became_credit_is_not_refunded_here(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 500, apply=False)
    invoice = an_invoice(engine, account, client)
    perform(
        engine,
        mark_invoice_paid,
        account,
        invoice_id=invoice.id,
        amount=1500,
        overpayment="credit",
    )
    ahead, over = payments_of(engine, client)

    assert refused(engine, account, ahead, to="outside") == "nothing_to_refund"
    job = refund(engine, vendors, account, over, to="outside")
    assert job.result is not None
    assert job.result["amount"] == over.applied
    assert_no_money_is_lost(engine, account)


def test_a_payment_of_a_void_invoice_is_not_refunded(engine: Engine, account: Account) -> None:
    payment = an_outside_payment(engine, account, amount=400)
    perform(engine, void_invoice, account, invoice_id=payment.invoice_id, settle="credit")

    assert refused(engine, account, payment, to="outside") == "invoice_not_open"
    payment.id = uuid4()
    assert refused(engine, account, payment, to="outside") == "payment_not_found"


def test_a_payment_of_an_uncollectible_invoice_goes_back_with_a_note_alone(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    payment = an_outside_payment(engine, account, amount=400)
    assert payment.invoice_id is not None
    perform(engine, write_off_invoice, account, invoice_id=payment.invoice_id)

    for to in ("outside", "credit"):
        assert refused(engine, account, payment, to=to, credit_note=False) == "invoice_not_open"
    refund(engine, vendors, account, payment, amount=300, to="outside")

    # The note returned what was paid, so as much is still given up as before.
    assert of_invoice(engine, payment.invoice_id) == ("uncollectible", 300, 300, 0)
    assert invoice_of(engine, payment.invoice_id).amount_written_off == 600
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("settle", [None, "credit"])
def test_a_void_after_a_refund_keeps_what_was_not_given_back(
    engine: Engine, account: Account, vendors: Gateways, settle: str | None
) -> None:
    payment = an_outside_payment(engine, account)
    amount = 1000 if settle is None else 300
    refund(engine, vendors, account, payment, amount=amount, to="outside", credit_note=False)

    step = perform(engine, void_invoice, account, invoice_id=payment.invoice_id, settle=settle)

    assert of_invoice(engine, payment.invoice_id) == ("void", 0, amount, 0)
    assert isinstance(step, Done)
    assert step.result.get("kept_as_credit", 0) == 1000 - amount
    assert_no_money_is_lost(engine, account)


def test_yen_are_sent_as_stripe_counts_them(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    for price, currency in (("900", "jpy"), ("900", "isk")):
        invoice_id = an_open_invoice(
            engine, account, client, price, currency=currency, collect=False
        )
        do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    yen, kronur = payments_of(engine, client)

    for payment in (yen, kronur):
        refund(engine, vendors, account, payment, amount=400)

    assert sent_back(stripe_sandbox) == [400, 40000]
    assert [one.amount for one in refunds_of(engine)] == [400, 400]
