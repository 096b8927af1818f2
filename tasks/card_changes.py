"""What a card that comes or goes means for what is tried by itself."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.orm import Session

from models import BackupMethod, BillingMethod
from models.billing_method import CARD_FIELDS
from tasks.auto_top_ups import begin_anew
from tasks.collecting import wake_collection
from tasks.top_ups import wake_top_ups
from tasks.tried_cards import backup_to_try, stop_tries, try_all_again


def begin_with_card(session: Session, client_id: UUID, *, now: datetime, requested_by: str) -> None:
    """Try a client's card at once for what is open, with a fresh schedule; top-ups begin anew."""
    session.flush()
    try_all_again(session, client_id, now)
    wake_collection(session, [client_id], now=now, requested_by=requested_by)
    begin_anew(session, client_id)
    wake_top_ups(session, [client_id], requested_by=requested_by)


def lose_card(session: Session, card: BillingMethod, *, now: datetime, requested_by: str) -> None:
    """Take a client's card away; the one behind it takes its place. Hold the client's lock."""
    client_id = card.client_id
    backup = session.get(BackupMethod, client_id)
    if backup is None:
        session.delete(card)
        session.flush()
        stop_tries(session, client_id)
        return
    for name in CARD_FIELDS:
        setattr(card, name, getattr(backup, name))
    session.delete(backup)
    session.flush()
    if card.stopped_for is None:
        begin_with_card(session, client_id, now=now, requested_by=requested_by)
    else:
        stop_tries(session, client_id)


def lose_backup(session: Session, backup: BackupMethod) -> None:
    """Take a client's second card away. Hold the client's lock."""
    client_id = backup.client_id
    session.delete(backup)
    session.flush()
    stop_waiting_for_backup(session, client_id)


def stop_waiting_for_backup(session: Session, client_id: UUID) -> None:
    """Try no invoice that was to be tried on the second card, where that is not to be any more."""
    card = session.get(BillingMethod, client_id)
    is_stopped = card is not None and card.stopped_for is not None
    if is_stopped and backup_to_try(session, client_id) is None:
        stop_tries(session, client_id)
