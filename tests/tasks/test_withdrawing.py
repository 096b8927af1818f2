from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, Job
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.crediting import apply_invoice_credit, deposit_credit
from tasks.marking_paid import mark_invoice_paid
from tasks.voiding import void_invoice
from tasks.withdrawing import withdraw_attempt
from tests.cards import (
    AUTHENTICATED,
    BANK,
    QUEUES,
    Killed,
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempt_states,
    attempts_of,
    charged,
    credit_of,
    die,
    do,
    give_card,
    hurry,
    invoice_of,
    jobs_of,
    pay_waiting_intents,
    pay_waiting_intents_by_bank,
    payments,
    restart,
    sweep,
    watched,
)
from tests.worlds import NOW, audited, work

COMMANDS = {
    "void": void_invoice,
    "mark-paid": mark_invoice_paid,
    "apply-credit": apply_invoice_credit,
}
ENDS = {"void": "void", "mark-paid": "paid", "apply-credit": "paid"}


def keep_credit(engine: Engine, vendors: Gateways, account: Account, client: Client) -> None:
    do(
        engine,
        vendors,
        deposit_credit,
        account,
        client_id=client.id,
        amount=1000,
        currency="usd",
        apply=False,
    )


def intents(stripe: StripeSandbox) -> list[str]:
    return [intent["status"] for intent in stripe.control.payment_intents()]


@pytest.fixture
def waiting(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> tuple[Client, UUID]:
    """A client, and its invoice whose automatic charge waits for the client; credit comes later."""
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    assert attempt_states(engine) == ["needs_action"]
    keep_credit(engine, vendors, account, client)
    return client, invoice_id


def command(
    engine: Engine,
    vendors: Gateways,
    account: Account,
    name: str,
    invoice_id: UUID,
    **more: Any,
) -> Job:
    return do(engine, vendors, COMMANDS[name], account, invoice_id=invoice_id, **more)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_waits_for_the_client_is_cancelled_at_stripe_first(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    waiting: tuple[Client, UUID],
    *,
    name: str,
) -> None:
    _, invoice_id = waiting

    job = command(engine, vendors, account, name, invoice_id)

    assert (job.state, job.reason) == ("succeeded", None)
    assert invoice_of(engine, invoice_id).status == ENDS[name]
    assert invoice_of(engine, invoice_id).next_attempt_at is None
    assert attempt_states(engine) == ["canceled"]
    assert intents(stripe_sandbox) == ["canceled"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_client_has_just_paid_is_written_down_and_the_command_refused(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    waiting: tuple[Client, UUID],
    *,
    name: str,
) -> None:
    client, invoice_id = waiting
    pay_waiting_intents(stripe_sandbox)

    job = command(engine, vendors, account, name, invoice_id)

    assert (job.state, job.reason) == ("skipped", "invoice_not_open")
    assert invoice_of(engine, invoice_id).status == "paid"
    assert credit_of(engine, client) == 1000
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize("name", COMMANDS)
def test_what_stripe_says_is_being_paid_blocks(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    waiting: tuple[Client, UUID],
    *,
    name: str,
) -> None:
    _, invoice_id = waiting
    pay_waiting_intents_by_bank(stripe_sandbox)

    job = command(engine, vendors, account, name, invoice_id)

    assert (job.state, job.reason) == ("skipped", "payment_in_flight")
    assert attempt_states(engine) == ["processing"]
    assert invoice_of(engine, invoice_id).status == "open"
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"])
    sweep(engine, vendors, now=NOW + timedelta(days=1))
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bank_debit_under_way_blocks(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    name: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    keep_credit(engine, vendors, account, client)

    job = command(engine, vendors, account, name, invoice_id)

    assert (job.state, job.reason) == ("skipped", "payment_in_flight")
    assert jobs_of(engine, withdraw_attempt) == []
    assert intents(stripe_sandbox) == ["processing"]
    assert invoice_of(engine, invoice_id).amount_due == 1000


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("state", ["pending", "unknown"])
def test_a_charge_without_an_answer_blocks(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    name: str,
    state: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    if state == "pending":
        with pytest.raises(Killed):
            work(engine, now=NOW, gateways=watched(vendors, after=die), queues=QUEUES)
    else:
        stripe_sandbox.control.add_fault("lost_answer", times=None, path="/v1/payment_intents")
        sweep(engine, vendors)
        stripe_sandbox.control.clear_faults()
    keep_credit(engine, vendors, account, client)
    assert attempt_states(engine) == [state]

    job = command(engine, vendors, account, name, invoice_id)

    assert (job.state, job.reason) == ("skipped", "payment_in_flight")
    restart(engine)
    sweep(engine, vendors, now=NOW + timedelta(minutes=1))
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_void_waits_until_stripe_can_be_told(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    waiting: tuple[Client, UUID],
) -> None:
    _, invoice_id = waiting
    stripe_sandbox.kill()
    job = command(engine, vendors, account, "void", invoice_id)
    assert job.state == "scheduled"
    assert invoice_of(engine, invoice_id).status == "open"

    stripe_sandbox.start()
    hurry(engine, vendors, now=NOW + timedelta(minutes=10))

    assert invoice_of(engine, invoice_id).status == "void"
    assert intents(stripe_sandbox) == ["canceled"]
    assert audited(engine, account) == []


def test_a_stripe_that_turns_withdrawals_away_is_asked_less_and_less_often(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    waiting: tuple[Client, UUID],
) -> None:
    _, invoice_id = waiting
    stripe_sandbox.control.add_fault("rate_limit", times=None, path="/v1/payment_intents/*/cancel")
    command(engine, vendors, account, "void", invoice_id)
    waits = []
    for _ in range(3):
        begun = datetime.now(UTC)
        hurry(engine, vendors, now=NOW)
        [job] = jobs_of(engine, withdraw_attempt)
        waits.append(job.run_at - begun)

    assert [attempt.asks for attempt in attempts_of(engine)] == [5]
    assert waits[0] > timedelta(seconds=9)
    assert waits[1] > timedelta(seconds=27)
    assert waits[2] > timedelta(seconds=81)
    stripe_sandbox.control.clear_faults()
    hurry(engine, vendors, now=NOW)
    assert invoice_of(engine, invoice_id).status == "void"


def forget_intent(engine: Engine) -> None:
    """Stripe knows no payment by the name that we keep."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE payment_attempts SET payment_intent = 'pi_gone'"))


@pytest.mark.parametrize("name", COMMANDS)
def test_what_stripe_knows_no_more_is_withdrawn_and_the_command_goes_on(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    waiting: tuple[Client, UUID],
    *,
    name: str,
) -> None:
    _, invoice_id = waiting
    forget_intent(engine)

    job = command(engine, vendors, account, name, invoice_id)

    assert (job.state, job.reason) == ("succeeded", None)
    assert invoice_of(engine, invoice_id).status == ENDS[name]
    [attempt] = attempts_of(engine)
    assert (attempt.state, attempt.settled_at) == ("canceled", NOW)
    assert attempt.message is not None
    assert "No such payment_intent" in attempt.message
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


@pytest.mark.parametrize("by_whom", ["the sweep", "staff"])
def test_what_stripe_knows_no_more_is_in_the_way_of_no_other_charge(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    by_whom: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client, collect=by_whom == "the sweep")

    def charge() -> None:
        if by_whom == "staff":
            do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
        else:
            sweep(engine, vendors)

    charge()
    forget_intent(engine)
    give_card(engine, stripe_sandbox, client)
    charge()

    assert attempt_states(engine, invoice_id) == ["canceled", "succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_what_a_part_payment_leaves_is_tried_by_itself_on_the_schedule(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    waiting: tuple[Client, UUID],
) -> None:
    _, invoice_id = waiting

    command(engine, vendors, account, "mark-paid", invoice_id, amount=300)

    invoice = invoice_of(engine, invoice_id)
    assert (invoice.status, invoice.amount_due) == ("open", 700)
    assert attempt_states(engine) == ["canceled"]
    due = datetime(2026, 6, 4, 10, tzinfo=UTC)
    assert invoice.next_attempt_at == due
    sweep(engine, vendors, now=due)
    # The credit that was kept pays before a card is asked.
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_a_manual_invoice_gets_no_schedule_by_being_withdrawn(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)

    command(engine, vendors, account, "mark-paid", invoice_id, amount=300)

    assert invoice_of(engine, invoice_id).next_attempt_at is None
    assert attempt_states(engine) == ["canceled"]


def test_a_command_may_withdraw_again_what_came_to_wait_meanwhile(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    waiting: tuple[Client, UUID],
) -> None:
    _, invoice_id = waiting
    ask(engine, void_invoice, account, invoice_id=invoice_id)
    work(engine, now=NOW, gateways=vendors, queues=["billing"])
    [child] = jobs_of(engine, withdraw_attempt)
    work(engine, now=NOW, gateways=vendors, queues=["payments"])
    assert attempt_states(engine) == ["canceled"]
    # Before the void is run again, somebody presses the button.
    ask(engine, charge_invoice, account, invoice_id=invoice_id)
    work(engine, now=NOW, gateways=vendors, queues=["payments"])
    assert attempt_states(engine) == ["canceled", "needs_action"]

    work(engine, now=NOW, gateways=vendors, queues=QUEUES)

    assert attempt_states(engine) == ["canceled", "canceled"]
    assert invoice_of(engine, invoice_id).status == "void"
    assert len(jobs_of(engine, withdraw_attempt)) == 2
    assert child.parent_id == jobs_of(engine, void_invoice)[0].id
    assert charged(stripe_sandbox) == []


def test_what_has_been_settled_is_not_withdrawn(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    [attempt] = attempts_of(engine)

    job = do(engine, vendors, withdraw_attempt, account, attempt_id=attempt.id)

    assert (job.state, job.reason) == ("skipped", "attempt_settled")
    assert intents(stripe_sandbox) == ["succeeded"]
    assert len(payments(engine)) == 1
