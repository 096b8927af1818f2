from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, Job
from tasks.calls import Gateways
from tasks.card_deposits import deposit_by_card
from tasks.collecting import collect_client
from tests.cards import (
    AUTHENTICATED,
    BANK,
    HARD,
    QUEUES,
    SOFT,
    Killed,
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempt_states,
    attempts_of,
    card_of,
    charged,
    credit_of,
    die,
    do,
    give_card,
    hurry,
    invoice_of,
    keys_sent,
    mails,
    pay_waiting_intents,
    payments,
    refuse,
    restart,
    sweep,
    take_card,
    tell_all,
    watched,
)
from tests.money import booked, deposit, moves
from tests.worlds import NOW, a_client, audited, change, work

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
INTENTS = "/v1/payment_intents"


def wanted(client: Client, amount: int = 5_000, **fields: Any) -> dict[str, Any]:
    return {"client_id": client.id, "amount": amount, "currency": "usd", **fields}


def charge(
    engine: Engine, vendors: Gateways, account: Account, client: Client, **fields: Any
) -> Job:
    return do(engine, vendors, deposit_by_card, account, **wanted(client, **fields))


@pytest.fixture
def ada(engine: Engine, account: Account, stripe_sandbox: StripeSandbox) -> Client:
    """A client on a card that pays."""
    return a_client_with(engine, account, stripe_sandbox)


def test_a_deposit_is_charged_booked_told_of_and_used_at_once(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
) -> None:
    invoice_id = an_open_invoice(engine, account, ada, collect=False)

    job = charge(engine, vendors, account, ada, reference="order 7", note="For June")

    [attempt], [payment] = attempts_of(engine), payments(engine)
    assert job.result == {
        "client": str(ada.id),
        "purpose": "deposit",
        "attempt": str(attempt.id),
        "state": "succeeded",
        "decline_code": None,
        "payment": str(payment.id),
        "balance": 4_000,
    }
    assert (attempt.invoice_id, attempt.ordinal, attempt.origin) == (None, None, "staff")
    assert (payment.source, payment.amount, payment.applied) == ("card", 5_000, 0)
    assert (payment.reference, payment.note, payment.flagged) == ("order 7", "For June", None)
    assert booked(engine, "deposit") == [(NOW.date(), {"stripe": 5_000, "credit": -5_000})]
    assert moves(engine, ada) == [("applied", -1_000), ("deposit", 5_000)]
    assert invoice_of(engine, invoice_id).status == "paid"
    assert mails(engine) == ["receipt"]
    [intent] = stripe_sandbox.control.payment_intents()
    assert intent["description"] == "Credit deposit"
    assert intent["metadata"] == {
        "account": str(account.id),
        "client": str(ada.id),
        "purpose": "deposit",
        "attempt": str(attempt.id),
    }
    assert_books_agree(engine, account, stripe_sandbox, charges=[5_000])


def test_a_deposit_that_is_to_be_kept_waits_for_the_next_invoice(
    engine: Engine, account: Account, vendors: Gateways, ada: Client
) -> None:
    an_open_invoice(engine, account, ada, collect=False)

    charge(engine, vendors, account, ada, apply=False)

    assert credit_of(engine, ada) == 5_000


@pytest.mark.parametrize("card", [SOFT, HARD])
def test_a_decline_is_the_jobs_result_and_nothing_else(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox, card: str
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, card)
    job = charge(engine, vendors, account, client)

    assert job.state == "succeeded"
    assert job.result is not None
    assert (job.result["state"], job.result["purpose"]) == ("declined", "deposit")
    assert job.result["decline_code"] in {"insufficient_funds", "lost_card"}
    assert (payments(engine), mails(engine), credit_of(engine, client)) == ([], [], 0)
    method = card_of(engine, client)
    assert method is not None
    # A hard decline from anyone stops what is tried by itself.
    assert method.stopped_for == ("lost_card" if card == HARD else None)
    assert audited(engine, account) == []


def test_a_success_by_hand_makes_a_stopped_card_good_again(
    engine: Engine, account: Account, vendors: Gateways, ada: Client
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE billing_methods SET stopped_for = 'lost_card'"))

    charge(engine, vendors, account, ada)

    method = card_of(engine, ada)
    assert method is not None
    assert method.stopped_for is None


def test_one_that_waits_for_the_client_counts_once_it_is_paid(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    job = charge(engine, vendors, account, client)
    assert job.result is not None
    assert job.result["state"] == "needs_action"
    assert mails(engine) == []

    pay_waiting_intents(stripe_sandbox)
    tell_all(engine, stripe_sandbox)
    work(engine, now=NOW + MINUTE, gateways=vendors, queues=QUEUES)

    assert credit_of(engine, client) == 5_000
    assert mails(engine) == ["receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[5_000])


def test_one_that_waits_for_the_client_is_withdrawn_by_the_next(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    charge(engine, vendors, account, client)
    give_card(engine, stripe_sandbox, client)

    charge(engine, vendors, account, client, amount=7_000)

    assert attempt_states(engine) == ["canceled", "succeeded"]
    assert credit_of(engine, client) == 7_000
    assert_books_agree(engine, account, stripe_sandbox, charges=[7_000])


def test_one_that_was_paid_while_the_next_was_asked_for_is_not_followed_by_that(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    charge(engine, vendors, account, client)
    pay_waiting_intents(stripe_sandbox)

    job = charge(engine, vendors, account, client)

    assert (job.state, job.reason) == ("skipped", "payment_in_flight")
    assert_books_agree(engine, account, stripe_sandbox, charges=[5_000])
    assert credit_of(engine, client) == 5_000


def test_one_that_waits_stays_where_the_card_is_gone(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    charge(engine, vendors, account, client)
    take_card(engine, client)

    job = charge(engine, vendors, account, client)

    assert (job.state, job.reason) == ("skipped", "no_billing_method")
    assert attempt_states(engine) == ["needs_action"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"amount": 49}, "invalid"),
        ({"amount": 5_005, "currency": "kwd"}, "invalid"),
        ({"currency": "irr"}, "invalid"),
        ({"client_id": "019ae8a3-5c00-7000-8000-000000000001"}, "client_not_found"),
    ],
)
def test_what_cannot_be_charged_is_skipped(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    ada: Client,
    fields: dict[str, Any],
    reason: str,
) -> None:
    job = do(engine, vendors, deposit_by_card, account, **{**wanted(ada), **fields})

    assert (job.state, job.reason) == ("skipped", reason)


def test_without_a_card_there_is_no_deposit(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    job = charge(engine, vendors, account, a_client(engine, account))

    assert (job.state, job.reason) == ("skipped", "no_billing_method")


def test_a_second_one_is_refused_while_the_first_is_not_settled(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    charge(engine, vendors, account, client)

    job = charge(engine, vendors, account, client)

    assert (job.state, job.reason) == ("skipped", "payment_in_flight")
    assert attempt_states(engine) == ["processing"]
    # What is tried by itself waits as well: what comes may pay for it.
    an_open_invoice(engine, account, client)
    waits = do(engine, vendors, collect_client, account, client_id=client.id)
    assert waits.result is not None
    assert waits.result["waits_for"] == str(attempts_of(engine)[0].id)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_dies_around_its_charge_charges_once(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
    when: str,
) -> None:
    ask(engine, deposit_by_card, account, **wanted(ada))
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, **{when: die}), queues=QUEUES)
    assert attempt_states(engine) == ["pending"]
    assert payments(engine) == []

    restart(engine)
    work(engine, now=NOW + MINUTE, gateways=vendors, queues=QUEUES)

    assert len(set(keys_sent(stripe_sandbox))) == 1
    assert credit_of(engine, ada) == 5_000
    assert_books_agree(engine, account, stripe_sandbox, charges=[5_000])


def test_an_answer_that_was_lost_is_asked_for_and_charged_once(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
) -> None:
    stripe_sandbox.control.add_fault("lost_answer", times=None, path=INTENTS)
    job = charge(engine, vendors, account, ada, note="For June")
    assert job.result is not None
    assert job.result["state"] == "unknown"
    stripe_sandbox.control.clear_faults()

    sweep(engine, vendors, now=NOW + MINUTE)

    [payment] = payments(engine)
    assert payment.note == "For June"
    assert credit_of(engine, ada) == 5_000
    assert_books_agree(engine, account, stripe_sandbox, charges=[5_000])


def test_a_webhook_may_come_before_the_answer_and_again_after_it(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
) -> None:
    ask(engine, deposit_by_card, account, **wanted(ada))
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, after=die), queues=QUEUES)
    tell_all(engine, stripe_sandbox)
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)
    assert credit_of(engine, ada) == 5_000

    restart(engine)
    work(engine, now=NOW + MINUTE, gateways=vendors, queues=QUEUES)
    tell_all(engine, stripe_sandbox)
    hurry(engine, vendors, now=NOW + MINUTE)

    assert mails(engine) == ["receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[5_000])


def test_a_bank_debit_counts_on_the_day_it_is_settled(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    stripe_sandbox.control.set(settle_after=None)
    client = a_client_with(engine, account, stripe_sandbox, "pm_usBankAccount_success")
    charge(engine, vendors, account, client)
    assert attempt_states(engine) == ["processing"]

    for intent in stripe_sandbox.control.payment_intents():
        stripe_sandbox.control.settle(intent["id"])
    tell_all(engine, stripe_sandbox)
    work(engine, now=NOW + 4 * DAY, gateways=vendors, queues=QUEUES)

    [payment] = payments(engine)
    assert payment.paid_on == (NOW + 4 * DAY).date()
    assert booked(engine, "deposit")[0][0] == payment.paid_on
    assert charged(stripe_sandbox) == [5_000]


def test_a_request_that_stripe_refuses_is_declined_and_stops_no_card_that_is_not_to_blame(
    engine: Engine, account: Account, vendors: Gateways, ada: Client
) -> None:
    for code, stopped in (("amount_too_large", None), ("resource_missing", "resource_missing")):
        refusing = watched(vendors, before=refuse(code))
        job = charge(engine, refusing, account, ada)

        assert job.result is not None
        assert (job.result["state"], job.result["decline_code"]) == ("declined", code)
        method = card_of(engine, ada)
        assert method is not None
        assert method.stopped_for == stopped


def test_a_paused_client_is_charged_where_staff_ask_for_it(
    engine: Engine, account: Account, vendors: Gateways, ada: Client
) -> None:
    change(engine, ada, auto_top_up={"threshold": 100, "target": 200, "currency": "usd"})
    with engine.begin() as connection:
        connection.execute(text("UPDATE clients SET collection_paused = true"))

    charge(engine, vendors, account, ada)

    assert credit_of(engine, ada) == 5_000


def test_money_from_outside_and_by_card_is_one_balance(
    engine: Engine, account: Account, vendors: Gateways, ada: Client
) -> None:
    deposit(engine, account, ada, 300)
    charge(engine, vendors, account, ada)

    assert credit_of(engine, ada) == 5_300
