"""A page on which the client pays, and somebody else at the same moment: it is settled once."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_events import event_from
from models import Account
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.collecting import collect_client
from tasks.crediting import deposit_credit
from tasks.kinds import JobKind
from tasks.marking_paid import mark_invoice_paid
from tasks.pay_pages import open_pay_page
from tasks.resolving import resolve_attempt
from tasks.voiding import void_invoice
from tasks.webhooks import handle_payment_event, store_payment_event
from tests.cards import (
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempt_states,
    charged,
    credit_of,
    give_card,
    hurry,
    invoice_of,
    jobs_of,
    payments,
    sweep,
    take_card,
    tell_all,
)
from tests.pay_pages import of_today, page_of, pages, pay_on_page, press_pay
from tests.tasks.test_charging_races import MINUTE, run_together
from tests.worlds import NOW, a_client, work

ROUNDS = 4


@pytest.fixture
def pay_vendors(vendors: Gateways) -> Gateways:
    return of_today(vendors)


def try_to_pay(engine: Engine, stripe: StripeSandbox, invoice_id: UUID) -> None:
    """The client presses the button at Stripe; it may be too late."""
    with suppress(LocalServerError):
        pay_on_page(engine, stripe, invoice_id)


def settle_what_is_left(engine: Engine, vendors: Gateways, stripe: StripeSandbox) -> None:
    """Jobs that met each other come again, and all is told."""
    hurry(engine, vendors, now=NOW + MINUTE)
    tell_all(engine, stripe)
    work(engine, now=NOW + MINUTE, gateways=vendors, queues=["payments", "billing"])


COMMANDS = {
    "void": void_invoice,
    "mark-paid": mark_invoice_paid,
    "staff's click": charge_invoice,
}


@pytest.mark.parametrize("kind", COMMANDS.values(), ids=COMMANDS)
def test_of_a_client_who_pays_and_a_command_at_once_one_settles(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    kind: JobKind,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    by_card = 0
    for _ in range(ROUNDS):
        invoice_id = an_open_invoice(engine, account, client, collect=False)
        press_pay(engine, pay_vendors, account, invoice_id)
        [job] = run_together(
            engine,
            pay_vendors,
            ask(engine, kind, account, invoice_id=invoice_id),
            meanwhile=[partial(try_to_pay, engine, stripe_sandbox, invoice_id)],
        )
        settle_what_is_left(engine, pay_vendors, stripe_sandbox)
        status = invoice_of(engine, invoice_id).status
        assert status == ("void" if kind is void_invoice and job.state == "succeeded" else "paid")
        taken = [one for one in payments(engine) if one.invoice_id == invoice_id]
        assert sum(one.applied for one in taken) == (0 if status == "void" else 1000)
        by_card += sum(one.source == "card" for one in taken)
        assert len(taken) == (status == "paid")

    assert credit_of(engine, client) == 0
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * by_card)


def test_of_a_client_who_pays_and_the_automatic_charge_at_once_one_settles(
    engine: Engine, account: Account, pay_vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client_with(engine, account, stripe_sandbox)
        take_card(engine, client)
        invoice_id = an_open_invoice(engine, account, client)
        work(engine, now=NOW, gateways=pay_vendors, queues=["payments"])
        press_pay(engine, pay_vendors, account, invoice_id)
        give_card(engine, stripe_sandbox, client)
        run_together(
            engine,
            pay_vendors,
            jobs_of(engine, collect_client)[-1].id,
            meanwhile=[partial(try_to_pay, engine, stripe_sandbox, invoice_id)],
        )
        settle_what_is_left(engine, pay_vendors, stripe_sandbox)
        sweep(engine, pay_vendors, now=NOW + MINUTE)
        assert invoice_of(engine, invoice_id).status == "paid"
        assert attempt_states(engine, invoice_id).count("succeeded") == 1

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * ROUNDS)


@pytest.mark.parametrize("is_automatic", [False, True], ids=["staff's click", "automatic"])
def test_a_page_asked_for_with_a_charge_leads_to_one_settlement(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    is_automatic: bool,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    for _ in range(ROUNDS):
        invoice_id = an_open_invoice(engine, account, client, collect=is_automatic)
        charge = (
            jobs_of(engine, collect_client)[-1].id
            if is_automatic
            else ask(engine, charge_invoice, account, invoice_id=invoice_id)
        )
        page = ask(engine, open_pay_page, account, invoice_id=invoice_id)
        run_together(engine, pay_vendors, charge, page)
        settle_what_is_left(engine, pay_vendors, stripe_sandbox)
        if invoice_of(engine, invoice_id).status == "open":
            # The page came second to none: the client pays there.
            pay_on_page(engine, stripe_sandbox, invoice_id)
            settle_what_is_left(engine, pay_vendors, stripe_sandbox)
        assert invoice_of(engine, invoice_id).status == "paid"
        assert attempt_states(engine, invoice_id).count("succeeded") == 1

    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * ROUNDS)


@pytest.mark.parametrize("kind", [void_invoice, mark_invoice_paid])
def test_a_page_asked_for_with_a_command_is_not_left_open_for_nothing(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    kind: JobKind,
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        invoice_id = an_open_invoice(engine, account, client, collect=False)
        command, _ = run_together(
            engine,
            pay_vendors,
            ask(engine, kind, account, invoice_id=invoice_id),
            ask(engine, open_pay_page, account, invoice_id=invoice_id),
        )
        settle_what_is_left(engine, pay_vendors, stripe_sandbox)
        is_open = invoice_of(engine, invoice_id).status == "open"
        # Refused where it met the page half open: then the page is there.
        assert is_open == (command.reason == "payment_in_flight")
        assert ("needs_action" in attempt_states(engine, invoice_id)) == is_open

    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_clicks_at_once_open_one_page(
    engine: Engine, account: Account, pay_vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    for number in range(1, ROUNDS + 1):
        invoice_id = an_open_invoice(engine, account, client, collect=False)
        # As if the key that joins them were not there.
        asked = [ask(engine, open_pay_page, account, invoice_id=invoice_id) for _ in range(3)]
        run_together(engine, pay_vendors, *asked)
        settle_what_is_left(engine, pay_vendors, stripe_sandbox)
        assert attempt_states(engine, invoice_id) == ["needs_action"]
        assert pages(stripe_sandbox) == ["open"] * number

    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_credit_that_comes_as_a_page_is_opened_or_paid_on_is_used_or_kept(
    engine: Engine, account: Account, pay_vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    for _ in range(ROUNDS):
        client = a_client(engine, account)
        invoice_id = an_open_invoice(engine, account, client, collect=False)
        of_client = {"client_id": client.id, "amount": 300, "currency": "usd"}
        run_together(
            engine,
            pay_vendors,
            ask(engine, open_pay_page, account, invoice_id=invoice_id),
            ask(engine, deposit_credit, account, **of_client),
        )
        settle_what_is_left(engine, pay_vendors, stripe_sandbox)
        # Whoever was first, nobody is asked for what the credit pays.
        assert invoice_of(engine, invoice_id).amount_due == 700
        assert credit_of(engine, client) == 0

        press_pay(engine, pay_vendors, account, invoice_id)
        assert page_of(engine, invoice_id).amount == 700
        run_together(
            engine,
            pay_vendors,
            ask(engine, deposit_credit, account, **of_client),
            meanwhile=[partial(try_to_pay, engine, stripe_sandbox, invoice_id)],
        )
        settle_what_is_left(engine, pay_vendors, stripe_sandbox)
        invoice = invoice_of(engine, invoice_id)
        if invoice.status == "paid":
            assert (invoice.amount_paid, credit_of(engine, client)) == (700, 300)
        else:
            assert (invoice.amount_due, credit_of(engine, client)) == (400, 0)

    assert_books_agree(engine, account, stripe_sandbox, charges=charged(stripe_sandbox))


def test_events_and_questions_at_once_book_a_page_once(
    engine: Engine, account: Account, pay_vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    for _ in range(ROUNDS):
        invoice_id = an_open_invoice(engine, account, client, collect=False)
        press_pay(engine, pay_vendors, account, invoice_id)
        page = page_of(engine, invoice_id)
        pay_on_page(engine, stripe_sandbox, invoice_id)
        tell_all(engine, stripe_sandbox)
        told = [job.id for job in jobs_of(engine, handle_payment_event) if job.state == "ready"]
        asked = [ask(engine, resolve_attempt, account, attempt_id=page.id) for _ in range(2)]
        run_together(engine, pay_vendors, *told, *asked)
        settle_what_is_left(engine, pay_vendors, stripe_sandbox)
        assert attempt_states(engine, invoice_id) == ["succeeded"]

    assert len(payments(engine)) == ROUNDS
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] * ROUNDS)


def shuffled(events: list[dict[str, object]]) -> list[dict[str, object]]:
    return events[::-1]


@pytest.mark.parametrize("order", [list, shuffled], ids=["in order", "the last first"])
def test_what_happened_on_a_page_is_told_late_twice_and_in_any_order(
    engine: Engine,
    account: Account,
    pay_vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    order: Callable[[list[dict[str, object]]], list[dict[str, object]]],
) -> None:
    invoice_id = an_open_invoice(engine, account, a_client(engine, account), collect=False)
    press_pay(engine, pay_vendors, account, invoice_id)
    pay_on_page(engine, stripe_sandbox, invoice_id, "pm_card_chargeDeclinedInsufficientFunds")
    pay_on_page(engine, stripe_sandbox, invoice_id)
    for event in order(stripe_sandbox.control.events()) * 2:
        with Session(engine) as session, session.begin():
            store_payment_event(session, event_from(event), requested_by="webhook:stripe")
        work(engine, now=NOW, gateways=pay_vendors, queues=["payments", "billing"])
        assert attempt_states(engine) in (["needs_action"], ["succeeded"])

    assert attempt_states(engine) == ["succeeded"]
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])
