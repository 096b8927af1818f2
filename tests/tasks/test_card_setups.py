"""A client leaves a card on a page at Stripe: however that is told, it is put on it once."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_events import event_from
from models import Account, CardRole, CardSetup, Client
from models.database import database_now
from tasks.calls import Gateways
from tasks.card_setups import (
    SETUPS_LIVE,
    ask_after_setup,
    ask_for_setup,
    open_card_setup,
    settle_card_setup,
    settle_due_setups,
)
from tasks.webhooks import store_payment_event
from tests.cards import (
    HARD,
    QUEUES,
    a_client_with,
    an_open_invoice,
    ask,
    assert_books_agree,
    attempt_states,
    backup_of,
    card_of,
    hurry,
    invoice_of,
    jobs_of,
    sweep,
    tell_all,
)
from tests.worlds import a_client, together, work

SESSIONS = "/v1/checkout/sessions"
CUSTOMERS = "/v1/customers"
RETURN = "http://duecourse.example/p/token"


def start(engine: Engine, client: Client, role: CardRole = CardRole.DEFAULT) -> UUID:
    """The client presses the button; its page."""
    with Session(engine) as session, session.begin():
        return ask_for_setup(
            session,
            client.id,
            role,
            return_url=RETURN,
            now=database_now(session),
            requested_by="client",
        ).id


def look(engine: Engine, vendors: Gateways) -> None:
    work(engine, gateways=vendors, queues=QUEUES)


def opened(
    engine: Engine, vendors: Gateways, client: Client, role: CardRole = CardRole.DEFAULT
) -> CardSetup:
    """A page that is open at Stripe."""
    setup_id = start(engine, client, role)
    look(engine, vendors)
    setup = setup_of(engine, setup_id)
    assert setup.url is not None
    return setup


def setup_of(engine: Engine, setup_id: UUID) -> CardSetup:
    with Session(engine) as session:
        return session.get_one(CardSetup, setup_id)


def setups(engine: Engine) -> list[CardSetup]:
    with Session(engine) as session:
        return list(session.scalars(select(CardSetup).order_by(CardSetup.id)))


def come_back(engine: Engine, setup: CardSetup) -> None:
    with Session(engine) as session, session.begin():
        ask_after_setup(session, session.get_one(CardSetup, setup.id), requested_by="client")


def age(engine: Engine, setup_id: UUID, by: timedelta) -> None:
    """Let so much time have passed since a page was asked for."""
    with Session(engine) as session, session.begin():
        setup = session.get_one(CardSetup, setup_id)
        setup.created_at -= by
        setup.expires_at -= by


def posted(stripe: StripeSandbox, path: str) -> int:
    """How many requests made something there, without those that were answered as before."""
    made = stripe.control.requests(method="POST", path=path)
    return sum(request.status == 200 and not request.replayed for request in made)


def hear_events(
    engine: Engine, stripe: StripeSandbox, _setup: CardSetup, vendors: Gateways
) -> None:
    tell_all(engine, stripe)
    look(engine, vendors)


def hear_events_twice(
    engine: Engine, stripe: StripeSandbox, setup: CardSetup, vendors: Gateways
) -> None:
    hear_events(engine, stripe, setup, vendors)
    with Session(engine) as session, session.begin():
        for event in stripe.control.events("checkout.session.completed"):
            again = event_from({**event, "id": f"{event['id']}_again"})
            store_payment_event(session, again, requested_by="test")
    look(engine, vendors)


def return_to_us(
    engine: Engine, _stripe: StripeSandbox, setup: CardSetup, vendors: Gateways
) -> None:
    come_back(engine, setup)
    look(engine, vendors)


def wait_for_its_end(
    engine: Engine, _stripe: StripeSandbox, setup: CardSetup, vendors: Gateways
) -> None:
    age(engine, setup.id, SETUPS_LIVE + timedelta(minutes=2))
    ask(engine, settle_due_setups, None)
    look(engine, vendors)


Telling = Callable[[Engine, StripeSandbox, CardSetup, Gateways], None]


@pytest.mark.parametrize(
    "told",
    [hear_events, hear_events_twice, return_to_us, wait_for_its_end],
    ids=lambda one: one.__name__,
)
def test_a_card_that_a_client_leaves_pays_what_waits(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    told: Telling,
) -> None:
    client = a_client(engine, account, email="ada@imports.example")
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    assert attempt_states(engine) == []
    setup = opened(engine, vendors, client)

    stripe_sandbox.control.save_card(str(setup.checkout_session))
    told(engine, stripe_sandbox, setup, vendors)

    card = card_of(engine, client)
    assert card is not None
    with Session(engine) as session:
        assert session.get_one(Client, client.id).stripe_customer == card.stripe_customer
    assert (card.brand, card.last4) == ("visa", "4242")
    ended = setup_of(engine, setup.id)
    assert (ended.state, ended.payment_method) == ("completed", card.payment_method)
    assert invoice_of(engine, invoice_id).status == "paid"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])
    assert (posted(stripe_sandbox, CUSTOMERS), posted(stripe_sandbox, SESSIONS)) == (1, 1)


def test_a_client_that_has_a_card_leaves_another_at_the_same_customer(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, HARD)
    before = card_of(engine, client)
    setup = opened(engine, vendors, client)

    stripe_sandbox.control.save_card(str(setup.checkout_session), "pm_card_mastercard")
    tell_all(engine, stripe_sandbox)
    look(engine, vendors)

    card = card_of(engine, client)
    assert card is not None
    assert before is not None
    assert (card.stripe_customer, card.brand) == (before.stripe_customer, "mastercard")


def test_a_second_card_is_left_beside_the_first(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    setup = opened(engine, vendors, client, CardRole.BACKUP)

    stripe_sandbox.control.save_card(str(setup.checkout_session), "pm_card_mastercard")
    tell_all(engine, stripe_sandbox)
    look(engine, vendors)

    card, backup = card_of(engine, client), backup_of(engine, client)
    assert card is not None
    assert backup is not None
    assert (card.brand, backup.brand) == ("visa", "mastercard")


def test_who_presses_twice_comes_to_one_page(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)

    first, second = together(*[lambda: start(engine, client)] * 2)
    look(engine, vendors)
    third = start(engine, client)
    look(engine, vendors)

    assert first == second == third
    assert posted(stripe_sandbox, SESSIONS) == 1


def test_a_page_that_is_about_to_end_is_not_given_again_but_its_card_counts(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    old = opened(engine, vendors, client)
    age(engine, old.id, SETUPS_LIVE - timedelta(minutes=5))

    new = opened(engine, vendors, client)
    assert new.id != old.id
    stripe_sandbox.control.save_card(str(old.checkout_session))
    tell_all(engine, stripe_sandbox)
    look(engine, vendors)

    assert [one.state for one in setups(engine)] == ["completed", "open"]
    assert card_of(engine, client) is not None


def test_of_two_cards_the_one_that_was_asked_for_later_stays(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    old = opened(engine, vendors, client)
    age(engine, old.id, SETUPS_LIVE - timedelta(minutes=5))
    new = opened(engine, vendors, client)
    stripe_sandbox.control.save_card(str(old.checkout_session))
    stripe_sandbox.control.save_card(str(new.checkout_session), "pm_card_mastercard")

    come_back(engine, new)
    look(engine, vendors)
    tell_all(engine, stripe_sandbox)
    look(engine, vendors)

    assert [one.state for one in setups(engine)] == ["completed", "completed"]
    card = card_of(engine, client)
    assert card is not None
    assert card.brand == "mastercard"


def test_a_page_that_is_left_unused_ends_without_a_card(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    setup = opened(engine, vendors, client)
    come_back(engine, setup)
    look(engine, vendors)
    assert setup_of(engine, setup.id).state == "open", "the client may still leave one"

    stripe_sandbox.control.expire_session(str(setup.checkout_session))
    tell_all(engine, stripe_sandbox)
    look(engine, vendors)

    assert setup_of(engine, setup.id).state == "expired"
    assert card_of(engine, client) is None
    assert start(engine, client) != setup.id


@pytest.mark.parametrize("path", [CUSTOMERS, SESSIONS])
@pytest.mark.parametrize("fault", ["lost_answer", "server_error"])
def test_a_lost_answer_makes_neither_a_second_customer_nor_a_second_page(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    path: str,
    fault: str,
) -> None:
    client = a_client(engine, account)
    stripe_sandbox.control.add_fault(fault, times=4, path=path)  # type: ignore[arg-type]  # One of its names.
    setup_id = start(engine, client)
    look(engine, vendors)
    stripe_sandbox.control.clear_faults()
    hurry(engine, vendors, now=setup_of(engine, setup_id).created_at)

    setup = setup_of(engine, setup_id)
    assert setup.url is not None
    assert len(stripe_sandbox.control.objects("customer")) == 1
    assert len(stripe_sandbox.control.objects("checkout.session")) == 1


def test_nobody_is_sent_to_a_page_that_was_asked_for_long_ago(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    setup_id = start(engine, client)
    age(engine, setup_id, timedelta(minutes=11))

    look(engine, vendors)

    assert jobs_of(engine, open_card_setup)[-1].reason == "page_too_late"
    assert setup_of(engine, setup_id).state == "expired"
    assert posted(stripe_sandbox, SESSIONS) == 0


def test_a_page_that_was_never_opened_ends_by_itself(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    client = a_client(engine, account)
    setup_id = start(engine, client)
    age(engine, setup_id, SETUPS_LIVE + timedelta(minutes=2))

    ask(
        engine,
        settle_card_setup,
        account,
        client_id=client.id,
        setup_id=setup_id,
    )
    look(engine, vendors)

    assert setup_of(engine, setup_id).state == "expired"
