from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from billing.errors import NotFound, RuleViolation
from gateways.sandbox.stripe.cardholders import Cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client
from tasks.accounts import create_account
from tasks.billing_methods import remove_billing_method, set_billing_method
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.collecting import collect_client
from tests.cards import (
    AUTHENTICATED,
    BANK,
    HARD,
    QUEUES,
    SOFT,
    a_client_with,
    an_open_invoice,
    assert_books_agree,
    attempt_states,
    attempts_of,
    card_of,
    charged,
    do,
    give_card,
    give_money,
    invoice_of,
    jobs_of,
    mails,
    pay_waiting_intents,
    put_on,
    sweep,
    take_card,
)
from tests.jobs import wait_until_blocked
from tests.worlds import LIMIT_SECONDS, NOW, a_client, work

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


@pytest.mark.parametrize("is_good", [True, False], ids=["good by now", "as bad as before"])
def test_the_same_stopped_card_again_is_tried_at_once(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    is_good: bool,
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client, HARD)
    ids = [an_open_invoice(engine, account, client) for _ in range(2)]
    sweep(engine, vendors)
    if is_good:
        give_money(stripe_sandbox)

    put_on(engine, client, holder, now=NOW + DAY)
    method = card_of(engine, client)
    assert method is not None
    assert (method.stopped_for, method.created_at) == (None, NOW + DAY)
    # Enqueued with the card: no sweep is waited for. The same request again is nothing new.
    put_on(engine, client, holder, now=NOW + 2 * DAY)
    work(engine, now=NOW + DAY, gateways=vendors, queues=QUEUES)

    method = card_of(engine, client)
    assert method is not None
    assert method.stopped_for == (None if is_good else "lost_card")
    assert method.created_at == NOW + DAY
    tries = ["declined", "succeeded", "succeeded"] if is_good else ["declined"] * 2
    assert attempt_states(engine) == tries
    assert [invoice_of(engine, one).failures for one in ids] == ([0, 0] if is_good else [1, 0])
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 1000] if is_good else [])


def test_a_success_on_a_stopped_card_lets_the_clients_other_automatic_invoices_go_on(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    clicked, waiting = (
        an_open_invoice(engine, account, client, price) for price in ("10.00", "20.00")
    )
    by_hand = an_open_invoice(engine, account, client, "30.00", collect=False)
    sweep(engine, vendors)
    assert invoice_of(engine, waiting).next_attempt_at is None
    give_money(stripe_sandbox)

    do(engine, vendors, charge_invoice, account, invoice_id=clicked)

    assert invoice_of(engine, by_hand).next_attempt_at is None
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 2000])


def set_card(engine: Engine, client: Client, customer: str) -> None:
    put_on(engine, client, Cardholder(customer, "pm_1"))


def test_a_customer_at_stripe_is_one_accounts_and_may_be_several_of_its_clients(
    engine: Engine, account: Account
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Another")
    mine, also_mine = (a_client(engine, account, name=name) for name in ("Ada", "Bea"))
    theirs = a_client(engine, other)

    set_card(engine, mine, "cus_1")
    set_card(engine, also_mine, "cus_1")
    for _ in range(2):
        with pytest.raises(RuleViolation) as refused:
            set_card(engine, theirs, "cus_1")
        assert refused.value.code == "stripe_customer_taken"
        # Nor is it told whose.
        assert "Ada" not in str(refused.value)
        assert str(account.id) not in str(refused.value)
    assert card_of(engine, theirs) is None

    set_card(engine, theirs, "cus_2")
    with pytest.raises(RuleViolation):
        set_card(engine, theirs, "cus_1")
    method = card_of(engine, theirs)
    assert method is not None
    assert method.stripe_customer == "cus_2"


def test_of_two_accounts_that_claim_a_customer_at_the_same_moment_one_gets_it(
    engine: Engine, account: Account
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Another")
    mine, theirs = a_client(engine, account), a_client(engine, other)

    with ThreadPoolExecutor(1) as threads:
        with Session(engine) as session, session.begin():
            set_billing_method(
                session,
                account.id,
                mine.id,
                stripe_customer="cus_1",
                payment_method="pm_1",
                now=NOW,
                requested_by="test",
            )
            late = threads.submit(set_card, engine, theirs, "cus_1")
            wait_until_blocked(engine)
        refused = late.exception(LIMIT_SECONDS)

    assert isinstance(refused, RuleViolation)
    assert refused.code == "stripe_customer_taken"
    assert card_of(engine, mine) is not None
    assert card_of(engine, theirs) is None


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
            remove_billing_method(session, owner, whose.id, now=NOW, requested_by="test")
    assert card_of(engine, client) is None


def test_a_card_that_is_not_there_cannot_be_taken_away(engine: Engine, account: Account) -> None:
    client = a_client(engine, account)
    with Session(engine) as session, pytest.raises(NotFound) as refused:
        remove_billing_method(session, account.id, client.id, now=NOW, requested_by="test")
    assert refused.value.code == "billing_method_not_found"
