"""Charges that could not be sent, and what stops collection before they can be."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from gateways.cards import CardsUnavailable
from gateways.sandbox.stripe.faults import FaultKind
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tests.cards import (
    a_client_with,
    an_open_invoice,
    attempt_states,
    charged,
    do,
    hurry,
    invoice_of,
    sweep,
    take_card,
    watched,
)
from tests.worlds import NOW, audited, change

HOUR = timedelta(hours=1)


def away() -> None:
    raise CardsUnavailable("stripe: not reached")


def pause(engine: Engine, client: Client) -> None:
    change(engine, client, paused={"collection": True})


@pytest.mark.parametrize("stop", [pause, take_card], ids=["pause", "card removed"])
def test_what_was_never_sent_is_not_charged_after_a_stop(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    stop: Callable[[Engine, Client], None],
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    an_open_invoice(engine, account, client)
    sweep(engine, watched(vendors, before=away))
    assert attempt_states(engine) == ["pending"]
    assert charged(stripe_sandbox) == []
    stop(engine, client)

    hurry(engine, vendors, now=NOW + HOUR)
    sweep(engine, vendors, now=NOW + HOUR)

    assert charged(stripe_sandbox) == []
    assert attempt_states(engine) == ["canceled"]
    assert audited(engine, account) == []


def test_collection_goes_on_with_what_was_given_up_once_the_pause_ends(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, watched(vendors, before=away))
    pause(engine, client)
    hurry(engine, vendors, now=NOW + HOUR)
    change(engine, client, paused={"collection": False})

    sweep(engine, vendors, now=NOW + 2 * HOUR)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert attempt_states(engine) == ["canceled", "succeeded"]


@pytest.mark.parametrize(("fault", "is_made"), [("server_error", False), ("lost_answer", True)])
def test_what_may_have_been_sent_is_looked_up_after_a_stop_and_not_sent_again(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    fault: FaultKind,
    is_made: bool,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault(fault, times=None, path="/v1/payment_intents")
    sweep(engine, vendors)
    assert attempt_states(engine) == ["unknown"]
    stripe_sandbox.control.clear_faults()
    pause(engine, client)
    before = len(charged(stripe_sandbox))

    hurry(engine, vendors, now=NOW + HOUR)
    sweep(engine, vendors, now=NOW + HOUR)

    assert len(charged(stripe_sandbox)) == before == int(is_made)
    assert attempt_states(engine) == (["succeeded"] if is_made else ["unknown"])
    assert invoice_of(engine, invoice_id).status == ("paid" if is_made else "open")
    assert audited(engine, account) == []


def test_what_staff_asked_for_is_charged_after_a_pause_all_the_same(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    do(engine, watched(vendors, before=away), charge_invoice, account, invoice_id=invoice_id)
    pause(engine, client)

    hurry(engine, vendors, now=NOW + HOUR)

    assert invoice_of(engine, invoice_id).status == "paid"
