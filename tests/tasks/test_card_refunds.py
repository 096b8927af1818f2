"""Refunds to cards: each sent once, whatever becomes of the answers, and known by what Stripe says."""

from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.errors import RuleViolation
from billing.outside_payments import OutsideMethod
from billing.postings import LedgerEvent
from gateways.cards import CardRefund
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_events import event_from
from models import Account, Client, Invoice, Job, Payment, PaymentSource
from tasks.calls import Call, Gateways
from tasks.card_refunds import resolve_refund
from tasks.charging import charge_invoice
from tasks.crediting import apply_invoice_credit
from tasks.invoice_credits import credit_invoice, credit_invoice_to_card
from tasks.kinds import JobKind
from tasks.marking_paid import mark_invoice_paid
from tasks.payment_refunds import refund_payment, refund_payment_to_card
from tasks.payments import Received, receive
from tasks.voiding import void_invoice
from tasks.webhooks import handle_payment_event, store_payment_event
from tests.cards import (
    BANK,
    QUEUES,
    Killed,
    a_client_with,
    an_open_invoice,
    ask,
    credit_of,
    die,
    do,
    hurry,
    jobs_of,
    payments,
    restart,
    sweep,
    watched,
)
from tests.money import booked, deposit, invoice_of
from tests.refunds import (
    a_card_payment,
    a_payment_by_card,
    assert_stripe_agrees,
    notes_of,
    refund,
    refund_keys,
    refund_states,
    refunds_of,
    sent_back,
)
from tests.worlds import NOW, perform, work

REFUNDS = "/v1/refunds"
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TODAY = NOW.date()


@pytest.fixture
def payment(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> Payment:
    """10.00 by card for an invoice of as much."""
    return a_card_payment(engine, account, vendors, stripe_sandbox)


def of_invoice(engine: Engine, payment: Payment) -> tuple[str, int, int, int]:
    """Status, what was credited and refunded, and what is due."""
    assert payment.invoice_id is not None
    one = invoice_of(engine, payment.invoice_id)
    return one.status, one.amount_credited, one.amount_refunded, one.amount_due


def hear(engine: Engine, vendors: Gateways, stripe: StripeSandbox, *types: str) -> list[str | None]:
    """Stripe's events of these types come in, in this order; what became of each that is news."""
    told = [event_from(one) for kind in types for one in stripe.control.events(kind)]
    with Session(engine) as session, session.begin():
        for event in told:
            store_payment_event(session, event, requested_by="stripe")
    before = len(jobs_of(engine, handle_payment_event))
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    return [(job.result or {}).get("outcome") for job in jobs_of(engine, handle_payment_event)][
        before - len(told) :
    ]


def test_a_lost_answer_is_asked_for_under_the_same_key_and_the_money_goes_once(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    payment: Payment,
) -> None:
    stripe_sandbox.control.add_fault("lost_answer", times=None, path=REFUNDS)
    job = refund(engine, vendors, account, payment)

    [one] = refunds_of(engine)
    assert (one.state, one.next_ask_at) == ("unknown", NOW + MINUTE)
    assert job.result is not None
    assert job.result["state"] == "unknown"
    assert of_invoice(engine, payment) == ("paid", 0, 0, 0)
    assert notes_of(engine) == []
    stripe_sandbox.control.clear_faults()
    sweep(engine, vendors, now=NOW + timedelta(seconds=59))
    assert refund_states(engine) == ["unknown"]

    sweep(engine, vendors, now=NOW + MINUTE)

    assert refund_states(engine) == ["succeeded"]
    assert of_invoice(engine, payment) == ("paid", 1000, 1000, 0)
    assert set(refund_keys(stripe_sandbox)) == {one.idempotency_key}
    assert sent_back(stripe_sandbox) == [1000]
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_after_a_day_a_refund_is_looked_up_and_nothing_is_sent(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    payment: Payment,
) -> None:
    stripe_sandbox.control.add_fault("server_error_after", path=REFUNDS)
    refund(engine, vendors, account, payment)
    stripe_sandbox.control.expire_keys()

    sweep(engine, vendors, now=NOW + DAY)

    assert refund_states(engine) == ["succeeded"]
    assert len(refund_keys(stripe_sandbox)) == 1
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_a_failure_of_stripes_that_its_key_repeats_is_looked_up(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    payment: Payment,
) -> None:
    stripe_sandbox.control.add_fault("server_error_after", path=REFUNDS)
    refund(engine, vendors, account, payment)

    sweep(engine, vendors, now=NOW + MINUTE)

    assert refund_states(engine) == ["succeeded"]
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_a_refund_that_never_arrived_is_given_up_after_a_day_and_can_be_asked_for_anew(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    payment: Payment,
) -> None:
    stripe_sandbox.control.add_fault("server_error", path=REFUNDS, is_saved=True)
    refund(engine, vendors, account, payment)
    asked = []
    for _ in range(3):
        [one] = refunds_of(engine)
        assert (one.state, one.next_ask_at is None) == ("unknown", False)
        assert one.next_ask_at is not None
        asked.append(one.next_ask_at - NOW)
        sweep(engine, vendors, now=one.next_ask_at)
    assert asked == [MINUTE, 5 * MINUTE, HOUR]

    sweep(engine, vendors, now=NOW + DAY)

    [one] = refunds_of(engine)
    assert (one.state, one.succeeded_at, one.settled_at) == ("failed", None, NOW + DAY)
    assert "never arrived" in (one.message or "")
    assert of_invoice(engine, payment) == ("paid", 0, 0, 0)
    assert refund(engine, vendors, account, payment).state == "succeeded"
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_a_refusal_moves_nothing_and_says_so(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    payment: Payment,
) -> None:
    # Somebody gave a part back at Stripe, behind our back.
    with_part_gone(stripe_sandbox, vendors, engine)

    job = refund(engine, vendors, account, payment)

    assert (job.state, job.reason) == ("skipped", "refund_refused")
    assert job.result is not None
    assert "greater than unrefunded amount" in job.result["message"]
    [one] = refunds_of(engine)
    assert (one.state, one.succeeded_at, one.stripe_refund) == ("failed", None, None)
    assert of_invoice(engine, payment) == ("paid", 0, 0, 0)
    assert credit_of_payer(engine, payment) == 0
    refund(engine, vendors, account, payment, amount=900)
    assert of_invoice(engine, payment) == ("paid", 900, 900, 0)


def with_part_gone(stripe: StripeSandbox, vendors: Gateways, engine: Engine) -> None:
    [intent] = stripe.control.payment_intents()
    vendors.cards.refund(
        CardRefund(
            payment_intent=intent["id"],
            amount=100,
            currency="usd",
            idempotency_key="by-hand",
            metadata={},
        )
    )
    assert hear(engine, vendors, stripe, "refund.created") == ["not_ours"]


def credit_of_payer(engine: Engine, payment: Payment) -> int:
    with Session(engine) as session:
        return credit_of(engine, session.get_one(Client, payment.client_id))


def test_a_stripe_that_is_too_busy_is_asked_again_as_soon_as_it_says(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    payment: Payment,
) -> None:
    stripe_sandbox.control.add_fault("rate_limit", path=REFUNDS, retry_after=5)
    job = refund(engine, vendors, account, payment)
    assert job.state == "scheduled"
    assert refund_states(engine) == ["pending"]

    hurry(engine, vendors, now=NOW + MINUTE)

    assert refund_states(engine) == ["succeeded"]
    assert len(set(refund_keys(stripe_sandbox))) == 1
    assert_stripe_agrees(engine, account, stripe_sandbox)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["refund", "note"])
def test_a_worker_that_dies_around_the_call_is_followed_by_one_that_goes_on(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    payment: Payment,
    when: str,
    how: str,
) -> None:
    asked: dict[str, tuple[JobKind, dict[str, Any]]] = {
        "refund": (refund_payment_to_card, {"payment_id": payment.id}),
        "note": (credit_invoice_to_card, {"invoice_id": payment.invoice_id, "amount": 1000}),
    }
    kind, about = asked[how]
    job_id = ask(engine, kind, account, **about)
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, **{when: die}), queues=QUEUES)
    assert refund_states(engine) == ["pending"]
    assert sent_back(stripe_sandbox) == ([1000] if when == "after" else [])

    restart(engine)
    work(engine, now=NOW + MINUTE, gateways=vendors, queues=QUEUES)

    with Session(engine) as session:
        assert session.get_one(Job, job_id).state == "succeeded"
    assert refund_states(engine) == ["succeeded"]
    assert of_invoice(engine, payment) == ("paid", 1000, 1000, 0)
    assert sent_back(stripe_sandbox) == [1000]
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_the_sweep_asks_for_a_refund_whose_job_is_gone(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    payment: Payment,
) -> None:
    step = perform(engine, refund_payment_to_card, account, payment_id=payment.id)
    assert isinstance(step, Call)

    sweep(engine, vendors, now=NOW + MINUTE)

    assert refund_states(engine) == ["succeeded"]
    assert sent_back(stripe_sandbox) == [1000]
    assert_stripe_agrees(engine, account, stripe_sandbox)


@pytest.mark.parametrize("credit_note", [True, False])
def test_while_a_refund_is_out_everything_else_waits(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    credit_note: bool,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    payment = a_payment_by_card(engine, account, vendors, client)
    invoice_id = payment.invoice_id
    assert invoice_id is not None
    refund(engine, vendors, account, payment, amount=600, credit_note=False)
    stripe_sandbox.control.add_fault("lost_answer", times=None, path=REFUNDS)
    refund(engine, vendors, account, payment, amount=100, credit_note=credit_note)
    assert refund_states(engine) == ["succeeded", "unknown"]

    for kind, arguments in (
        (void_invoice, {"settle": "credit"}),
        (mark_invoice_paid, {}),
        (charge_invoice, {}),
        (credit_invoice, {"amount": 1, "to": "credit"}),
    ):
        with pytest.raises(RuleViolation) as refusal:
            perform(engine, kind, account, invoice_id=invoice_id, **arguments)
        assert refusal.value.code == "refund_in_flight", kind.name
    with pytest.raises(RuleViolation) as refusal:
        perform(engine, refund_payment, account, payment_id=payment.id, to="outside")
    assert refusal.value.code == "refund_in_flight"
    # Credit and automatic tries leave it alone, and come when it is settled.
    deposit(engine, account, client, 250)
    with pytest.raises(RuleViolation) as refusal:
        perform(engine, apply_invoice_credit, account, invoice_id=invoice_id)
    assert refusal.value.code == "refund_in_flight"
    assert invoice_of(engine, invoice_id).credit_applied == 0
    stripe_sandbox.control.clear_faults()
    sweep(engine, vendors, now=NOW + MINUTE)

    invoice = invoice_of(engine, invoice_id)
    assert invoice.credit_applied == 250
    assert invoice.amount_due == (350 if credit_note else 450)
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_an_automatic_try_waits_for_a_refund_of_the_same_invoice(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    payment = a_payment_by_card(engine, account, vendors, client)
    other = an_open_invoice(engine, account, client, "7.00")
    # As if one that is collected by itself were partly paid: by card, and then owed again.
    refund(engine, vendors, account, payment, amount=300, credit_note=False)
    with Session(engine) as session, session.begin():
        invoice = session.get_one(Invoice, payment.invoice_id)
        invoice.auto_collect, invoice.next_attempt_at = True, NOW
    stripe_sandbox.control.add_fault("lost_answer", times=None, path=REFUNDS)
    refund(engine, vendors, account, payment, amount=100)

    sweep(engine, vendors)

    assert invoice_of(engine, other).status == "paid"
    assert of_invoice(engine, payment)[0] == "open"
    stripe_sandbox.control.clear_faults()
    sweep(engine, vendors, now=NOW + MINUTE)
    assert of_invoice(engine, payment) == ("paid", 100, 400, 0)
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_a_refund_to_a_bank_account_is_settled_by_what_stripe_tells_later(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    stripe_sandbox.control.set(settle_after=None)
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"])
    hear(engine, vendors, stripe_sandbox, "payment_intent.succeeded")
    [payment] = payments(engine)

    job = refund(engine, vendors, account, payment)

    [one] = refunds_of(engine)
    assert job.result is not None
    assert (job.state, job.result["state"]) == ("succeeded", "processing")
    assert (one.state, one.next_ask_at) == ("processing", NOW + DAY)
    sweep(engine, vendors, now=NOW + DAY)
    [one] = refunds_of(engine)
    assert (one.state, one.next_ask_at) == ("processing", NOW + 2 * DAY)
    assert notes_of(engine) == []
    stripe_sandbox.control.settle_refund(str(one.stripe_refund))

    outcomes = hear(
        engine, vendors, stripe_sandbox, "charge.refund.updated", "refund.updated", "refund.created"
    )

    assert outcomes == ["succeeded"] * 3
    assert of_invoice(engine, payment) == ("paid", 1000, 1000, 0)
    assert len(notes_of(engine)) == 1
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_a_refund_under_way_that_fails_in_the_end_does_nothing(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    stripe_sandbox.control.set(settle_after=None)
    payment = a_card_payment(engine, account, vendors, stripe_sandbox, card="pm_card_pendingRefund")
    refund(engine, vendors, account, payment, credit_note=False)
    [one] = refunds_of(engine)
    stripe_sandbox.control.settle_refund(str(one.stripe_refund), "failed")

    sweep(engine, vendors, now=NOW + DAY)

    [one] = refunds_of(engine)
    assert (one.state, one.came_back, one.message) == (
        "failed",
        False,
        "expired_or_canceled_card",
    )
    assert of_invoice(engine, payment) == ("paid", 0, 0, 0)
    assert booked(engine, "refund_failed") == []
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_what_the_bank_gives_back_is_the_clients_credit_once(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    payment: Payment,
    *,
    logs: list[MutableMapping[str, Any]],
) -> None:
    refund(engine, vendors, account, payment)
    [one] = refunds_of(engine)
    stripe_sandbox.control.settle_refund(str(one.stripe_refund), "failed")

    outcomes = hear(
        engine, vendors, stripe_sandbox, "refund.failed", "charge.refund.updated", "refund.updated"
    )

    assert outcomes == ["failed"] * 3
    [one] = refunds_of(engine)
    assert (one.state, one.came_back, one.message) == ("failed", True, "expired_or_canceled_card")
    assert of_invoice(engine, payment) == ("paid", 1000, 1000, 0)
    assert credit_of_payer(engine, payment) == 1000
    assert booked(engine, "refund_failed") == [(TODAY, {"stripe": 1000, "credit": -1000})]
    assert [entry["event"] for entry in logs].count("refund came back") == 1
    assert_stripe_agrees(engine, account, stripe_sandbox)
    # The money is credit now: it is not given back a second time from this payment.
    assert refund(engine, vendors, account, payment).reason == "nothing_to_refund"


def test_what_the_bank_gives_back_pays_the_debt_that_the_refund_had_opened(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    payment: Payment,
) -> None:
    refund(engine, vendors, account, payment, credit_note=False)
    assert of_invoice(engine, payment) == ("open", 0, 1000, 1000)
    [one] = refunds_of(engine)
    stripe_sandbox.control.settle_refund(str(one.stripe_refund), "failed")

    hear(engine, vendors, stripe_sandbox, "refund.failed")

    assert of_invoice(engine, payment) == ("paid", 0, 1000, 0)
    assert credit_of_payer(engine, payment) == 0
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_an_event_may_come_before_the_answer_is_written_down(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    payment: Payment,
) -> None:
    ask(engine, refund_payment_to_card, account, payment_id=payment.id)
    events: list[str | None] = []

    def tell() -> None:
        events.extend(hear(engine, vendors, stripe_sandbox, "refund.created"))

    work(engine, now=NOW, gateways=watched(vendors, after=tell), queues=QUEUES)

    assert events == ["succeeded"]
    assert refund_states(engine) == ["succeeded"]
    assert len(notes_of(engine)) == 1
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_money_that_comes_while_a_note_is_out_shrinks_the_note(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    payment = a_payment_by_card(engine, account, vendors, client)
    refund(engine, vendors, account, payment, amount=400, credit_note=False)
    assert of_invoice(engine, payment) == ("open", 0, 400, 400)
    step = perform(
        engine,
        credit_invoice_to_card,
        account,
        invoice_id=payment.invoice_id,
        amount=700,
    )
    assert isinstance(step, Call)
    # Stripe's word of an earlier charge is taken whenever it comes.
    with Session(engine) as session, session.begin():
        receive(
            session,
            session.get_one(Account, account.id),
            Received(
                client_id=client.id,
                currency="usd",
                amount=300,
                source=PaymentSource.OUTSIDE,
                method=OutsideMethod.OTHER,
                paid_on=TODAY,
                event=LedgerEvent.OUTSIDE_PAYMENT,
                excess=CreditEntryKind.UNEXPECTED,
                requested_by="test",
            ),
            invoice=session.get_one(Invoice, payment.invoice_id),
            now=NOW,
        )

    sweep(engine, vendors, now=NOW + MINUTE)

    [note] = notes_of(engine)
    assert (note.amount, note.lowers_due, note.returned) == (400, 100, 300)
    assert of_invoice(engine, payment) == ("paid", 400, 700, 0)
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_what_is_settled_is_not_asked_after(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    payment: Payment,
) -> None:
    refund(engine, vendors, account, payment)
    [one] = refunds_of(engine)

    job = do(engine, vendors, resolve_refund, account, refund_id=one.id)

    assert (job.state, job.reason) == ("skipped", "refund_settled")
