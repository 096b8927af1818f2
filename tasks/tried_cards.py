"""What became of a try at a card, as it matters to that card and to what is tried by itself."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.orm import Session

from billing.declines import STOPS_AUTOMATIC_TRIES, DeclineClass
from billing.disputes import STOPPED_FOR_DISPUTE
from billing.invoice_states import InvoiceStatus
from models import BillingMethod, Invoice, PaymentAttempt
from tasks.auto_top_ups import begin_anew


class TriedCard:
    """The card of an attempt, in the transaction that settles it.

    ``is_current`` says that the client has no other by now: what becomes of an old card changes
    nothing about when a new one is tried.
    """

    def __init__(self, session: Session, attempt: PaymentAttempt) -> None:
        self._session = session
        self._attempt = attempt
        card = session.get(BillingMethod, attempt.client_id)
        is_the_same = card is not None and card.payment_method == attempt.payment_method
        # The client's card, if it is still the one that was tried.
        self._card = card if is_the_same else None
        self.is_current = card is None or is_the_same

    def paid(self, now: datetime) -> None:
        """It is good: what had stopped on it is tried again."""
        if self._card is not None and self._card.stopped_for not in {None, STOPPED_FOR_DISPUTE}:
            self._card.stopped_for = None
            try_all_again(self._session, self._attempt.client_id, now)
            begin_anew(self._session, self._attempt.client_id)

    def declined(self, kind: DeclineClass) -> None:
        """It refused: nothing is tried on it by itself any more where no try can help."""
        if self._card is None:
            return
        if kind in STOPS_AUTOMATIC_TRIES and self._card.stopped_for != STOPPED_FOR_DISPUTE:
            self._card.stopped_for = self._attempt.decline_code or kind
        if self._card.stopped_for is not None:
            stop_tries(self._session, self._attempt.client_id)


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
