from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import Engine

from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.crediting import apply_invoice_credit, deposit_credit
from tasks.kinds import JobKind
from tasks.marking_paid import mark_invoice_paid
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
from tests.cards import (
    AUTHENTICATED,
    SOFT,
    Killed,
    a_client_with,
    an_open_invoice,
    assert_books_agree,
    attempt_states,
    attempts_of,
    credit_of,
    die,
    do,
    give_card,
    hurry,
    invoice_of,
    mails,
    payments,
    restart,
    sweep,
    take_card,
    tell_all,
)
from tests.pay_pages import (
    PagesOfToday,
    leave_page,
    of_today,
    page_of,
    pages,
    pay_on_page,
    press_pay,
)
from tests.worlds import NOW, a_client, audited, work

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def pay_vendors(vendors: Gateways) -> Gateways:
    return of_today(vendors)


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    return a_client(engine, account, email="ada@imports.example")


@pytest.fixture
def invoice_id(engine: Engine, account: Account, client: Client) -> UUID:
    """An open invoice of 10.00 usd, to be paid by hand."""
    return an_open_invoice(engine, account, client, collect=False)


def hear(engine: Engine, vendors: Gateways, stripe: StripeSandbox, **when: Any) -> None:
    """All that happened at Stripe is told, and handled."""
    tell_all(engine, stripe)
    work(engine, gateways=vendors, queues=["payments", "billing"], **{"now": NOW, **when})


def test_a_page_is_opened_for_what_is_due_and_paid_on(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
) -> None:
    job = press_pay(engine, pay_vendors, account, invoice_id)

    assert (job.state, job.reason) == ("succeeded", None)
    page = page_of(engine, invoice_id)
    assert (page.state, page.origin, page.amount) == ("needs_action", "client", 1000)
    assert page.checkout_expires_at == NOW + HOUR
    assert page.next_ask_at == NOW + HOUR + MINUTE
    assert str(page.checkout_url).startswith("http")
    assert "http" not in str(job.result)
    assert audited(engine, account) == []

    pay_on_page(engine, stripe_sandbox, invoice_id)
    hear(engine, pay_vendors, stripe_sandbox)

    assert attempt_states(engine) == ["succeeded"]
    assert invoice_of(engine, invoice_id).status == "paid"
    assert mails(engine) == ["receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_two_clicks_are_given_one_page(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
) -> None:
    press_pay(engine, pay_vendors, account, invoice_id)
    press_pay(engine, pay_vendors, account, invoice_id, now=NOW + 30 * MINUTE)
    assert pages(stripe_sandbox) == ["open"]

    # With less than ten minutes left it is too late to begin.
    press_pay(engine, pay_vendors, account, invoice_id, now=NOW + 51 * MINUTE)
    assert pages(stripe_sandbox) == ["expired", "open"]
    assert attempt_states(engine) == ["canceled", "needs_action"]
    assert audited(engine, account) == []


def test_a_client_is_made_known_to_stripe_once(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    client: Client,
    invoice_id: UUID,
) -> None:
    press_pay(engine, pay_vendors, account, invoice_id)
    other = an_open_invoice(engine, account, client, collect=False)
    press_pay(engine, pay_vendors, account, other)

    [customer] = stripe_sandbox.control.objects("customer")
    assert (customer["name"], customer["email"]) == (client.name, "ada@imports.example")
    assert {one.customer for one in attempts_of(engine)} == {customer["id"]}


def test_declines_on_a_page_end_nothing_and_tell_nobody(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
) -> None:
    press_pay(engine, pay_vendors, account, invoice_id)
    pay_on_page(engine, stripe_sandbox, invoice_id, SOFT)
    hear(engine, pay_vendors, stripe_sandbox)

    page = page_of(engine, invoice_id)
    assert (page.state, page.decline_code) == ("needs_action", "insufficient_funds")
    assert mails(engine) == []

    pay_on_page(engine, stripe_sandbox, invoice_id)
    # Also where what came first is told last.
    hear(engine, pay_vendors, stripe_sandbox)
    assert attempt_states(engine) == ["succeeded"]
    assert page_of(engine, invoice_id).decline_code is None
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_charge_to_be_authenticated_is_withdrawn_and_paid_on_a_page(
    engine: Engine, account: Account, pay_vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, pay_vendors)
    assert attempt_states(engine) == ["needs_action"]
    assert mails(engine) == ["authentication_needed"]

    press_pay(engine, pay_vendors, account, invoice_id)
    assert attempt_states(engine) == ["canceled", "needs_action"]
    # Should the client not do it after all, the card is tried again one day.
    assert invoice_of(engine, invoice_id).next_attempt_at is not None

    pay_on_page(engine, stripe_sandbox, invoice_id, AUTHENTICATED)
    hear(engine, pay_vendors, stripe_sandbox)
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_credit_that_is_there_pays_first(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    *,
    client: Client,
    invoice_id: UUID,
) -> None:
    keep(engine, pay_vendors, account, client, 400, apply=False)
    press_pay(engine, pay_vendors, account, invoice_id)
    assert page_of(engine, invoice_id).amount == 600

    other = an_open_invoice(engine, account, client, collect=False)
    keep(engine, pay_vendors, account, client, 1000, apply=False)
    job = press_pay(engine, pay_vendors, account, other)
    # The oldest takes it, but for one with a page open.
    assert job.result == {"invoice": str(other), "state": "paid_by_credit"}


def test_credit_that_comes_while_a_page_is_open_closes_it_and_is_used(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    client: Client,
    invoice_id: UUID,
) -> None:
    press_pay(engine, pay_vendors, account, invoice_id)
    keep(engine, pay_vendors, account, client, 400)

    assert pages(stripe_sandbox) == ["expired"]
    assert attempt_states(engine) == ["canceled"]
    assert invoice_of(engine, invoice_id).amount_due == 600
    assert credit_of(engine, client) == 0
    press_pay(engine, pay_vendors, account, invoice_id)
    pay_on_page(engine, stripe_sandbox, invoice_id)
    hear(engine, pay_vendors, stripe_sandbox)
    assert_books_agree(engine, account, stripe_sandbox, charges=[600])


def test_credit_that_comes_once_the_client_has_paid_stays_credit(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    client: Client,
    invoice_id: UUID,
) -> None:
    press_pay(engine, pay_vendors, account, invoice_id)
    pay_on_page(engine, stripe_sandbox, invoice_id)
    keep(engine, pay_vendors, account, client, 400)

    assert attempt_states(engine) == ["succeeded"]
    assert credit_of(engine, client) == 400
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


COMMANDS: dict[str, tuple[JobKind, dict[str, Any], str]] = {
    "void": (void_invoice, {}, "void"),
    "mark-paid": (mark_invoice_paid, {}, "paid"),
    "write-off": (write_off_invoice, {}, "uncollectible"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_open_page_is_closed_before_the_invoice_is_settled_otherwise(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
    *,
    name: str,
) -> None:
    kind, options, status = COMMANDS[name]
    press_pay(engine, pay_vendors, account, invoice_id)

    job = do(engine, pay_vendors, kind, account, invoice_id=invoice_id, **options)

    assert (job.state, job.reason) == ("succeeded", None)
    assert invoice_of(engine, invoice_id).status == status
    assert pages(stripe_sandbox) == ["expired"]
    assert attempt_states(engine) == ["canceled"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


@pytest.mark.parametrize("name", COMMANDS)
def test_what_was_paid_on_the_page_counts_and_the_command_is_refused(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
    *,
    name: str,
) -> None:
    kind, options, _ = COMMANDS[name]
    press_pay(engine, pay_vendors, account, invoice_id)
    pay_on_page(engine, stripe_sandbox, invoice_id)

    job = do(engine, pay_vendors, kind, account, invoice_id=invoice_id, **options)

    assert (job.state, job.reason) == ("skipped", "invoice_not_open")
    assert invoice_of(engine, invoice_id).status == "paid"
    hear(engine, pay_vendors, stripe_sandbox)
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_bank_debit_begun_on_the_page_blocks(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
    *,
    name: str,
) -> None:
    kind, options, _ = COMMANDS[name]
    stripe_sandbox.control.set(settle_after=None)
    press_pay(engine, pay_vendors, account, invoice_id)
    pay_on_page(engine, stripe_sandbox, invoice_id, "pm_usBankAccount_success")

    job = do(engine, pay_vendors, kind, account, invoice_id=invoice_id, **options)

    assert (job.state, job.reason) == ("skipped", "payment_in_flight")
    assert attempt_states(engine) == ["processing"]
    assert press_pay(engine, pay_vendors, account, invoice_id).reason == "payment_in_flight"
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"])
    hear(engine, pay_vendors, stripe_sandbox)
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_bank_debit_begun_on_the_page_that_comes_back_is_told_to_the_client(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
) -> None:
    stripe_sandbox.control.set(settle_after=None)
    press_pay(engine, pay_vendors, account, invoice_id)
    pay_on_page(engine, stripe_sandbox, invoice_id, SOFT)
    pay_on_page(engine, stripe_sandbox, invoice_id, "pm_usBankAccount_success")
    hear(engine, pay_vendors, stripe_sandbox)
    assert attempt_states(engine) == ["processing"]

    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"], "insufficient_funds")
    hear(engine, pay_vendors, stripe_sandbox)

    assert attempt_states(engine) == ["declined"]
    assert mails(engine) == ["payment_failed"]
    assert invoice_of(engine, invoice_id).status == "open"
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_a_page_that_is_left_changes_nothing_about_the_schedule(
    engine: Engine, account: Account, pay_vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, pay_vendors)
    planned = invoice_of(engine, invoice_id).next_attempt_at
    assert planned is not None
    press_pay(engine, pay_vendors, account, invoice_id)

    leave_page(engine, stripe_sandbox, invoice_id)
    hear(engine, pay_vendors, stripe_sandbox, now=NOW + HOUR)

    assert attempt_states(engine) == ["declined", "canceled"]
    assert invoice_of(engine, invoice_id).next_attempt_at == planned
    assert mails(engine) == ["payment_failed"]
    assert audited(engine, account) == []


@pytest.mark.parametrize("is_paid", [True, False], ids=["paid", "left"])
def test_a_page_of_which_no_event_tells_is_asked_for_when_it_is_over(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
    *,
    is_paid: bool,
) -> None:
    press_pay(engine, pay_vendors, account, invoice_id)
    (pay_on_page if is_paid else leave_page)(engine, stripe_sandbox, invoice_id)

    sweep(engine, pay_vendors, now=NOW + HOUR)
    assert attempt_states(engine) == ["needs_action"]
    sweep(engine, pay_vendors, now=NOW + HOUR + MINUTE)

    assert attempt_states(engine) == ["succeeded" if is_paid else "canceled"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] if is_paid else [])


def test_a_charge_that_comes_due_closes_the_page_first(
    engine: Engine, account: Account, pay_vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    take_card(engine, client)
    sweep(engine, pay_vendors)
    press_pay(engine, pay_vendors, account, invoice_id)
    assert pages(stripe_sandbox) == ["open"]

    # A new card is charged for what is open, at once.
    give_card(engine, stripe_sandbox, client)
    sweep(engine, pay_vendors)

    assert pages(stripe_sandbox) == ["expired"]
    assert attempt_states(engine) == ["canceled", "succeeded"]
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize("kind", [charge_invoice, apply_invoice_credit])
def test_staff_who_charge_or_use_credit_close_the_page_first(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    kind: JobKind,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    press_pay(engine, pay_vendors, account, invoice_id)
    if kind is apply_invoice_credit:
        keep(engine, pay_vendors, account, client, 1000, apply=False)

    job = do(engine, pay_vendors, kind, account, invoice_id=invoice_id)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert pages(stripe_sandbox) == ["expired"]
    assert job.state in {"succeeded", "skipped"}
    charges = [1000] if kind is charge_invoice else []
    assert_books_agree(engine, account, stripe_sandbox, charges=charges)


def test_what_was_written_off_can_be_paid_on_a_page(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
) -> None:
    do(engine, pay_vendors, write_off_invoice, account, invoice_id=invoice_id)
    press_pay(engine, pay_vendors, account, invoice_id)
    assert audited(engine, account) == []
    pay_on_page(engine, stripe_sandbox, invoice_id)
    hear(engine, pay_vendors, stripe_sandbox)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert [(one.amount, one.applied) for one in payments(engine)] == [(1000, 1000)]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize(("price", "currency"), [("0.49", "usd"), ("10.001", "bhd")])
def test_what_stripe_does_not_take_is_refused_and_nothing_is_opened(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    client: Client,
    *,
    price: str,
    currency: str,
) -> None:
    invoice_id = an_open_invoice(engine, account, client, price, collect=False, currency=currency)
    job = press_pay(engine, pay_vendors, account, invoice_id)
    assert (job.state, job.reason) == ("skipped", "not_chargeable")
    assert attempts_of(engine) == []
    assert pages(stripe_sandbox) == []


def test_a_page_whose_opening_was_not_answered_is_opened_once(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
) -> None:
    stripe_sandbox.control.add_fault("lost_answer", times=3, path="/v1/checkout/sessions")
    press_pay(engine, pay_vendors, account, invoice_id)
    assert attempt_states(engine) == ["pending"]
    hurry(engine, pay_vendors, now=NOW + MINUTE)

    assert attempt_states(engine) == ["needs_action"]
    assert pages(stripe_sandbox) == ["open"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("finder", ["the job", "the question"])
def test_a_worker_that_dies_as_it_opens_a_page_opens_one(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    invoice_id: UUID,
    moment: str,
    finder: str,
) -> None:
    watched = cast("PagesOfToday", pay_vendors.checkout)
    watched.do(**{moment: die})
    with pytest.raises(Killed):
        press_pay(engine, pay_vendors, account, invoice_id)
    assert attempt_states(engine) == ["pending"]
    assert len(pages(stripe_sandbox)) == (moment == "after")
    watched.do()

    if finder == "the job":
        restart(engine)
        work(engine, now=NOW + MINUTE, gateways=pay_vendors, queues=["payments"])
    else:
        sweep(engine, pay_vendors, now=NOW + MINUTE)

    assert attempt_states(engine) == ["needs_action"]
    assert pages(stripe_sandbox) == ["open"]
    pay_on_page(engine, stripe_sandbox, invoice_id)
    hear(engine, pay_vendors, stripe_sandbox)
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_page_that_cannot_be_opened_is_given_up_and_blocks_nobody(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
) -> None:
    stripe_sandbox.control.add_fault("server_error", times=None, path="/v1/checkout/sessions")
    press_pay(engine, pay_vendors, account, invoice_id)
    assert attempt_states(engine) == ["pending"]
    hurry(engine, pay_vendors, now=NOW + 11 * MINUTE)
    assert attempt_states(engine) == ["canceled"]

    do(engine, pay_vendors, void_invoice, account, invoice_id=invoice_id)
    assert invoice_of(engine, invoice_id).status == "void"
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_a_customer_that_stripe_has_forgotten_is_made_anew(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    invoice_id: UUID,
) -> None:
    press_pay(engine, pay_vendors, account, invoice_id)
    leave_page(engine, stripe_sandbox, invoice_id)
    hear(engine, pay_vendors, stripe_sandbox)
    [customer] = stripe_sandbox.control.objects("customer")
    stripe_sandbox.control.delete_customer(customer["id"])

    assert press_pay(engine, pay_vendors, account, invoice_id).reason == "resource_missing"
    stripe_sandbox.control.expire_keys()
    assert press_pay(engine, pay_vendors, account, invoice_id).state == "succeeded"
    assert attempt_states(engine) == ["canceled", "canceled", "needs_action"]


def keep(
    engine: Engine,
    vendors: Gateways,
    account: Account,
    client: Client,
    amount: int,
    **options: Any,
) -> None:
    do(
        engine,
        vendors,
        deposit_credit,
        account,
        client_id=client.id,
        amount=amount,
        currency="usd",
        **options,
    )
