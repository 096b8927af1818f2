"""What vendors tell of clients' cards: who has the card is looked up, and how it stands is asked."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateways.stripe_card_news import CardNews, CardNewsKind
from models import Account, BackupMethod, BillingMethod, CardSetup, Client, WebhookEvent
from models.client import clients_for_update
from tasks.card_changes import lose_backup, lose_card
from tasks.card_details import cards_of, look_at_cards
from tasks.card_setups import ask_after_setup
from tasks.kinds import Run
from tasks.merchants import merchant_of
from tasks.outcomes import Done

NOT_OURS = "not_ours"


def handle_card_news(run: Run, session: Session, event: WebhookEvent, news: CardNews) -> Done:
    """Do what follows of an event about a card, a customer, or a page on which a card is left."""
    asked_by = f"stripe:{event.event_id}"
    if news.kind is CardNewsKind.PAGE_ENDED:
        clients = _ask_after_page(session, news, asked_by)
    else:
        holders = [
            client
            for client in _holders(session, news)
            if _is_from_its_merchant(session, client, news)
        ]
        clients = [client.id for client in holders]
        if news.kind is CardNewsKind.UPDATED:
            look_at_cards(
                session,
                [(client.account_id, client.id) for client in holders],
                requested_by=asked_by,
            )
        else:
            for client in holders:
                _lose(run, session, client, news, asked_by)
    if not clients:
        event.outcome = NOT_OURS
        return Done({"event": event.event_id, "outcome": event.outcome})
    event.account_id = session.get_one(Client, clients[0]).account_id
    event.outcome = news.kind.value
    return Done(
        {
            "event": event.event_id,
            "clients": [str(client_id) for client_id in clients],
            "outcome": event.outcome,
        }
    )


def _holders(session: Session, news: CardNews) -> Sequence[Client]:
    """The clients who have what an event is about, each locked."""
    is_customer = news.kind is CardNewsKind.CUSTOMER_DELETED
    ids: set[UUID] = set()
    for table in (BillingMethod, BackupMethod):
        held = table.stripe_customer if is_customer else table.payment_method
        ids.update(session.scalars(select(table.client_id).where(held == news.about)))
    if is_customer:
        ids.update(session.scalars(select(Client.id).where(Client.stripe_customer == news.about)))
    return session.scalars(clients_for_update(list(ids))).all() if ids else []


def _is_from_its_merchant(session: Session, client: Client, news: CardNews) -> bool:
    """Whether it happened where the client's account charges: elsewhere anybody may say anything."""
    merchant = merchant_of(session, session.get_one(Account, client.account_id))
    return merchant.stripe_account == news.stripe_account


def _lose(run: Run, session: Session, client: Client, news: CardNews, asked_by: str) -> None:
    """Take from a client what is gone at Stripe; the second card first, which may be gone, too."""
    is_customer = news.kind is CardNewsKind.CUSTOMER_DELETED
    if is_customer and client.stripe_customer == news.about:
        client.stripe_customer = None
    for card in reversed(cards_of(session, client.id)):
        if news.about != (card.stripe_customer if is_customer else card.payment_method):
            continue
        if isinstance(card, BillingMethod):
            lose_card(session, card, now=run.now, requested_by=asked_by)
        else:
            lose_backup(session, card)


def _ask_after_page(session: Session, news: CardNews, asked_by: str) -> list[UUID]:
    setup = session.scalar(select(CardSetup).where(CardSetup.checkout_session == news.about))
    if setup is None:
        return []
    client = session.get_one(Client, setup.client_id)
    if not _is_from_its_merchant(session, client, news):
        return []
    ask_after_setup(session, setup, requested_by=asked_by)
    return [client.id]
