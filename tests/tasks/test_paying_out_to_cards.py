"""Unused credit sent to a card: off the balance before Stripe is asked, and back where it fails."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, RuleViolation
from gateways.cards import CardRefund
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_events import event_from
from models import Account, Client, Job
from tasks.calls import Call, Gateways
from tasks.card_deposits import deposit_by_card
from tasks.finalizing import finalize_invoice
from tasks.outcomes import Done
from tasks.paying_out import refund_credit, refund_credit_to_card
from tasks.webhooks import store_payment_event
from tests.cards import (
    QUEUES,
    Killed,
    a_client_with,
    ask,
    credit_of,
    die,
    do,
    payments,
    restart,
    sweep,
    watched,
)
from tests.money import (
    a_draft,
    balances,
    booked,
    deposit,
    grant,
    moves,
    paid_how,
)
from tests.refunds import (
    a_payment_by_card,
    assert_stripe_agrees,
    refund,
    refund_keys,
    refund_states,
    refunds_of,
    sent_back,
)
from tests.worlds import NOW, a_client, perform, together, work

REFUNDS = "/v1/refunds"
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
TODAY = NOW.date()
ROUNDS = 6


@pytest.fixture
def client(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> Client:
    """One that paid 10.00 in by card, ahead."""
    return a_depositor(engine, account, vendors, stripe_sandbox)


def a_depositor(
    engine: Engine, account: Account, vendors: Gateways, stripe: StripeSandbox
) -> Client:
    client = a_client_with(engine, account, stripe)
    pay_in(engine, vendors, account, client, 1000)
    return client


def pay_in(
    engine: Engine, vendors: Gateways, account: Account, client: Client, amount: int
) -> None:
    some: dict[str, Any] = {"client_id": client.id, "amount": amount, "currency": "usd"}
    assert do(engine, vendors, deposit_by_card, account, **some).state == "succeeded"


def of(client: Client, amount: int, **more: str) -> dict[str, Any]:
    return {"client_id": client.id, "amount": amount, "currency": "usd", **more}


def send(
    engine: Engine, vendors: Gateways, account: Account, client: Client, amount: int, **more: str
) -> Job:
    """How the job that sends a client's credit to its card ended."""
    return do(engine, vendors, refund_credit_to_card, account, **of(client, amount, **more))


def hear(engine: Engine, vendors: Gateways, stripe: StripeSandbox, kind: str) -> None:
    """What Stripe tells by events of this type comes in."""
    with Session(engine) as session, session.begin():
        for event in stripe.control.events(kind):
            store_payment_event(session, event_from(event), requested_by="stripe")
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)


def give_back_by_hand(vendors: Gateways, stripe: StripeSandbox, amount: int) -> None:
    """Somebody gives a part of the last charge back at Stripe, behind our back."""
    vendors.cards.refund(
        CardRefund(
            payment_intent=stripe.control.payment_intents()[-1]["id"],
            amount=amount,
            currency="usd",
            idempotency_key="by-hand",
            metadata={},
        )
    )


def test_unused_credit_goes_to_the_card_that_paid_it_in(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    client: Client,
) -> None:
    [payment] = payments(engine)

    job = send(engine, vendors, account, client, 600, reason="Has left", reference="T-9")

    [one] = refunds_of(engine)
    assert (job.state, job.queue) == ("succeeded", "payments")
    assert job.result == {
        "refund": str(one.id),
        "payment": str(payment.id),
        "invoice": None,
        "credit_note": None,
        "state": "succeeded",
        "amount": 600,
    }
    assert (one.payment_id, one.invoice_id, one.makes_note) == (payment.id, None, False)
    assert (one.reason, one.reference, one.succeeded_at) == ("Has left", "T-9", NOW)
    assert moves(engine, client) == [("deposit", 1000), ("paid_out", -600)]
    assert booked(engine, "credit_refund") == [(TODAY, {"credit": 600, "stripe": -600})]
    [at_stripe] = stripe_sandbox.control.objects("refund")
    assert at_stripe["metadata"] == {
        "account": str(account.id),
        "client": str(client.id),
        "refund": str(one.id),
    }
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_it_goes_to_the_newest_card_payment_that_can_carry_it_whatever_that_paid(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    paid_an_invoice = a_payment_by_card(engine, account, vendors, client, "7.00")
    pay_in(engine, vendors, account, client, 300)
    paid_in = payments(engine)[-1]
    deposit(engine, account, client, 5000)
    a_depositor(engine, account, vendors, stripe_sandbox)

    for amount in (300, 300, 200):
        assert send(engine, vendors, account, client, amount).state == "succeeded"

    first, *others = [one.payment_id for one in refunds_of(engine)]
    assert (first, others) == (paid_in.id, [paid_an_invoice.id] * 2)
    # What the card can still be sent counts them, whoever asks; the rest may go elsewhere.
    refused = send(engine, vendors, account, client, 201)
    assert (refused.state, refused.reason) == ("skipped", "amount_exceeds_paid")
    by_hand = refund(engine, vendors, account, paid_an_invoice, amount=201)
    assert by_hand.reason == "amount_exceeds_paid"
    refund(engine, vendors, account, paid_an_invoice, amount=100, credit_note=False)
    assert send(engine, vendors, account, client, 101).reason == "amount_exceeds_paid"
    refund(engine, vendors, account, paid_an_invoice, amount=600, to="outside")
    assert send(engine, vendors, account, client, 100).state == "succeeded"
    assert sent_back(stripe_sandbox) == [300, 300, 200, 100, 100]
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_neither_what_was_granted_nor_what_came_in_another_currency_goes_to_a_card(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    client: Client,
) -> None:
    grant(engine, account, client, 500)
    deposit(engine, account, client, 500, "eur")

    refused = send(engine, vendors, account, client, 1001)
    assert (refused.state, refused.reason) == ("skipped", "insufficient_credit")
    in_euros = do(
        engine, vendors, refund_credit_to_card, account, **{**of(client, 1), "currency": "EUR"}
    )
    assert (in_euros.state, in_euros.reason) == ("skipped", "amount_exceeds_paid")
    for wrong in (0, -5):
        assert send(engine, vendors, account, client, wrong).reason == "invalid"
    assert refunds_of(engine) == []
    assert balances(engine, client) == {"usd": 1500, "eur": 500}


def test_what_stripe_refuses_is_credit_again_and_pays_what_is_open(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    client: Client,
) -> None:
    give_back_by_hand(vendors, stripe_sandbox, 500)
    step = perform(engine, refund_credit_to_card, account, **of(client, 900))
    assert isinstance(step, Call)
    draft = a_draft(engine, account, client, "7.00")
    perform(engine, finalize_invoice, account, invoice_id=draft.id)
    assert paid_how(engine, client) == [("open", 100, 0, 600)]

    answer = step.ask(vendors)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        ended = step.record(session, answer)

    assert getattr(ended, "reason", None) == "refund_refused"
    assert refund_states(engine) == ["failed"]
    assert refunds_of(engine)[0].succeeded_at is None
    assert paid_how(engine, client) == [("paid", 700, 0, 0)]
    assert balances(engine, client) == {"usd": 300}
    assert booked(engine, "refund_failed") == [(TODAY, {"stripe": 900, "credit": -900})]


def test_a_lost_answer_is_asked_for_under_the_same_key_and_the_credit_stays_off(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    client: Client,
) -> None:
    stripe_sandbox.control.add_fault("lost_answer", times=None, path=REFUNDS)
    job = send(engine, vendors, account, client, 600)

    assert job.result is not None
    assert (job.state, job.result["state"]) == ("succeeded", "unknown")
    assert credit_of(engine, client) == 400
    assert send(engine, vendors, account, client, 401).reason == "insufficient_credit"
    stripe_sandbox.control.clear_faults()
    sweep(engine, vendors, now=NOW + MINUTE)

    assert refund_states(engine) == ["succeeded"]
    assert len(set(refund_keys(stripe_sandbox))) == 1
    assert sent_back(stripe_sandbox) == [600]
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_one_that_never_arrived_is_credit_again_after_a_day(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    client: Client,
) -> None:
    stripe_sandbox.control.add_fault("server_error", path=REFUNDS, is_saved=True)
    send(engine, vendors, account, client, 600)
    assert (refund_states(engine), credit_of(engine, client)) == (["unknown"], 400)

    for _ in range(4):
        [one] = refunds_of(engine)
        assert one.next_ask_at is not None
        sweep(engine, vendors, now=one.next_ask_at)

    assert (refund_states(engine), credit_of(engine, client)) == (["failed"], 1000)
    assert send(engine, vendors, account, client, 1000).state == "succeeded"
    assert_stripe_agrees(engine, account, stripe_sandbox)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_dies_around_the_call_is_followed_by_one_that_goes_on(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    client: Client,
    when: str,
) -> None:
    job_id = ask(engine, refund_credit_to_card, account, **of(client, 1000))
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, **{when: die}), queues=QUEUES)
    assert (refund_states(engine), credit_of(engine, client)) == (["pending"], 0)
    assert sent_back(stripe_sandbox) == ([1000] if when == "after" else [])

    restart(engine)
    work(engine, now=NOW + MINUTE, gateways=vendors, queues=QUEUES)

    with Session(engine) as session:
        assert session.get_one(Job, job_id).state == "succeeded"
    assert moves(engine, client) == [("deposit", 1000), ("paid_out", -1000)]
    assert sent_back(stripe_sandbox) == [1000]
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_what_the_bank_gives_back_is_credit_again_once(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    client: Client,
) -> None:
    send(engine, vendors, account, client, 600)
    [one] = refunds_of(engine)
    stripe_sandbox.control.settle_refund(str(one.stripe_refund), "failed")

    for kind in ("refund.failed", "refund.updated"):
        hear(engine, vendors, stripe_sandbox, kind)

    [one] = refunds_of(engine)
    assert one.came_back
    assert moves(engine, client) == [
        ("deposit", 1000),
        ("paid_out", -600),
        ("refund_failed", 600),
    ]
    assert booked(engine, "refund_failed") == [(TODAY, {"stripe": 600, "credit": -600})]
    # The card can be sent it once more.
    assert send(engine, vendors, account, client, 1000).state == "succeeded"
    assert_stripe_agrees(engine, account, stripe_sandbox)


def codes(outcomes: list[Any]) -> list[str]:
    """How each ended: its code where it was refused."""
    return sorted(
        one.code if isinstance(one, InvalidInput | RuleViolation) else type(one).__name__.lower()
        for one in outcomes
    )


def of_each(
    engine: Engine, account: Account, vendors: Gateways, stripe: StripeSandbox
) -> list[tuple[Client, Callable[[], Any]]]:
    """Clients of their own, each with the job that sends all its credit to its card."""
    depositors = [a_depositor(engine, account, vendors, stripe) for _ in range(ROUNDS)]
    return [
        (client, partial(perform, engine, refund_credit_to_card, account, **of(client, 1000)))
        for client in depositors
    ]


def test_two_at_once_send_the_credit_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for client, job in of_each(engine, account, vendors, stripe_sandbox):
        outside = partial(perform, engine, refund_credit, account, **of(client, 1000))

        outcomes = together(job, job, outside)

        assert codes(outcomes)[1:] == ["insufficient_credit"] * 2
        assert balances(engine, client) == {}
    sweep(engine, vendors, now=NOW + MINUTE)
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_two_at_once_send_no_more_to_a_card_than_it_paid(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for client, job in of_each(engine, account, vendors, stripe_sandbox):
        deposit(engine, account, client, 1000)

        outcomes = together(job, job)

        assert codes(outcomes) == ["amount_exceeds_paid", "call"]
        assert balances(engine, client) == {"usd": 1000}
    sweep(engine, vendors, now=NOW + MINUTE)
    assert sent_back(stripe_sandbox) == [1000] * ROUNDS
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_credit_goes_to_the_card_or_pays_the_invoice_that_is_finalized(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    sent = 0
    for client, job in of_each(engine, account, vendors, stripe_sandbox):
        draft = a_draft(engine, account, client)

        refunded, finalized = together(
            job, partial(perform, engine, finalize_invoice, account, invoice_id=draft.id)
        )

        assert isinstance(finalized, Done)
        used = 0 if isinstance(refunded, Call) else 1000
        assert used == 0 or codes([refunded]) == ["insufficient_credit"]
        assert [one[1] for one in paid_how(engine, client)] == [used]
        sent += used == 0
    sweep(engine, vendors, now=NOW + MINUTE)
    assert sent_back(stripe_sandbox) == [1000] * sent
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_only_a_client_of_the_account_that_ever_paid_by_card_is_sent_anything(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    without = a_client(engine, account)
    deposit(engine, account, without, 500)
    assert send(engine, vendors, account, without, 500).reason == "amount_exceeds_paid"
    without.id = UUID(int=7)
    assert send(engine, vendors, account, without, 500).reason == "client_not_found"
