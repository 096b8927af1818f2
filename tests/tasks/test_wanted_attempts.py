"""Charges that could not be sent, and what stops collection before they can be."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from billing.dunning import MAX_TRIES_IN_30_DAYS
from gateways.cards import CardsUnavailable
from gateways.sandbox.stripe.faults import FaultKind
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.resolving import resolve_attempt
from tests.cards import (
    HARD,
    QUEUES,
    Killed,
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempt_states,
    attempts_of,
    charged,
    die,
    do,
    give_backup,
    give_card,
    hurry,
    invoice_of,
    keys_sent,
    restart,
    set_top_up,
    sweep,
    sweep_top_ups,
    take_card,
    watched,
)
from tests.money import adjust, deposit
from tests.reviews import change_business
from tests.worlds import NOW, audited, change, work

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def away() -> None:
    raise CardsUnavailable("stripe: not reached")


def pause(engine: Engine, client: Client) -> None:
    change(engine, client, paused={"collection": True})


def pause_everyone(engine: Engine, client: Client) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE accounts SET collection_paused = true WHERE id = :id"),
            {"id": client.account_id},
        )


def stop_card(engine: Engine, _client: Client) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE billing_methods SET stopped_for = 'disputed'"))
        connection.execute(text("UPDATE invoices SET next_attempt_at = NULL"))


@pytest.mark.parametrize("stop", [pause, pause_everyone, take_card, stop_card])
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


@pytest.mark.parametrize("is_first", [True, False])
def test_what_another_asked_beside_may_have_been_sent_though_this_one_was_turned_away(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    is_first: bool,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    if not is_first:
        sweep(engine, watched(vendors, before=away))
    met: list[bool] = []

    def meet_another() -> None:
        """The sweep's question comes first, and its worker dies with the answer."""
        if not met:
            met.append(True)
            [attempt] = attempts_of(engine)
            ask(engine, resolve_attempt, account, attempt_id=attempt.id)
            with pytest.raises(Killed):
                work(engine, now=NOW, gateways=watched(vendors, after=die), queues=QUEUES)
        raise CardsUnavailable("stripe: 409 the key is in use")

    hurry(engine, watched(vendors, before=meet_another), now=NOW)
    assert attempt_states(engine) == ["pending"]
    assert charged(stripe_sandbox) == [1000]
    pause(engine, client)
    restart(engine)
    hurry(engine, vendors, now=NOW + 10 * MINUTE)
    change(engine, client, paused={"collection": False})
    sweep(engine, vendors, now=NOW + 2 * HOUR)

    assert attempt_states(engine) == ["succeeded"]
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_a_dead_worker_may_have_sent_is_found_or_made_anew_after_the_pause(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    moment: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, **{moment: die}), queues=QUEUES)
    pause(engine, client)
    restart(engine)
    sent = len(keys_sent(stripe_sandbox))
    for after in (MINUTE, HOUR, 2 * DAY):
        sweep(engine, vendors, now=NOW + after)
    assert len(keys_sent(stripe_sandbox)) == sent
    assert attempt_states(engine) == ["canceled" if moment == "before" else "succeeded"]

    change(engine, client, paused={"collection": False})
    sweep(engine, vendors, now=NOW + 3 * DAY)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_what_was_turned_away_for_an_old_card_is_charged_to_the_new_one(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, watched(vendors, before=away))
    new = give_card(engine, stripe_sandbox, client, "pm_card_mastercard")

    hurry(engine, vendors, now=NOW + MINUTE)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert attempt_states(engine) == ["canceled", "succeeded"]
    assert attempts_of(engine)[-1].payment_method == new.payment_method
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_after_what_was_given_up_for_a_new_card_all_that_is_due_is_charged_in_one_go(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    ids = [an_open_invoice(engine, account, client, price) for price in ("10.00", "20.00")]
    sweep(engine, watched(vendors, before=away))
    assert attempt_states(engine) == ["pending"]
    give_card(engine, stripe_sandbox, client)

    hurry(engine, vendors, now=NOW + HOUR)

    assert attempt_states(engine) == ["canceled", "succeeded", "succeeded"]
    assert [invoice_of(engine, one).status for one in ids] == ["paid", "paid"]
    assert audited(engine, account) == []


def test_what_was_never_sent_uses_up_no_try(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    for times in range(MAX_TRIES_IN_30_DAYS):
        sweep(engine, watched(vendors, before=away))
        change(engine, client, paused={"collection": True})
        hurry(engine, vendors, now=NOW)
        assert attempt_states(engine) == ["canceled"] * (times + 1)
        change(engine, client, paused={"collection": False})

    sweep(engine, vendors)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_top_up_that_was_turned_away_is_not_made_in_a_pause_and_made_once_after_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    deposit(engine, account, client, 20_000)
    set_top_up(engine, client)
    adjust(engine, account, client, -19_000)
    work(engine, now=NOW, gateways=watched(vendors, before=away), queues=QUEUES)
    assert attempt_states(engine) == ["pending"]
    change_business(engine, account, collection_paused=True)

    hurry(engine, vendors, now=NOW + HOUR)
    sweep_top_ups(engine, vendors, now=NOW + HOUR)
    assert attempt_states(engine) == ["canceled"]
    assert charged(stripe_sandbox) == []

    change_business(engine, account, collection_paused=False)
    sweep_top_ups(engine, vendors, now=NOW + 2 * HOUR)

    assert attempt_states(engine) == ["canceled", "succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[19_000])


def test_a_top_up_that_was_turned_away_is_not_made_once_it_is_switched_off(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    deposit(engine, account, client, 20_000)
    set_top_up(engine, client)
    adjust(engine, account, client, -19_000)
    work(engine, now=NOW, gateways=watched(vendors, before=away), queues=QUEUES)
    change(engine, client, auto_top_up=None)

    hurry(engine, vendors, now=NOW + HOUR)

    assert attempt_states(engine) == ["canceled"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_a_second_card_that_was_turned_away_is_not_charged_once_it_is_not_to_be_used(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    give_backup(engine, stripe_sandbox, client)
    an_open_invoice(engine, account, client)
    asked: list[bool] = []

    def away_at_the_second() -> None:
        asked.append(True)
        if len(asked) > 1:
            away()

    sweep(engine, watched(vendors, before=away_at_the_second))
    assert attempt_states(engine) == ["declined", "pending"]
    change(engine, client, use_backup_card=False)

    hurry(engine, vendors, now=NOW + HOUR)

    assert attempt_states(engine) == ["declined", "canceled"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[])
