from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.errors import InvalidInput
from gateways.merchants import DEPLOYMENT
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, BillingMethod, Client, Job
from tasks.auto_top_ups import checked_auto_top_up
from tasks.calls import Gateways
from tasks.card_deposits import deposit_by_card
from tasks.crediting import adjust_credit
from tasks.kinds import Run
from tasks.top_ups import start_asked_for, top_up_client, wake_top_ups
from tests.cards import (
    AUTHENTICATED,
    BANK,
    HARD,
    QUEUES,
    SOFT,
    Killed,
    a_client_with,
    an_open_invoice,
    assert_books_agree,
    attempt_states,
    attempts_of,
    card_of,
    charged,
    credit_of,
    die,
    do,
    give_card,
    give_money,
    invoice_of,
    jobs_of,
    keys_sent,
    mails,
    pay_waiting_intents,
    payments,
    refuse,
    restart,
    set_top_up,
    sweep,
    sweep_top_ups,
    take_card,
    tell_all,
    top_up_of,
    watched,
)
from tests.mailbox import inbox, send
from tests.money import adjust, deposit
from tests.worlds import NOW, a_client, audited, change, counted, work

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
INTENTS = "/v1/payment_intents"


def worked(engine: Engine, vendors: Gateways, **when: Any) -> None:
    work(engine, now=NOW, gateways=watched(vendors, **when) if when else vendors, queues=QUEUES)


def how_it_stands(engine: Engine, client: Client) -> tuple[int, bool]:
    """Declines since the last success, and whether top-ups are off."""
    setting = top_up_of(engine, client)
    return setting.declines, setting.is_off


def held(engine: Engine) -> list[str | None]:
    """Why each job charged nothing; ``None`` where it did."""
    return [(job.result or {}).get("held") for job in jobs_of(engine, top_up_client)]


@pytest.fixture
def ada(engine: Engine, account: Account, stripe_sandbox: StripeSandbox) -> Client:
    """A client with 200.00 of credit on a card that pays, to be topped up to that below 50.00."""
    client = a_client_with(engine, account, stripe_sandbox)
    deposit(engine, account, client, 20_000)
    set_top_up(engine, client)
    return client


def test_credit_that_falls_below_the_threshold_is_filled_up_to_the_target(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
) -> None:
    adjust(engine, account, ada, -15_000)
    worked(engine, vendors)
    assert (charged(stripe_sandbox), credit_of(engine, ada)) == ([], 5_000)

    adjust(engine, account, ada, -1)
    worked(engine, vendors)

    assert credit_of(engine, ada) == 20_000
    [attempt] = attempts_of(engine)
    assert (attempt.purpose, attempt.origin, attempt.amount) == ("top_up", "automatic", 15_001)
    assert mails(engine) == ["receipt", "receipt"]
    [intent] = stripe_sandbox.control.payment_intents()
    assert intent["metadata"]["purpose"] == "top_up"
    assert intent["description"] == "Automatic credit top-up"
    assert_books_agree(engine, account, stripe_sandbox, charges=[15_001])


def test_an_invoice_that_uses_the_credit_asks_for_the_top_up(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
) -> None:
    invoice_id = an_open_invoice(engine, account, ada, "160.00")
    assert invoice_of(engine, invoice_id).status == "paid"
    worked(engine, vendors)

    assert credit_of(engine, ada) == 20_000
    assert_books_agree(engine, account, stripe_sandbox, charges=[16_000])


def test_its_credit_is_used_at_once_and_the_next_one_waits_where_that_was_all_of_it(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
) -> None:
    invoice_id = an_open_invoice(engine, account, ada, "600.00", collect=False)

    worked(engine, vendors)
    assert invoice_of(engine, invoice_id).amount_due == 20_000
    assert (charged(stripe_sandbox), credit_of(engine, ada)) == ([20_000], 0)
    sweep_top_ups(engine, vendors, now=NOW + HOUR - MINUTE)
    assert len(charged(stripe_sandbox)) == 1
    for hours in (1, 2):
        sweep_top_ups(engine, vendors, now=NOW + hours * HOUR)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert credit_of(engine, ada) == 20_000
    assert how_it_stands(engine, ada) == (0, False)
    assert_books_agree(engine, account, stripe_sandbox, charges=[20_000] * 3)


def test_a_new_setting_and_a_new_card_are_looked_at_at_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    set_top_up(engine, client)
    worked(engine, vendors)
    assert held(engine) == ["no_billing_method"]

    give_card(engine, stripe_sandbox, client)
    worked(engine, vendors)
    assert charged(stripe_sandbox) == [20_000]
    set_top_up(engine, client, 20_001, 30_000)
    worked(engine, vendors)

    assert_books_agree(engine, account, stripe_sandbox, charges=[20_000, 10_000])


def test_a_setting_that_is_gone_tops_nothing_up(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox, ada: Client
) -> None:
    adjust(engine, account, ada, -19_000)
    change(engine, ada, auto_top_up=None)
    worked(engine, vendors)
    adjust(engine, account, ada, -900)
    sweep_top_ups(engine, vendors)

    assert held(engine) == ["no_auto_top_up"]
    assert charged(stripe_sandbox) == []


def test_the_sweep_finds_what_nobody_was_told_of(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox, ada: Client
) -> None:
    adjust(engine, account, ada, -19_000)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET state = 'dead', reason = 'x', finished_at = now()")
        )

    sweep_top_ups(engine, vendors)
    sweep_top_ups(engine, vendors)

    assert_books_agree(engine, account, stripe_sandbox, charges=[19_000])


def test_a_decline_is_told_once_and_pauses_for_an_hour(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT, email="ada@example.com")
    set_top_up(engine, client)
    worked(engine, vendors)

    assert how_it_stands(engine, client) == (1, False)
    assert top_up_of(engine, client).declined_at == NOW
    assert mails(engine) == ["payment_failed"]
    for later in (MINUTE, HOUR - MINUTE):
        sweep_top_ups(engine, vendors, now=NOW + later)
    assert attempt_states(engine) == ["declined"]
    for hour in range(1, 10):
        sweep_top_ups(engine, vendors, now=NOW + hour * HOUR)

    # The fourth in a row was the last.
    assert attempt_states(engine) == ["declined"] * 4
    assert how_it_stands(engine, client) == (4, True)
    assert mails(engine) == ["payment_failed"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_spending_during_the_pause_charges_nothing(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    deposit(engine, account, client, 6_000)
    set_top_up(engine, client)
    for _ in range(3):
        adjust(engine, account, client, -2_000)
        worked(engine, vendors)

    assert held(engine) == [None, "paused", "paused"]
    assert attempt_states(engine) == ["declined"]


def test_a_success_begins_anew(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    set_top_up(engine, client)
    worked(engine, vendors)
    give_money(stripe_sandbox)

    sweep_top_ups(engine, vendors, now=NOW + HOUR)

    setting = top_up_of(engine, client)
    assert (setting.declines, setting.declined_at, setting.is_off) == (0, None, False)
    assert_books_agree(engine, account, stripe_sandbox, charges=[20_000])


def test_a_hard_decline_switches_it_off_and_stops_the_card(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    set_top_up(engine, client)
    worked(engine, vendors)
    assert how_it_stands(engine, client) == (1, True)
    method = card_of(engine, client)
    assert method is not None
    assert method.stopped_for == "lost_card"

    give_card(engine, stripe_sandbox, client)
    worked(engine, vendors)

    assert how_it_stands(engine, client) == (0, False)
    assert mails(engine) == ["payment_failed", "receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[20_000])


def test_the_same_setting_again_switches_it_on_again_and_else_changes_nothing(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    set_top_up(engine, client)
    worked(engine, vendors)
    set_top_up(engine, client)
    worked(engine, vendors)
    assert how_it_stands(engine, client) == (1, False)
    for hour in range(1, 4):
        sweep_top_ups(engine, vendors, now=NOW + hour * HOUR)
    assert how_it_stands(engine, client) == (4, True)

    give_money(stripe_sandbox)
    set_top_up(engine, client)
    worked(engine, vendors)

    assert how_it_stands(engine, client) == (0, False)
    assert charged(stripe_sandbox) == [20_000]


def test_one_that_waits_for_the_client_is_a_decline_and_withdrawn_after_a_day(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    set_top_up(engine, client)
    worked(engine, vendors)
    assert attempt_states(engine) == ["needs_action"]
    assert how_it_stands(engine, client) == (1, False)
    assert mails(engine) == ["payment_failed"]

    sweep_top_ups(engine, vendors, now=NOW + DAY - MINUTE)
    assert attempt_states(engine) == ["needs_action"]
    for minutes in (0, 5):
        sweep_top_ups(engine, vendors, now=NOW + DAY + minutes * MINUTE)

    assert attempt_states(engine) == ["canceled", "needs_action"]
    assert how_it_stands(engine, client) == (2, False)


def test_one_that_waits_gives_way_to_another_card(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    set_top_up(engine, client)
    worked(engine, vendors)
    give_card(engine, stripe_sandbox, client)

    worked(engine, vendors)

    assert attempt_states(engine) == ["canceled", "succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[20_000])


def test_one_that_the_client_pays_after_all_counts_and_begins_anew(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    set_top_up(engine, client)
    worked(engine, vendors)

    pay_waiting_intents(stripe_sandbox)
    tell_all(engine, stripe_sandbox)
    worked(engine, vendors)

    assert how_it_stands(engine, client) == (0, False)
    assert credit_of(engine, client) == 20_000
    assert_books_agree(engine, account, stripe_sandbox, charges=[20_000])


def test_what_becomes_of_an_old_card_does_not_count_for_the_new_one(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    set_top_up(engine, client)
    new_cards = iter(["pm_card_visa"])

    def take_another() -> None:
        for card in new_cards:
            give_card(engine, stripe_sandbox, client, card)

    worked(engine, vendors, after=take_another)

    assert attempt_states(engine) == ["declined", "succeeded"]
    # Nobody needs to do anything about the old one.
    assert mails(engine) == ["receipt"]
    assert charged(stripe_sandbox) == [20_000]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("clients", "collection_paused"),
        ("accounts", "collection_paused"),
        ("billing_methods", "stopped_for"),
    ],
)
def test_a_pause_of_collection_or_a_stopped_card_holds_it(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    ada: Client,
    table: str,
    column: str,
) -> None:
    stopped = column == "stopped_for"

    def switch(value: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {table} SET {column} = {value}"))  # noqa: S608

    switch("'lost_card'" if stopped else "true")
    adjust(engine, account, ada, -19_000)
    worked(engine, vendors)
    sweep_top_ups(engine, vendors)
    assert charged(stripe_sandbox) == []
    assert held(engine) == ["card_stopped" if stopped else "collection_paused"]

    switch("NULL" if stopped else "false")
    sweep_top_ups(engine, vendors)
    assert charged(stripe_sandbox) == [19_000]


def test_a_deposit_under_way_holds_it_until_it_is_settled(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    some: dict[str, Any] = {"client_id": client.id, "amount": 1_000, "currency": "usd"}
    do(engine, vendors, deposit_by_card, account, **some)
    set_top_up(engine, client)
    worked(engine, vendors)
    sweep_top_ups(engine, vendors)
    assert held(engine) == ["open"]
    give_card(engine, stripe_sandbox, client)
    worked(engine, vendors)
    assert attempt_states(engine) == ["processing"]

    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"])
    tell_all(engine, stripe_sandbox)
    worked(engine, vendors)

    assert_books_agree(engine, account, stripe_sandbox, charges=[1_000, 19_000])


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
    adjust(engine, account, ada, -19_000)
    with pytest.raises(Killed):
        worked(engine, vendors, **{when: die})
    assert attempt_states(engine) == ["pending"]
    sweep_top_ups(engine, vendors)

    restart(engine)
    work(engine, now=NOW + MINUTE, gateways=vendors, queues=QUEUES)

    assert len(set(keys_sent(stripe_sandbox))) == 1
    assert_books_agree(engine, account, stripe_sandbox, charges=[19_000])


def test_an_answer_that_was_lost_is_asked_for_and_no_other_charge_is_made_meanwhile(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox, ada: Client
) -> None:
    stripe_sandbox.control.add_fault("lost_answer", times=None, path=INTENTS)
    adjust(engine, account, ada, -19_000)
    worked(engine, vendors)
    assert attempt_states(engine) == ["unknown"]
    adjust(engine, account, ada, -500)
    sweep_top_ups(engine, vendors)
    stripe_sandbox.control.clear_faults()

    sweep(engine, vendors, now=NOW + MINUTE)

    assert credit_of(engine, ada) == 19_500
    assert_books_agree(engine, account, stripe_sandbox, charges=[19_000])


def test_a_webhook_may_come_before_the_answer_and_again_after_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox, ada: Client
) -> None:
    adjust(engine, account, ada, -19_000)
    with pytest.raises(Killed):
        worked(engine, vendors, after=die)
    tell_all(engine, stripe_sandbox)
    worked(engine, vendors)
    assert credit_of(engine, ada) == 20_000
    adjust(engine, account, ada, -19_000)

    restart(engine)
    worked(engine, vendors)
    tell_all(engine, stripe_sandbox)
    worked(engine, vendors)

    assert len(payments(engine)) == 3
    assert_books_agree(engine, account, stripe_sandbox, charges=[19_000, 19_000])


@pytest.mark.parametrize(("code", "off"), [("amount_too_large", True), ("account_invalid", False)])
def test_a_request_that_stripe_refuses_is_not_the_cards_decline(
    engine: Engine, account: Account, *, vendors: Gateways, ada: Client, code: str, off: bool
) -> None:
    adjust(engine, account, ada, -19_000)
    worked(engine, vendors, before=refuse(code))

    setting = top_up_of(engine, ada)
    assert (setting.declines, setting.declined_at, setting.is_off) == (0, NOW, off)
    sweep_top_ups(engine, vendors, now=NOW + HOUR - MINUTE)
    assert attempt_states(engine) == ["declined"]
    sweep_top_ups(engine, vendors, now=NOW + HOUR)
    assert attempt_states(engine) == (["declined"] if off else ["declined", "succeeded"])


def test_one_that_was_cancelled_at_stripe_is_not_tried_again_by_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    set_top_up(engine, client)
    worked(engine, vendors)
    assert attempt_states(engine) == ["processing"]
    [attempt] = attempts_of(engine)
    assert attempt.payment_intent is not None

    vendors.cards.cancel(attempt.payment_intent, DEPLOYMENT)
    tell_all(engine, stripe_sandbox)
    worked(engine, vendors)

    states = attempt_states(engine)
    assert (states, how_it_stands(engine, client)) in (
        (["canceled"], (0, True)),
        # Where Stripe does not let go of a debit that is on its way.
        (["processing"], (0, False)),
    )


def test_the_client_reads_of_a_failed_top_up(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT, email="ada@example.com")
    set_top_up(engine, client)
    worked(engine, vendors)
    send(engine, vendors)

    [read] = inbox(sendgrid_control)
    assert read.subject == "Payment failed: your credit top-up with Bluebird Prep"
    assert read.says(
        "We tried to charge your card 200.00 USD to top up your credit balance",
        "We will try again soon.",
    )
    assert "to top up your credit balance" in read.html
    assert "We will try again soon." in read.html


def test_the_credit_of_a_whole_page_is_looked_at_in_one_statement(
    engine: Engine, account: Account
) -> None:
    clients = [a_client(engine, account, name=f"Client {number}") for number in range(5)]
    for client in clients[:4]:
        set_top_up(engine, client)
    ids = [client.id for client in clients]
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))

    with counted(engine) as statements, Session(engine) as session, session.begin():
        wake_top_ups(session, ids, requested_by="test")

    assert len(statements) == 2
    assert len(jobs_of(engine, top_up_client)) == 4


def test_who_spends_asks_once_and_the_job_comes_last(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 900)
    set_top_up(engine, client, threshold=800, target=900)
    less: dict[str, Any] = {"client_id": client.id, "amount": -100, "currency": "usd", "note": "x"}
    run = Run(job_id=uuid4(), account_id=account.id, attempt=1, now=NOW, requested_by="staff")

    with Session(engine, expire_on_commit=False) as session, session.begin():
        for _ in range(2):
            adjust_credit.body(run, session, **less)
        assert session.scalars(select(Job).where(Job.kind == top_up_client.name)).all() == []
        with counted(engine) as statements:
            start_asked_for(session)
            start_asked_for(session)

    assert len(statements) == 2
    [job] = jobs_of(engine, top_up_client)
    assert job.requested_by == "staff"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (17, "auto_top_up"),
        ({"threshold": 1, "target": 2}, "auto_top_up.currency"),
        ({"threshold": 1, "target": 99, "currency": "usd", "off": 1}, "auto_top_up.off"),
        ({"threshold": 0, "target": 99, "currency": "usd"}, "auto_top_up.threshold"),
    ],
)
def test_a_wrong_setting_is_refused_by_the_name_of_its_field(value: object, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_auto_top_up(value)

    assert refused.value.field == field


def test_credit_in_another_currency_is_none_of_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox, ada: Client
) -> None:
    some: dict[str, Any] = {"client_id": ada.id, "currency": "eur"}
    deposit(engine, account, ada, 500, currency="eur")
    do(engine, vendors, adjust_credit, account, **some, amount=-400, note="a miscount")

    assert charged(stripe_sandbox) == []
    assert audited(engine, account) == []


def test_a_card_that_is_gone_by_then_is_not_charged(
    engine: Engine, account: Account, vendors: Gateways, ada: Client
) -> None:
    adjust(engine, account, ada, -19_000)
    take_card(engine, ada)
    worked(engine, vendors)
    sweep_top_ups(engine, vendors)

    assert held(engine) == ["no_billing_method"]
    with Session(engine) as session:
        assert session.get(BillingMethod, ada.id) is None
