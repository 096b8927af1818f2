"""What became of a try at a card, as it matters to that card and to what is tried by itself."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from billing.collection import AttemptState, Origin
from billing.declines import STOPS_AUTOMATIC_TRIES, DeclineClass
from billing.disputes import STOPPED_FOR_DISPUTE
from billing.dunning import MAX_TRIES_IN_30_DAYS
from billing.errors import RuleViolation
from billing.invoice_states import InvoiceStatus
from models import BackupMethod, BillingMethod, Client, Invoice, PaymentAttempt
from models.billing_method import CARD_FIELDS, CardOfClient
from tasks.auto_top_ups import begin_anew
from tasks.merchants import is_charged_through


class TriedCard:
    """The card of an attempt, in the transaction that settles it.

    ``is_current`` says that the client has no other by now: what becomes of an old card changes
    nothing about when a new one is tried. ``is_backup`` says that it is the one behind a card that
    was refused.
    """

    def __init__(self, session: Session, attempt: PaymentAttempt) -> None:
        self._session = session
        self._attempt = attempt
        card = session.get(BillingMethod, attempt.client_id)
        is_the_same = card is not None and card.payment_method == attempt.payment_method
        # Of the first card's tries it decides nothing.
        backup = None if is_the_same else session.get(BackupMethod, attempt.client_id)
        is_second = backup is not None and backup.payment_method == attempt.payment_method
        self._main = card
        self._backup = backup
        # The client's card, if it is still the one that was tried.
        self._card = card if is_the_same else backup if is_second else None
        self.is_backup = (
            not is_the_same and is_second and card is not None and card.stopped_for is not None
        )
        self.is_current = card is None or is_the_same or self.is_backup

    def paid(self, now: datetime) -> None:
        """It is good: what had stopped on it is tried again, or on the one that it stood behind.

        One that is disputed stays stopped: that it can be charged is not what is in question.
        """
        if self._card is None:
            return
        was_stopped = self._card.stopped_for not in {None, STOPPED_FOR_DISPUTE}
        if was_stopped:
            self._card.stopped_for = None
        if self._stood_in and self._main is not None and self._backup is not None:
            change_places(self._session, self._main, self._backup)
        elif not was_stopped or self._card is not self._main:
            return
        try_all_again(self._session, self._attempt.client_id, now)
        begin_anew(self._session, self._attempt.client_id)

    def declined(self, kind: DeclineClass) -> None:
        """It refused: nothing is tried on it by itself any more where no try can help."""
        if self._card is None:
            return
        if kind in STOPS_AUTOMATIC_TRIES and self._card.stopped_for != STOPPED_FOR_DISPUTE:
            self._card.stopped_for = self._attempt.decline_code or kind
        if self._card.stopped_for is not None and (self._card is self._main or self.is_backup):
            stop_tries(self._session, self._attempt.client_id)

    def gives_way(self, kind: DeclineClass) -> BackupMethod | None:
        """The client's second card, where it is to be tried after this one refused."""
        is_refused = kind in STOPS_AUTOMATIC_TRIES and self._attempt.origin == Origin.AUTOMATIC
        if not is_refused or self._card is None or self._card is not self._main:
            return None
        return backup_to_try(self._session, self._attempt.client_id)

    @property
    def _stood_in(self) -> bool:
        """Whether it was tried for an invoice by itself, in the other's place."""
        return (
            self.is_backup
            and self._attempt.origin == Origin.AUTOMATIC
            and self._attempt.invoice_id is not None
        )


def backup_to_try(session: Session, client_id: UUID) -> BackupMethod | None:
    """A client's second card, if it is to be tried by itself where the first one is refused."""
    backup = session.get(BackupMethod, client_id)
    if backup is None or backup.stopped_for is not None:
        return None
    if not is_charged_through(session, backup):
        return None
    return backup if session.get_one(Client, client_id).use_backup_card else None


def change_places(session: Session, card: BillingMethod, backup: BackupMethod) -> None:
    """Make the second card the first one, and the first one the second. Hold the client's lock."""
    first = {name: getattr(card, name) for name in CARD_FIELDS}
    for name in CARD_FIELDS:
        setattr(card, name, getattr(backup, name))
        setattr(backup, name, first[name])
    session.flush()


def stop_tries(session: Session, client_id: UUID) -> None:
    """Try nothing of a client's by itself any more; a new card starts its tries again."""
    session.execute(
        update(Invoice)
        .where(Invoice.client_id == client_id, Invoice.next_attempt_at.is_not(None))
        .values(next_attempt_at=None)
    )


def try_all_again(session: Session, client_id: UUID, now: datetime) -> None:
    """Let a client's automatic invoices be tried at once, with a fresh schedule."""
    session.execute(
        update(Invoice)
        .where(
            Invoice.client_id == client_id,
            Invoice.status == InvoiceStatus.OPEN,
            Invoice.auto_collect,
        )
        .values(next_attempt_at=now, failures=0)
    )


def require_tries_left(
    session: Session, invoice: Invoice, method: CardOfClient, *, now: datetime
) -> None:
    """Check that the card networks allow another try of an invoice on this card.

    Raises:
        RuleViolation: It was tried too often of late (``too_many_tries``).
    """
    if invoice.attempt_count < MAX_TRIES_IN_30_DAYS:
        # On all its cards, at any time.
        return
    tries = session.scalar(
        select(func.count()).where(
            PaymentAttempt.invoice_id == invoice.id,
            PaymentAttempt.payment_method == method.payment_method,
            PaymentAttempt.created_at > now - timedelta(days=30),
            ~PaymentAttempt.is_unsent,
            # What Stripe refused without asking the card has no class, and was no try of it.
            or_(
                PaymentAttempt.state != AttemptState.DECLINED,
                PaymentAttempt.decline_class.is_not(None),
            ),
        )
    )
    if tries is not None and tries >= MAX_TRIES_IN_30_DAYS:
        raise RuleViolation(
            "too_many_tries", f"this card was tried {tries} times in 30 days: use another"
        )
