"""Cards whose payments are disputed: charged by nobody but staff, until the bank has decided."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from billing.disputes import STOPPED_FOR_DISPUTE, DisputeState
from models import BackupMethod, BillingMethod
from models.dispute import disputes_on
from tasks.auto_top_ups import ask_for_top_ups, begin_anew
from tasks.tried_cards import stop_tries, try_all_again


def stop_disputed_card(session: Session, client_id: UUID, payment_method: str | None) -> None:
    """Try nothing by itself on a client's card any more. Hold the client's lock.

    What was paid on a page was paid by a card that is not charged by itself: it has none here.
    """
    card = _card(session, client_id, payment_method)
    if card is not None:
        card.stopped_for = card.stopped_for or STOPPED_FOR_DISPUTE
    if isinstance(card, BillingMethod):
        stop_tries(session, client_id)


def resume_disputed_card(
    session: Session,
    client_id: UUID,
    payment_method: str | None,
    *,
    now: datetime,
    requested_by: str,
) -> None:
    """After a win try what waited on the card, if no other dispute of it is open or was lost.

    The caller holds the client's lock, and has the card charged (``wake_collection``).
    """
    card = _card(session, client_id, payment_method)
    if card is None or card.stopped_for != STOPPED_FOR_DISPUTE:
        return
    in_the_way = disputes_on(client_id, card.payment_method, DisputeState.OPEN, DisputeState.LOST)
    if session.scalar(in_the_way.limit(1)) is not None:
        return
    card.stopped_for = None
    if not isinstance(card, BillingMethod):
        return
    try_all_again(session, client_id, now)
    begin_anew(session, client_id)
    ask_for_top_ups(session, [client_id], requested_by=requested_by)


def stop_of(session: Session, client_id: UUID, payment_method: str) -> str | None:
    """Why a card that a client is put on is not tried by itself, if it is not."""
    is_open = disputes_on(client_id, payment_method, DisputeState.OPEN).limit(1)
    return None if session.scalar(is_open) is None else STOPPED_FOR_DISPUTE


def _card(
    session: Session, client_id: UUID, payment_method: str | None
) -> BillingMethod | BackupMethod | None:
    """The card, if its client is still on it, or has it as the second one."""
    card = session.get(BillingMethod, client_id, with_for_update=True)
    if card is not None and card.payment_method == payment_method:
        return card
    backup = session.get(BackupMethod, client_id, with_for_update=True)
    return backup if backup is not None and backup.payment_method == payment_method else None
