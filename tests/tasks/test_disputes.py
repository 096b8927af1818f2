from collections.abc import MutableMapping
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_events import event_from
from models import Account, Job, Payment, WebhookEvent
from models.database import database_now
from tasks.calls import Gateways
from tasks.card_deposits import deposit_by_card
from tasks.charging import charge_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.voiding import void_invoice
from tasks.webhooks import handle_payment_event, store_payment_event
from tasks.writing_off import write_off_invoice
from tests.cards import (
    QUEUES,
    a_client_with,
    an_open_invoice,
    card_of,
    charged,
    credit_of,
    do,
    give_card,
    hurry,
    invoice_of,
    jobs_of,
    payments,
    put_on,
    sweep,
)
from tests.disputes import (
    decided,
    dispute_of,
    disputed,
    disputes_of,
    hear,
    intent_of,
    posted,
)
from tests.money import assert_no_money_is_lost, balances, deposit
from tests.refunds import a_card_payment, a_payment_by_card, credit, refund
from tests.worlds import NOW, a_client, perform, work

DAY = timedelta(days=1)


def keep_losses(engine: Engine, account: Account) -> None:
    """Have lost disputes written off."""
    with Session(engine) as session, session.begin():
        session.get_one(Account, account.id).dispute_lost = "write_off"


def told_types(engine: Engine) -> dict[str, str | None]:
    """The outcome of each kind of event of disputes and charges."""
    with Session(engine) as session:
        rows = session.execute(select(WebhookEvent.type, WebhookEvent.outcome))
        return {kind: outcome for kind, outcome in rows if kind.startswith("charge.")}


def test_an_open_dispute_takes_the_money_and_leaves_the_invoice_paid(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)

    found = disputed(engine, vendors, stripe_sandbox, payment)

    dispute = dispute_of(engine, found)
    assert (dispute.state, dispute.status, dispute.reason) == (
        "open",
        "needs_response",
        "fraudulent",
    )
    assert dispute.evidence_due_at is not None
    assert invoice_of(engine, dispute.invoice_id or payment.id).status == "paid"
    assert posted(engine, account) == [("dispute_opened", {"disputed": 1000, "stripe": -1000})]
    assert_no_money_is_lost(engine, account)


def test_a_won_dispute_gives_the_money_back(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    found = disputed(engine, vendors, stripe_sandbox, payment)

    dispute = decided(engine, vendors, stripe_sandbox, found, "won")

    assert (dispute.state, dispute.reopened, dispute.taken_back) == ("won", 0, 0)
    assert posted(engine, account)[1:] == [("dispute_won", {"disputed": -1000, "stripe": 1000})]
    assert invoice_of(engine, payment.invoice_id or payment.id).status == "paid"
    assert_no_money_is_lost(engine, account)


def test_a_lost_dispute_opens_the_invoice_again_for_staff_to_collect(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    [payment] = payments(engine)
    found = disputed(engine, vendors, stripe_sandbox, payment)

    dispute = decided(engine, vendors, stripe_sandbox, found, "lost")

    assert (dispute.state, dispute.reopened) == ("lost", 1000)
    invoice = invoice_of(engine, invoice_id)
    assert (invoice.status, invoice.amount_due, invoice.amount_refunded) == ("open", 1000, 1000)
    assert (invoice.auto_collect, invoice.next_attempt_at, invoice.paid_at) == (False, None, None)
    assert posted(engine, account)[1:] == [
        ("dispute_lost", {"receivable": 1000, "disputed": -1000})
    ]
    sweep(engine, vendors, now=NOW + DAY)
    assert charged(stripe_sandbox) == [1000]
    assert_no_money_is_lost(engine, account)


def test_a_lost_dispute_is_written_off_where_the_account_wants_that(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    keep_losses(engine, account)
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    found = disputed(engine, vendors, stripe_sandbox, payment)

    dispute = decided(engine, vendors, stripe_sandbox, found, "lost")

    assert (dispute.written_off, dispute.reopened) == (1000, 0)
    invoice = invoice_of(engine, dispute.invoice_id or payment.id)
    assert (invoice.status, invoice.amount_due, invoice.amount_lost) == ("paid", 0, 1000)
    assert posted(engine, account)[1:] == [
        ("dispute_lost", {"dispute_loss": 1000, "disputed": -1000})
    ]
    assert_no_money_is_lost(engine, account)


def test_a_part_that_was_lost_is_due_again(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    found = disputed(engine, vendors, stripe_sandbox, payment, 300)

    decided(engine, vendors, stripe_sandbox, found, "lost")

    invoice = invoice_of(engine, payment.invoice_id or payment.id)
    assert (invoice.status, invoice.amount_due, invoice.amount_refunded) == ("open", 300, 300)
    assert_no_money_is_lost(engine, account)


def test_a_disputed_deposit_takes_credit_back_and_below_zero_where_it_was_spent(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    do(engine, vendors, deposit_by_card, account, client_id=client.id, amount=1000, currency="usd")
    an_open_invoice(engine, account, client, "6.00", collect=False)
    assert credit_of(engine, client) == 400
    [payment] = payments(engine)
    found = disputed(engine, vendors, stripe_sandbox, payment)

    dispute = decided(engine, vendors, stripe_sandbox, found, "lost")

    assert (dispute.invoice_id, dispute.taken_back) == (None, 1000)
    assert balances(engine, client) == {"usd": -600}
    assert posted(engine, account)[1:] == [("dispute_lost", {"credit": 1000, "disputed": -1000})]
    assert_no_money_is_lost(engine, account)


def test_granted_credit_covers_what_is_taken_back_and_is_not_spent_before_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    from tests.money import grant, remaining  # noqa: PLC0415 - only here

    client = a_client_with(engine, account, stripe_sandbox)
    do(engine, vendors, deposit_by_card, account, client_id=client.id, amount=1000, currency="usd")
    grant(engine, account, client, 500)
    [payment] = payments(engine)
    found = disputed(engine, vendors, stripe_sandbox, payment, 600)
    decided(engine, vendors, stripe_sandbox, found, "lost")
    assert (remaining(engine, client), balances(engine, client)) == ([500], {"usd": 900})

    found = disputed(engine, vendors, stripe_sandbox, payment, 600)
    decided(engine, vendors, stripe_sandbox, found, "lost")

    assert (remaining(engine, client), balances(engine, client)) == ([300], {"usd": 300})
    assert_no_money_is_lost(engine, account)


def test_what_was_given_back_as_credit_is_taken_back_as_credit(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    refund(engine, vendors, account, payment, amount=400, to="credit")
    found = disputed(engine, vendors, stripe_sandbox, payment)

    dispute = decided(engine, vendors, stripe_sandbox, found, "lost")

    assert (dispute.reopened, dispute.taken_back) == (600, 400)
    invoice = invoice_of(engine, payment.invoice_id or payment.id)
    assert (invoice.status, invoice.amount_due) == ("open", 600)
    assert_no_money_is_lost(engine, account)


def test_what_went_back_to_the_card_is_not_disputed_again(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    refund(engine, vendors, account, payment, amount=400, credit_note=False)
    found = disputed(engine, vendors, stripe_sandbox, payment)

    dispute = decided(engine, vendors, stripe_sandbox, found, "lost")

    assert (dispute.amount, dispute.reopened, dispute.taken_back) == (600, 600, 0)
    invoice = invoice_of(engine, payment.invoice_id or payment.id)
    assert (invoice.status, invoice.amount_due) == ("open", 1000)
    assert_no_money_is_lost(engine, account)


def test_credit_that_a_note_gave_counts_first_against_what_was_paid(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    invoice_id = payment.invoice_id or payment.id
    credit(engine, vendors, account, invoice_id, amount=300)
    found = disputed(engine, vendors, stripe_sandbox, payment)

    dispute = decided(engine, vendors, stripe_sandbox, found, "lost")

    assert (dispute.reopened, dispute.taken_back) == (700, 300)
    assert invoice_of(engine, invoice_id).amount_due == 700
    assert_no_money_is_lost(engine, account)


def test_of_an_invoice_that_was_voided_since_the_credit_is_taken_back(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    payment = a_payment_by_card(engine, account, vendors, client)
    refund(engine, vendors, account, payment, amount=100, credit_note=False)
    perform(engine, void_invoice, account, invoice_id=payment.invoice_id, settle="credit")
    assert balances(engine, client) == {"usd": 900}
    found = disputed(engine, vendors, stripe_sandbox, payment)

    dispute = decided(engine, vendors, stripe_sandbox, found, "lost")

    assert (dispute.amount, dispute.reopened, dispute.taken_back) == (900, 0, 900)
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("rule", ["reopen", "write_off"])
def test_of_an_invoice_that_was_given_up_the_part_that_was_paid_is_given_up_too(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    rule: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    payment = a_payment_by_card(engine, account, vendors, client)
    refund(engine, vendors, account, payment, amount=400, credit_note=False)
    invoice_id = payment.invoice_id or payment.id
    perform(engine, write_off_invoice, account, invoice_id=invoice_id)
    found = disputed(engine, vendors, stripe_sandbox, payment)
    if rule == "write_off":
        keep_losses(engine, account)

    decided(engine, vendors, stripe_sandbox, found, "lost")

    invoice = invoice_of(engine, invoice_id)
    given_up, lost = (1000, 0) if rule == "reopen" else (400, 600)
    assert (invoice.status, invoice.amount_written_off) == ("uncollectible", given_up)
    assert invoice.amount_lost == lost
    assert_no_money_is_lost(engine, account)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice_id)
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("rule", ["reopen", "write_off"])
def test_voiding_after_a_lost_dispute_gives_nothing_of_it_back(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    rule: str,
) -> None:
    if rule == "write_off":
        keep_losses(engine, account)
    client = a_client_with(engine, account, stripe_sandbox)
    payment = a_payment_by_card(engine, account, vendors, client)
    refund(engine, vendors, account, payment, amount=100, credit_note=False)
    found = disputed(engine, vendors, stripe_sandbox, payment)
    decided(engine, vendors, stripe_sandbox, found, "lost")

    perform(engine, void_invoice, account, invoice_id=payment.invoice_id)

    assert invoice_of(engine, payment.invoice_id or payment.id).status == "void"
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("to", ["card", "credit", "outside"])
def test_nothing_is_given_back_of_a_disputed_payment(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox, to: str
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    found = disputed(engine, vendors, stripe_sandbox, payment)

    job = refund(engine, vendors, account, payment, to=to, amount=100)
    assert (job.state, job.reason) == ("skipped", "payment_disputed")

    decided(engine, vendors, stripe_sandbox, found, "won")
    job = refund(engine, vendors, account, payment, to=to, amount=100)
    assert job.state == "succeeded"
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("to", ["card", "outside"])
def test_no_note_gives_back_what_is_disputed(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox, to: str
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    disputed(engine, vendors, stripe_sandbox, payment)

    job = credit(engine, vendors, account, payment.invoice_id or payment.id, amount=100, to=to)

    assert (job.state, job.reason) == ("skipped", "payment_disputed")
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("to", ["credit", "outside", "card"])
def test_no_note_gives_back_what_was_lost_and_written_off(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox, to: str
) -> None:
    keep_losses(engine, account)
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    invoice_id = payment.invoice_id or payment.id
    credit(engine, vendors, account, invoice_id, amount=600, to="credit")
    one = disputed(engine, vendors, stripe_sandbox, payment)
    decided(engine, vendors, stripe_sandbox, one, "lost")

    job = credit(engine, vendors, account, invoice_id, amount=400, to=to)

    assert (job.state, job.reason) == ("skipped", "amount_exceeds_paid")
    assert_no_money_is_lost(engine, account)


def test_what_was_lost_cannot_be_refunded(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    keep_losses(engine, account)
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    found = disputed(engine, vendors, stripe_sandbox, payment, 700)
    decided(engine, vendors, stripe_sandbox, found, "lost")

    job = refund(engine, vendors, account, payment, to="outside", amount=301)
    assert (job.state, job.reason) == ("skipped", "amount_exceeds_paid")
    job = refund(engine, vendors, account, payment, to="outside")
    assert (job.result or {})["amount"] == 300
    assert_no_money_is_lost(engine, account)


def test_an_inquiry_flags_and_moves_nothing(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, "pm_card_createDisputeInquiry")
    payment = a_payment_by_card(engine, account, vendors, client)
    hear(engine, vendors, stripe_sandbox)
    [dispute] = disputes_of(engine)

    assert (dispute.state, dispute.status) == ("inquiry", "warning_needs_response")
    assert posted(engine, account) == []
    card = card_of(engine, client)
    assert card is not None
    assert card.stopped_for is None
    assert refund(engine, vendors, account, payment, amount=100).state == "succeeded"

    closed = decided(engine, vendors, stripe_sandbox, dispute.stripe_dispute, "warning_closed")
    assert (closed.state, closed.opened_at) == ("closed", None)
    assert_no_money_is_lost(engine, account)


def test_an_inquiry_may_become_a_dispute(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    found = disputed(engine, vendors, stripe_sandbox, payment, inquiry=True)
    stripe_sandbox.control.escalate_dispute(found)
    hear(engine, vendors, stripe_sandbox)

    dispute = dispute_of(engine, found)
    assert (dispute.state, dispute.status) == ("open", "needs_response")
    assert [event for event, _ in posted(engine, account)] == ["dispute_opened"]
    assert_no_money_is_lost(engine, account)


def test_a_test_card_of_stripes_disputes_what_it_pays(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox, card="pm_card_createDispute")
    hear(engine, vendors, stripe_sandbox)

    [dispute] = disputes_of(engine)
    assert (dispute.payment_id, dispute.state) == (payment.id, "open")


@pytest.mark.parametrize("outcome", ["won", "lost"])
@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_events_may_come_in_any_order_and_twice(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    outcome: Any,  # noqa: ANN401 - one of Stripe's words
    order: tuple[int, ...],
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    found = stripe_sandbox.control.dispute(intent_of(engine, payment))
    stripe_sandbox.control.close_dispute(found["id"], outcome)
    told = [
        event
        for event in stripe_sandbox.control.events()
        if event["type"].startswith("charge.dispute.")
    ]
    for place in (*order, *order):
        again = {**told[place], "id": f"{told[place]['id']}{place}"}
        for payload in (told[place], again):
            with Session(engine) as session, session.begin():
                store_payment_event(session, event_from(payload), requested_by="test")
            work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    dispute = dispute_of(engine, found["id"])
    assert (dispute.state, dispute.status) == (outcome, outcome)
    assert [event for event, _ in posted(engine, account)] == [
        "dispute_opened",
        f"dispute_{outcome}",
    ]
    assert_no_money_is_lost(engine, account)


def test_a_disputed_card_is_not_charged_by_itself_until_the_dispute_is_won(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    payment = a_payment_by_card(engine, account, vendors, client)
    found = disputed(engine, vendors, stripe_sandbox, payment)
    waiting = an_open_invoice(engine, account, client, "7.00")
    sweep(engine, vendors, now=NOW + DAY)
    assert charged(stripe_sandbox) == [1000]
    card = card_of(engine, client)
    assert card is not None
    assert card.stopped_for == "disputed"
    assert_no_money_is_lost(engine, account)

    decided(engine, vendors, stripe_sandbox, found, "won", now=NOW + DAY)

    assert charged(stripe_sandbox) == [1000, 700]
    assert invoice_of(engine, waiting).status == "paid"
    assert_no_money_is_lost(engine, account)


def test_a_new_card_is_charged_and_the_disputed_one_put_back_is_not(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    disputed_card = give_card(engine, stripe_sandbox, client)
    payment = a_payment_by_card(engine, account, vendors, client)
    disputed(engine, vendors, stripe_sandbox, payment)
    put_on(engine, client, disputed_card)
    an_open_invoice(engine, account, client, "7.00")
    sweep(engine, vendors)
    assert charged(stripe_sandbox) == [1000]

    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors)
    assert charged(stripe_sandbox) == [1000, 700]

    put_on(engine, client, disputed_card)
    an_open_invoice(engine, account, client, "8.00")
    sweep(engine, vendors)
    assert charged(stripe_sandbox) == [1000, 700]
    assert_no_money_is_lost(engine, account)


def test_staffs_own_charge_of_a_disputed_card_starts_nothing_else_on_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    payment = a_payment_by_card(engine, account, vendors, client)
    found = disputed(engine, vendors, stripe_sandbox, payment)
    an_open_invoice(engine, account, client, "7.00")
    by_hand = an_open_invoice(engine, account, client, "8.00", collect=False)

    do(engine, vendors, charge_invoice, account, invoice_id=by_hand)
    sweep(engine, vendors)
    assert charged(stripe_sandbox) == [1000, 800]

    decided(engine, vendors, stripe_sandbox, found, "lost")
    sweep(engine, vendors)
    assert charged(stripe_sandbox) == [1000, 800]
    card = card_of(engine, client)
    assert card is not None
    assert card.stopped_for == "disputed"
    assert_no_money_is_lost(engine, account)


def test_of_two_disputes_both_must_be_won(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    found = [
        disputed(
            engine,
            vendors,
            stripe_sandbox,
            a_payment_by_card(engine, account, vendors, client),
        )
        for _ in range(2)
    ]
    for one, stopped_for in zip(found, ("disputed", None), strict=True):
        decided(engine, vendors, stripe_sandbox, one, "won")
        card = card_of(engine, client)
        assert card is not None
        assert card.stopped_for == stopped_for


def test_a_dispute_of_somebody_elses_charge_is_left_alone(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    stripe_sandbox.control.dispute(intent_of(engine, payment))
    [created] = stripe_sandbox.control.events("charge.dispute.created")
    created["data"]["object"]["payment_intent"] = "pi_theirs"
    for payload in (created, _without_intent(created)):
        with Session(engine) as session, session.begin():
            store_payment_event(session, event_from(payload), requested_by="test")
        work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    assert disputes_of(engine) == []
    assert told_types(engine) == {"charge.dispute.created": "not_ours"}


def _without_intent(event: dict[str, Any]) -> dict[str, Any]:
    about = {**event["data"]["object"], "payment_intent": None}
    return {**event, "id": "evt_other", "data": {"object": about}}


@pytest.mark.parametrize("is_told", [True, False])
def test_a_dispute_waits_for_the_payment_that_it_is_about_but_not_for_ever(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    logs: list[MutableMapping[str, Any]],
    *,
    is_told: bool,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, "pm_card_createDispute")
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    with engine.begin() as connection:
        now = database_now(Session(connection))
    step = perform(engine, charge_invoice, account, invoice_id=invoice_id)
    step.ask(vendors)  # type: ignore[union-attr]  # It is a call.
    [created] = stripe_sandbox.control.events("charge.dispute.created")
    with Session(engine) as session, session.begin():
        store_payment_event(session, event_from(created), requested_by="test")

    work(engine, now=now, gateways=vendors, queues=QUEUES)

    [job] = jobs_of(engine, handle_payment_event)
    assert (job.state, job.attempt) == ("scheduled", 0)
    assert disputes_of(engine) == []
    if is_told:
        hear(engine, vendors, stripe_sandbox, now=now)
        hurry(engine, vendors, now=now)
        [dispute] = disputes_of(engine)
        assert dispute.state == "open"
        assert_no_money_is_lost(engine, account)
        return
    hurry(engine, vendors, now=now + 2 * DAY)
    assert told_types(engine) == {"charge.dispute.created": None}
    hurry(engine, vendors, now=now + 4 * DAY)
    assert told_types(engine) == {"charge.dispute.created": "unknown_payment"}
    assert "dispute of an unknown payment" in {one["event"] for one in logs}


def test_waiting_grows_longer_each_time(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, "pm_card_createDispute")
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    step = perform(engine, charge_invoice, account, invoice_id=invoice_id)
    step.ask(vendors)  # type: ignore[union-attr]  # It is a call.
    [created] = stripe_sandbox.control.events("charge.dispute.created")
    with Session(engine) as session, session.begin():
        store_payment_event(session, event_from(created), requested_by="test")
        now = database_now(session)
    for waited in (0, 1, 2, 4, 8):
        hurry(engine, vendors, now=now + timedelta(minutes=waited))
        with Session(engine) as session:
            [job] = session.scalars(select(Job).where(Job.kind == "handle_payment_event"))
            ahead = job.run_at - database_now(session)
        assert ahead < timedelta(minutes=max(waited, 1) + 0.2)
        assert ahead > timedelta(minutes=max(waited, 1) - 0.7)


def test_a_refund_made_by_hand_at_stripe_is_flagged_and_ours_are_not(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    logs: list[MutableMapping[str, Any]],
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    refund(engine, vendors, account, payment, amount=100)
    hear(engine, vendors, stripe_sandbox)
    assert told_types(engine)["charge.refunded"] == "known"

    from stripe import RequestsClient, StripeClient  # noqa: PLC0415 - the hand

    hand = StripeClient(
        "sk_test_hand",
        base_addresses={"api": stripe_sandbox.url},
        http_client=RequestsClient(timeout=10),
    )
    hand.v1.refunds.create({"payment_intent": intent_of(engine, payment), "amount": 50})
    hear(engine, vendors, stripe_sandbox)

    with Session(engine) as session:
        outcomes = session.scalars(
            select(WebhookEvent.outcome)
            .where(WebhookEvent.type == "charge.refunded")
            .order_by(WebhookEvent.id)
        ).all()
    assert outcomes == ["known", "made_elsewhere"]
    assert "refund made elsewhere" in {one["event"] for one in logs}
    assert invoice_of(engine, payment.invoice_id or payment.id).amount_refunded == 100
    assert_no_money_is_lost(engine, account)


def test_a_dispute_that_ends_twice_in_different_ways_is_flagged(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    logs: list[MutableMapping[str, Any]],
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    found = disputed(engine, vendors, stripe_sandbox, payment)
    decided(engine, vendors, stripe_sandbox, found, "won")
    [closed] = stripe_sandbox.control.events("charge.dispute.closed")
    closed["id"], closed["data"]["object"]["status"] = "evt_other", "lost"
    with Session(engine) as session, session.begin():
        store_payment_event(session, event_from(closed), requested_by="test")
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    dispute = dispute_of(engine, found)
    assert (dispute.state, dispute.status) == ("won", "won")
    assert "dispute ended twice" in {one["event"] for one in logs}
    assert_no_money_is_lost(engine, account)


def test_the_database_keeps_disputes_as_they_went(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    disputed(engine, vendors, stripe_sandbox, payment)
    for statement in (
        "DELETE FROM disputes",
        "UPDATE disputes SET amount = 1",
        "UPDATE disputes SET state = 'inquiry', opened_at = NULL",
    ):
        with pytest.raises(Exception, match="dispute"), engine.begin() as connection:
            connection.execute(text(statement))


def test_money_that_was_too_much_comes_out_of_credit(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    """What settled the invoice is due again; what was over had become credit."""
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    step = perform(engine, charge_invoice, account, invoice_id=invoice_id)
    step.ask(vendors)  # type: ignore[union-attr]  # It is a call.
    with Session(engine) as session, session.begin():
        # As if a deposit had been let in.
        session.execute(text("UPDATE payment_attempts SET state = 'declined', next_ask_at = NULL"))
    deposit(engine, account, client, 300)
    hear(engine, vendors, stripe_sandbox)
    payment = payments(engine)[-1]
    assert (payment.amount, payment.applied) == (1000, 700)
    found = disputed(engine, vendors, stripe_sandbox, payment)

    dispute = decided(engine, vendors, stripe_sandbox, found, "lost")

    assert (dispute.reopened, dispute.taken_back) == (700, 300)
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


def test_a_payment_is_of_one_dispute_at_a_time_or_of_several(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    for amount in (600, 400):
        found = disputed(engine, vendors, stripe_sandbox, payment, amount)
        decided(engine, vendors, stripe_sandbox, found, "lost")

    with Session(engine) as session:
        assert session.get_one(Payment, payment.id).applied == 1000
    invoice = invoice_of(engine, payment.invoice_id or payment.id)
    assert (invoice.amount_due, invoice.amount_refunded) == (1000, 1000)
    assert_no_money_is_lost(engine, account)
