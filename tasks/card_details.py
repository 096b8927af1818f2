"""What the cards of clients are: asked of Stripe after each is set, and after news of it."""

from collections.abc import Iterable
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from billing.declines import MENDED_BY_AN_UPDATE
from billing.errors import NotFound
from gateways.cards import CardsUnavailable, ChargeRefused
from gateways.merchants import Merchant
from gateways.saved_cards import SavedCard
from models import Account, BackupMethod, BillingMethod, Client
from models.client import clients_for_update
from tasks.calls import Call, Gateways, Step
from tasks.card_changes import begin_with_card
from tasks.disputed_cards import stop_of
from tasks.enqueueing import enqueue_for_each
from tasks.kinds import Run, job
from tasks.merchants import merchant_of
from tasks.outcomes import Done
from tasks.tried_cards import backup_to_try, change_places, stop_tries

UNKNOWN_CARD = "resource_missing"
"""What a card is stopped for that Stripe does not know: the code by which a charge would fail."""

Card = BillingMethod | BackupMethod
Told = SavedCard | ChargeRefused


def look_at_cards(
    session: Session, clients: Iterable[tuple[UUID, UUID]], *, requested_by: str
) -> None:
    """Have Stripe asked what the cards of these clients are, each with its account."""
    enqueue_for_each(
        session,
        refresh_card,
        [(account_id, {"client_id": client_id}) for account_id, client_id in clients],
        requested_by=requested_by,
        unique_key=lambda arguments: f"refresh_card:{arguments['client_id']}",
    )


@job(queue="payments", subject="client")
def refresh_card(run: Run, session: Session, client_id: UUID) -> Step:
    """Write down what Stripe knows of a client's cards.

    A card that is not there is stopped. One that was stopped for what an update mends is tried
    again at once where it was updated.
    """
    client = _lock(session, client_id)
    merchant = merchant_of(session, session.get_one(Account, client.account_id))
    held = [card.payment_method for card in cards_of(session, client_id)]
    return Call(partial(_ask, held, merchant), partial(_record, run, client_id))


def cards_of(session: Session, client_id: UUID) -> list[Card]:
    """A client's cards, the one that is charged first."""
    cards = session.get(BillingMethod, client_id), session.get(BackupMethod, client_id)
    return [card for card in cards if card is not None]


def _lock(session: Session, client_id: UUID) -> Client:
    client = session.scalars(clients_for_update([client_id])).one_or_none()
    if client is None:
        raise NotFound("client", str(client_id))
    return client


def _ask(held: list[str], merchant: Merchant, gateways: Gateways) -> dict[str, Told]:
    return {method: look_at(method, merchant, gateways) for method in held}


def look_at(payment_method: str, merchant: Merchant, gateways: Gateways) -> Told:
    """A card as Stripe knows it, or that it knows none.

    Raises:
        CardsUnavailable: Stripe could not be asked.
    """
    try:
        return gateways.saved_cards.retrieve(payment_method, merchant)
    except ChargeRefused as answer:
        if answer.code != UNKNOWN_CARD:
            # A key that may not look says nothing of the card.
            raise CardsUnavailable(str(answer)) from answer
        return answer


def _record(run: Run, client_id: UUID, session: Session, told: dict[str, Told]) -> Done:
    _lock(session, client_id)
    # One that was set meanwhile has a job of its own. The second one first: it may take the
    # other's place.
    for card in reversed(cards_of(session, client_id)):
        if card.payment_method in told:
            note(run, session, card, told[card.payment_method])
    cards = [_as_result(card) for card in cards_of(session, client_id)]
    return Done({"client": str(client_id), "cards": cards})


def note(run: Run, session: Session, card: Card, told: Told) -> None:
    """Write down what Stripe says of a card, with all that follows. Hold the client's lock."""
    asked_by = f"job:{run.job_id}"
    client_id = card.client_id
    was_known = card.checked_at is not None
    before = (card.last4, card.exp_month, card.exp_year)
    card.checked_at = run.now
    if isinstance(told, ChargeRefused) or told.customer != card.stripe_customer:
        card.stopped_for = UNKNOWN_CARD
        session.flush()
        if isinstance(card, BillingMethod):
            _replace_unknown(run, session, card)
        return
    card.kind, card.brand, card.last4 = told.kind, told.brand, told.last4
    card.exp_month, card.exp_year = told.exp_month, told.exp_year
    is_updated = was_known and before != (card.last4, card.exp_month, card.exp_year)
    is_mended = card.stopped_for == UNKNOWN_CARD or (
        is_updated and card.stopped_for in MENDED_BY_AN_UPDATE
    )
    if is_mended:
        # Its disputes stop it all the same.
        card.stopped_for = stop_of(session, client_id, card.payment_method)
        if isinstance(card, BillingMethod) and card.stopped_for is None:
            begin_with_card(session, client_id, now=run.now, requested_by=asked_by)
    session.flush()


def _replace_unknown(run: Run, session: Session, card: BillingMethod) -> None:
    """Go on with the second card where the first one does not even exist."""
    backup = backup_to_try(session, card.client_id)
    if backup is None:
        stop_tries(session, card.client_id)
        return
    change_places(session, card, backup)
    begin_with_card(session, card.client_id, now=run.now, requested_by=f"job:{run.job_id}")


def _as_result(card: Card) -> dict[str, Any]:
    return {"payment_method": card.payment_method, "stopped_for": card.stopped_for}
