"""What Stripe tells of clients' cards: whose card it is is looked up, and how it stands is asked.

Events come late and in any order, so only what is gone for good is taken as an event says it.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateways.payment_events import PaymentEvent
from models import Account, BackupMethod, BillingMethod, CardSetup, Client, WebhookEvent
from models.client import clients_for_update
from tasks.believed_events import comes_from
from tasks.card_changes import lose_backup, lose_card
from tasks.card_details import cards_of, look_at_cards
from tasks.card_setups import ask_after_setup
from tasks.kinds import Run
from tasks.merchants import merchant_of
from tasks.outcomes import Done

PAGE_OF_A_CARD = "card_setup"
"""In the metadata of a page on which a card is left, and of no other."""


def is_about_cards(told: PaymentEvent) -> bool:
    """Whether an event is about a card, a customer, or a page on which a card is left."""
    page = told.checkout
    return (
        told.card is not None
        or told.deleted_customer is not None
        or (page is not None and PAGE_OF_A_CARD in page.metadata)
    )


def handle_card_event(run: Run, session: Session, event: WebhookEvent, told: PaymentEvent) -> Done:
    """Do what follows of such an event for every client whom it is about."""
    asked_by = f"stripe:{event.event_id}"
    if told.checkout is not None:
        clients, outcome = _ask_after_page(session, event, told, asked_by), "asked"
    elif told.card is not None and told.card.customer is not None:
        clients, outcome = _holders(session, event, told), "asked"
        look_at_cards(session, [(one.account_id, one.id) for one in clients], requested_by=asked_by)
    else:
        clients, outcome = _holders(session, event, told), "removed"
        for client in clients:
            _lose(run, session, client, told, asked_by)
    event.outcome = outcome if clients else "not_ours"
    if clients:
        event.account_id = clients[0].account_id
    return Done(
        {
            "event": event.event_id,
            "clients": [str(client.id) for client in clients],
            "outcome": event.outcome,
        }
    )


def _holders(session: Session, event: WebhookEvent, told: PaymentEvent) -> Sequence[Client]:
    """The clients who have the card or the customer that an event is about, each locked."""
    ids: set[UUID] = set()
    for table in (BillingMethod, BackupMethod):
        is_held = (
            table.payment_method == told.card.payment_method
            if told.card is not None
            else table.stripe_customer == told.deleted_customer
        )
        ids.update(session.scalars(select(table.client_id).where(is_held)))
    if told.deleted_customer is not None:
        known = select(Client.id).where(Client.stripe_customer == told.deleted_customer)
        ids.update(session.scalars(known))
    locked = session.scalars(clients_for_update(list(ids))).all() if ids else []
    return [client for client in locked if _is_from_its_merchant(session, client, event, told)]


def _is_from_its_merchant(
    session: Session, client: Client, event: WebhookEvent, told: PaymentEvent
) -> bool:
    """Whether it happened where the client's account charges: elsewhere anybody may say anything."""
    merchant = merchant_of(session, session.get_one(Account, client.account_id))
    return comes_from(event, told, merchant)


def _lose(run: Run, session: Session, client: Client, told: PaymentEvent, asked_by: str) -> None:
    """Take from a client what is gone at Stripe; the second card first, which may be gone, too."""
    if told.deleted_customer is not None and client.stripe_customer == told.deleted_customer:
        client.stripe_customer = None
        client.customers_lost += 1
    for card in reversed(cards_of(session, client.id)):
        is_gone = (
            card.payment_method == told.card.payment_method
            if told.card is not None
            else card.stripe_customer == told.deleted_customer
        )
        if not is_gone:
            continue
        if isinstance(card, BillingMethod):
            lose_card(session, card, now=run.now, requested_by=asked_by)
        else:
            lose_backup(session, card)


def _ask_after_page(
    session: Session, event: WebhookEvent, told: PaymentEvent, asked_by: str
) -> Sequence[Client]:
    page = None if told.checkout is None else told.checkout.session
    setup = session.scalar(select(CardSetup).where(CardSetup.checkout_session == page))
    client = None if setup is None else session.get_one(Client, setup.client_id)
    if setup is None or client is None or not _is_from_its_merchant(session, client, event, told):
        return []
    ask_after_setup(session, setup, requested_by=asked_by)
    return [client]
