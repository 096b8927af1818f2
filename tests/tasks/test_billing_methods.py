from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import NotFound
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client
from tasks.accounts import create_account
from tasks.billing_methods import remove_billing_method, set_billing_method
from tasks.calls import Gateways
from tasks.collecting import collect_client
from tests.cards import (
    AUTHENTICATED,
    BANK,
    HARD,
    SOFT,
    a_client_with,
    an_open_invoice,
    assert_books_agree,
    attempt_states,
    attempts_of,
    card_of,
    charged,
    give_card,
    give_money,
    invoice_of,
    jobs_of,
    keys_sent,
    mails,
    pay_waiting_intents,
    put_on,
    sweep,
    take_card,
)
from tests.worlds import NOW, a_client

INTENTS = "/v1/payment_intents"
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def test_a_new_card_is_tried_at_once_and_begins_a_fresh_schedule(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    for day in (0, 3, 8, 15, 22):
        sweep(engine, vendors, now=NOW + day * DAY)
    assert len(attempts_of(engine)) == 5
    assert invoice_of(engine, invoice_id).next_attempt_at is None

    later = NOW + 40 * DAY
    give_card(engine, stripe_sandbox, client, SOFT, now=later)
    assert invoice_of(engine, invoice_id).next_attempt_at == later
    assert invoice_of(engine, invoice_id).failures == 0
    # Enqueued with the card: no sweep is waited for.
    assert jobs_of(engine, collect_client)[-1].state == "ready"
    sweep(engine, vendors, now=later)

    invoice = invoice_of(engine, invoice_id)
    assert (invoice.failures, invoice.attempt_count) == (1, 6)
    assert invoice.next_attempt_at == datetime(2026, 7, 14, 10, tzinfo=UTC)


def test_a_new_card_after_a_hard_decline_pays_all_that_waited_oldest_first(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    for price in ("10.00", "20.00"):
        an_open_invoice(engine, account, client, price)
    sweep(engine, vendors)

    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors)

    method = card_of(engine, client)
    assert method is not None
    assert method.stopped_for is None
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000])


def test_a_new_card_never_charges_an_invoice_that_is_collected_by_hand(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, SOFT)
    by_hand = an_open_invoice(engine, account, client, collect=False)

    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors)

    assert invoice_of(engine, by_hand).next_attempt_at is None
    assert charged(stripe_sandbox) == []


def test_the_same_card_again_tries_nothing(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    before = invoice_of(engine, invoice_id).next_attempt_at

    put_on(engine, client, holder, now=NOW + DAY)
    sweep(engine, vendors, now=NOW + DAY)

    method = card_of(engine, client)
    assert method is not None
    assert method.created_at == NOW
    assert invoice_of(engine, invoice_id).next_attempt_at == before
    assert invoice_of(engine, invoice_id).failures == 1
    assert len(attempts_of(engine)) == 1


def test_the_same_stopped_card_again_stays_stopped(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client, HARD)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)

    put_on(engine, client, holder)
    sweep(engine, vendors)

    method = card_of(engine, client)
    assert method is not None
    assert method.stopped_for == "lost_card"
    assert len(keys_sent(stripe_sandbox)) == 1


@pytest.mark.parametrize("old", [SOFT, HARD, "pm_card_chargeDeclinedExpiredCard"])
def test_what_an_old_card_says_late_does_not_stop_the_new_one(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    old: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, old)
    ids = [an_open_invoice(engine, account, client, price) for price in ("10.00", "20.00")]
    stripe_sandbox.control.add_fault("lost_answer", times=None, path=INTENTS)
    sweep(engine, vendors)
    stripe_sandbox.control.clear_faults()
    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors)
    assert attempt_states(engine) == ["unknown"], "the new card waits for the old one's answer"

    sweep(engine, vendors, now=NOW + MINUTE)

    assert attempt_states(engine) == ["declined", "succeeded", "succeeded"]
    assert [invoice_of(engine, one).failures for one in ids] == [0, 0]
    # The client has done what that mail would ask for.
    assert mails(engine) == ["receipt", "receipt"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000])


def test_an_old_card_that_wants_authentication_late_is_withdrawn_for_the_new_one(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    an_open_invoice(engine, account, client)
    stripe_sandbox.control.add_fault("lost_answer", times=None, path=INTENTS)
    sweep(engine, vendors)
    stripe_sandbox.control.clear_faults()
    give_card(engine, stripe_sandbox, client)

    sweep(engine, vendors, now=NOW + MINUTE)

    assert attempt_states(engine) == ["canceled", "succeeded"]
    statuses = [one["status"] for one in stripe_sandbox.control.payment_intents()]
    assert statuses == ["canceled", "succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_an_old_card_that_pays_late_is_not_followed_by_the_new_one(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"])

    sweep(engine, vendors, now=NOW + DAY)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_new_card_is_charged_once_what_waited_for_the_client_is_cancelled(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)

    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors)

    assert attempt_states(engine) == ["canceled", "succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_new_card_is_not_charged_for_what_the_client_has_just_authenticated(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    pay_waiting_intents(stripe_sandbox)

    give_card(engine, stripe_sandbox, client)
    sweep(engine, vendors)

    assert attempt_states(engine) == ["succeeded"]
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize("outcome", ["succeeded", "insufficient_funds"])
def test_a_card_that_is_taken_away_does_not_take_back_a_charge_under_way(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    outcome: str,
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    take_card(engine, client)
    [intent] = stripe_sandbox.control.payment_intents()
    stripe_sandbox.control.settle(intent["id"], outcome)

    for day in (1, 5, 10, 20):
        sweep(engine, vendors, now=NOW + day * DAY)

    paid = outcome == "succeeded"
    assert invoice_of(engine, invoice_id).status == ("paid" if paid else "open")
    assert invoice_of(engine, invoice_id).next_attempt_at is None
    assert len(attempts_of(engine)) == 1
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000] if paid else [])


def test_a_card_that_was_taken_away_and_is_given_again_counts_as_new(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    give_money(stripe_sandbox)
    take_card(engine, client)

    put_on(engine, client, holder)
    sweep(engine, vendors)

    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_only_the_accounts_own_clients_have_a_card(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    with Session(engine) as session:
        stranger = create_account(session, "Another").id
        session.commit()
    nobody = Client(id=uuid4())

    for owner, whose in ((stranger, client), (account.id, nobody)):
        with Session(engine) as session, pytest.raises(NotFound) as refused:
            set_billing_method(
                session,
                owner,
                whose.id,
                stripe_customer="cus_1",
                payment_method="pm_1",
                now=NOW,
                requested_by="test",
            )
        assert refused.value.code == "client_not_found"
        with Session(engine) as session, pytest.raises(NotFound):
            remove_billing_method(session, owner, whose.id)
    assert card_of(engine, client) is None


def test_a_card_that_is_not_there_cannot_be_taken_away(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    with Session(engine) as session, pytest.raises(NotFound) as refused:
        remove_billing_method(session, account.id, client.id)
    assert refused.value.code == "billing_method_not_found"
