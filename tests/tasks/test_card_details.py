"""What a card is, as Stripe knows it; and cards that change, go or come back there."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from gateways.merchants import DEPLOYMENT, Merchant
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.saved_cards import NewCustomer, SavedCard, SavedCardsGateway
from gateways.stripe_events import event_from
from models import Account, BackupMethod, BillingMethod, Client, WebhookEvent
from tasks.calls import Gateways
from tasks.card_details import refresh_card
from tasks.detaching import detach_card
from tasks.webhooks import handle_payment_event, store_payment_event
from tests.cards import (
    BANK,
    EXPIRED,
    HARD,
    QUEUES,
    SOFT,
    a_client_with,
    an_open_invoice,
    assert_books_agree,
    attempt_states,
    attempts_of,
    backup_of,
    card_of,
    do,
    expire_leases,
    give_backup,
    give_card,
    give_money,
    hurry,
    invoice_of,
    jobs_of,
    name_unknown_card,
    put_on,
    sweep,
    take_backup,
    take_card,
    tell_all,
)
from tests.worlds import NOW, a_client, work

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def look(engine: Engine, vendors: Gateways) -> None:
    """What was asked of Stripe is done, and what follows."""
    work(engine, now=NOW, gateways=vendors, queues=QUEUES)


def hear(engine: Engine, stripe: StripeSandbox, vendors: Gateways) -> None:
    """All events come, and are handled."""
    tell_all(engine, stripe)
    look(engine, vendors)


def the_card(engine: Engine, client: Client) -> BillingMethod:
    card = card_of(engine, client)
    assert card is not None
    return card


def the_backup(engine: Engine, client: Client) -> BackupMethod:
    backup = backup_of(engine, client)
    assert backup is not None
    return backup


def outcomes(engine: Engine, event_type: str) -> list[str | None]:
    with Session(engine) as session:
        found = session.query(WebhookEvent).filter_by(type=event_type).order_by(WebhookEvent.id)
        return [event.outcome for event in found]


def is_attached(stripe: StripeSandbox, payment_method: str) -> bool:
    [found] = [
        one for one in stripe.control.objects("payment_method") if one["id"] == payment_method
    ]
    return found["customer"] is not None


def test_a_new_card_is_asked_what_it_is(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    give_card(engine, stripe_sandbox, client)
    give_backup(engine, stripe_sandbox, client)
    assert the_card(engine, client).checked_at is None

    look(engine, vendors)

    card, backup = the_card(engine, client), the_backup(engine, client)
    assert (card.kind, card.brand, card.last4, card.stopped_for) == ("card", "visa", "4242", None)
    assert card.exp_year is not None
    assert card.checked_at == NOW
    assert (backup.brand, backup.last4) == ("mastercard", "4444")


def test_a_bank_account_has_its_banks_name_and_no_expiry(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, BANK)

    look(engine, vendors)

    card = the_card(engine, client)
    assert (card.kind, card.last4, card.exp_year) == ("us_bank_account", "0009", None)
    assert card.brand


def test_an_attempt_keeps_what_its_card_was(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    look(engine, vendors)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)

    give_card(engine, stripe_sandbox, client, "pm_card_mastercard")
    look(engine, vendors)

    [attempt] = attempts_of(engine)
    assert (attempt.card_brand, attempt.card_last4) == ("visa", "4242")
    assert the_card(engine, client).brand == "mastercard"


def test_nothing_is_known_of_another_card_until_it_was_asked(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    look(engine, vendors)

    give_card(engine, stripe_sandbox, client, "pm_card_mastercard")

    card = the_card(engine, client)
    assert (card.kind, card.brand, card.last4, card.exp_year, card.checked_at) == (None,) * 5


@pytest.mark.parametrize("whose", ["nobody's", "another customer's"])
def test_a_card_that_is_not_there_is_stopped_and_tried_once_it_is(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    whose: str,
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client)
    if whose == "nobody's":
        name_unknown_card(engine, client)
    else:
        with engine.begin() as connection:
            connection.execute(text("UPDATE billing_methods SET stripe_customer = 'cus_other'"))
    invoice_id = an_open_invoice(engine, account, client)

    look(engine, vendors)

    assert the_card(engine, client).stopped_for == "resource_missing"
    assert attempt_states(engine) == [], "nobody is asked for money on no card"
    assert invoice_of(engine, invoice_id).next_attempt_at is None
    put_on(engine, client, holder)
    look(engine, vendors)
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


def test_a_second_card_takes_the_place_of_one_that_is_not_there(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    name_unknown_card(engine, client)
    second = give_backup(engine, stripe_sandbox, client).payment_method
    an_open_invoice(engine, account, client)

    look(engine, vendors)

    assert the_card(engine, client).payment_method == second
    assert the_backup(engine, client).stopped_for == "resource_missing"
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


class Asked:
    """The real saved cards, with something done once, when one of them was looked up."""

    def __init__(self, cards: SavedCardsGateway, then: Callable[[], object]) -> None:
        self._cards = cards
        self._then: Callable[[], object] | None = then

    def create_customer(self, new: NewCustomer) -> str:
        return self._cards.create_customer(new)

    def retrieve(self, payment_method: str, merchant: Merchant) -> SavedCard:
        try:
            return self._cards.retrieve(payment_method, merchant)
        finally:
            then, self._then = self._then, None
            if then is not None:
                then()

    def detach(self, payment_method: str, merchant: Merchant) -> None:
        self._cards.detach(payment_method, merchant)


def test_a_card_that_is_set_while_stripe_is_asked_is_asked_about_itself(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    name_unknown_card(engine, client)
    asked = Asked(vendors.saved_cards, lambda: give_card(engine, stripe_sandbox, client))

    look(engine, Gateways(saved_cards=asked))
    look(engine, vendors)

    card = the_card(engine, client)
    assert (card.stopped_for, card.brand, card.last4) == (None, "visa", "4242")


def test_a_card_that_its_bank_renews_is_tried_again_at_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client, EXPIRED)
    look(engine, vendors)
    ids = [an_open_invoice(engine, account, client) for _ in range(2)]
    sweep(engine, vendors)
    assert the_card(engine, client).stopped_for == "expired_card"
    give_money(stripe_sandbox)

    stripe_sandbox.control.update_card(holder.payment_method, exp_month=1, exp_year=2040)
    hear(engine, stripe_sandbox, vendors)

    card = the_card(engine, client)
    assert (card.exp_month, card.exp_year, card.stopped_for) == (1, 2040, None)
    assert outcomes(engine, "payment_method.automatically_updated") == ["asked"]
    assert {invoice_of(engine, one).status for one in ids} == {"paid"}
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000, 1000])


def test_news_of_a_card_that_is_told_twice_tries_it_once(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client, EXPIRED)
    look(engine, vendors)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    stripe_sandbox.control.update_card(holder.payment_method, exp_year=2040)
    hear(engine, stripe_sandbox, vendors)
    assert attempt_states(engine) == ["declined", "declined"]

    [told] = stripe_sandbox.control.events("payment_method.automatically_updated")
    with Session(engine) as session, session.begin():
        again = event_from({**told, "id": "evt_again"})
        store_payment_event(session, again, requested_by="test")
    look(engine, vendors)

    assert attempt_states(engine) == ["declined", "declined"]
    assert the_card(engine, client).stopped_for == "expired_card"


@pytest.mark.parametrize("card", [HARD, SOFT])
def test_an_update_mends_no_card_that_its_bank_refuses(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    card: str,
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client, card)
    look(engine, vendors)
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)

    stripe_sandbox.control.update_card(holder.payment_method, exp_year=2040)
    hear(engine, stripe_sandbox, vendors)

    assert attempt_states(engine) == ["declined"]
    assert the_card(engine, client).stopped_for == ("lost_card" if card == HARD else None)
    assert the_card(engine, client).exp_year == 2040


@pytest.mark.parametrize("how", ["the card is detached", "the customer is deleted"])
def test_a_card_that_is_gone_at_stripe_is_gone_here(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    how: str,
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client, SOFT)
    invoice_id = an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    with Session(engine) as session, session.begin():
        session.get_one(Client, client.id).stripe_customer = holder.customer

    if how == "the card is detached":
        vendors.saved_cards.detach(holder.payment_method, merchant=DEPLOYMENT)
    else:
        stripe_sandbox.control.delete_customer(holder.customer)
    hear(engine, stripe_sandbox, vendors)
    sweep(engine, vendors, now=NOW + 3 * DAY)

    assert card_of(engine, client) is None
    assert invoice_of(engine, invoice_id).next_attempt_at is None
    assert attempt_states(engine) == ["declined"]
    with Session(engine) as session:
        known = session.get_one(Client, client.id).stripe_customer
    assert known == (holder.customer if how == "the card is detached" else None)
    assert_books_agree(engine, account, stripe_sandbox, charges=[])


def test_a_second_card_moves_up_where_the_first_is_gone_at_stripe(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client, SOFT)
    second = give_backup(engine, stripe_sandbox, client).payment_method
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)

    vendors.saved_cards.detach(holder.payment_method, merchant=DEPLOYMENT)
    hear(engine, stripe_sandbox, vendors)

    assert the_card(engine, client).payment_method == second
    assert backup_of(engine, client) is None
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])
    # Told again it is nobody's.
    [told] = stripe_sandbox.control.events("payment_method.detached")
    with Session(engine) as session, session.begin():
        store_payment_event(session, event_from({**told, "id": "evt_2"}), requested_by="test")
    look(engine, vendors)
    assert outcomes(engine, "payment_method.detached") == ["removed", "not_ours"]
    assert the_card(engine, client).payment_method == second


def test_a_customers_two_cards_go_together(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client)
    give_backup(engine, stripe_sandbox, client)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE backup_methods SET stripe_customer = :one"), {"one": holder.customer}
        )

    stripe_sandbox.control.delete_customer(holder.customer)
    hear(engine, stripe_sandbox, vendors)

    assert card_of(engine, client) is None
    assert backup_of(engine, client) is None


@pytest.mark.parametrize("account_of_event", [None, "acct_somebody"])
def test_an_event_of_somebody_elses_card_changes_nothing(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    account_of_event: str | None,
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client)
    about = "pm_strange" if account_of_event is None else holder.payment_method
    told = stripe_sandbox.control.emit(
        "payment_method.detached",
        {"object": "payment_method", "type": "card", "id": about, "customer": None},
    )
    more = {} if account_of_event is None else {"account": account_of_event}
    with Session(engine) as session, session.begin():
        store_payment_event(session, event_from({**told, **more}), requested_by="test")

    look(engine, vendors)

    assert outcomes(engine, "payment_method.detached") == ["not_ours"]
    assert card_of(engine, client) is not None
    assert jobs_of(engine, handle_payment_event)[-1].state == "succeeded"


def test_a_card_that_is_taken_away_is_forgotten_at_stripe(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    first = give_card(engine, stripe_sandbox, client).payment_method
    second = give_backup(engine, stripe_sandbox, client).payment_method

    take_backup(engine, client)
    take_card(engine, client)
    look(engine, vendors)

    assert not is_attached(stripe_sandbox, first)
    assert not is_attached(stripe_sandbox, second)
    assert [job.state for job in jobs_of(engine, detach_card)] == ["succeeded"] * 2
    # What Stripe tells of it is no news.
    hear(engine, stripe_sandbox, vendors)
    assert outcomes(engine, "payment_method.detached") == ["not_ours"] * 2


def test_a_card_with_a_charge_under_way_is_forgotten_once_that_is_settled(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    bank = give_card(engine, stripe_sandbox, client, BANK).payment_method
    an_open_invoice(engine, account, client)
    sweep(engine, vendors)
    assert attempt_states(engine) == ["processing"]

    take_card(engine, client)
    look(engine, vendors)
    assert is_attached(stripe_sandbox, bank)
    stripe_sandbox.control.settle(str(attempts_of(engine)[0].payment_intent))
    hear(engine, stripe_sandbox, vendors)
    hurry(engine, vendors, now=NOW + DAY)

    assert not is_attached(stripe_sandbox, bank)
    assert_books_agree(engine, account, stripe_sandbox, charges=[1000])


@pytest.mark.parametrize("whose", ["another client's", "the same client's again"])
def test_a_card_that_is_charged_is_not_forgotten(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    *,
    whose: str,
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client)
    other = a_client(engine, account, name="Bea") if whose == "another client's" else client
    take_card(engine, client)
    put_on(engine, other, holder)

    look(engine, vendors)

    assert is_attached(stripe_sandbox, holder.payment_method)
    assert [job.reason for job in jobs_of(engine, detach_card)] == ["card_in_use"]


def test_a_card_is_forgotten_once_however_often_its_job_runs(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client(engine, account)
    holder = give_card(engine, stripe_sandbox, client)
    take_card(engine, client)
    look(engine, vendors)

    again = do(
        engine,
        vendors,
        detach_card,
        account,
        client_id=client.id,
        payment_method=holder.payment_method,
    )

    assert again.state == "succeeded"
    expire_leases(engine)
    assert not is_attached(stripe_sandbox, holder.payment_method)


def test_while_stripe_is_away_nothing_is_believed_of_a_card(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    stripe_sandbox.control.add_fault("server_error", times=None, method="GET")
    look(engine, vendors)
    assert (the_card(engine, client).checked_at, the_card(engine, client).stopped_for) == (
        None,
    ) * 2
    assert jobs_of(engine, refresh_card)[-1].state == "failed"
    stripe_sandbox.control.clear_faults()

    hurry(engine, vendors, now=NOW + MINUTE)

    assert the_card(engine, client).brand == "visa"
