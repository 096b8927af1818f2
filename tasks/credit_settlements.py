"""What follows from the news of a try at a card for credit: a deposit, or an automatic top-up."""

from datetime import datetime
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy.orm import Session

from billing.collection import AttemptPurpose
from billing.credit import CreditEntryKind
from billing.cycles import local_date
from billing.declines import DeclineClass
from billing.postings import LedgerEvent
from billing.top_ups import TopUpTries, after_decline, is_told
from models import Account, AutoTopUpSetting, Client, PaymentAttempt, PaymentSource
from tasks.auto_top_ups import ask_for_top_ups
from tasks.credit_balances import balance_of
from tasks.mailing import tell_payment_failed, tell_receipt
from tasks.payments import Received, flag_of_amount, receive
from tasks.refused_charges import Fault, fault_of
from tasks.tried_cards import TriedCard

_log = structlog.get_logger(__name__)


class CreditSettlement:
    """What follows from an attempt's news, in the transaction that holds its locks.

    A deposit that fails changes nothing but the attempt. A top-up counts what became of it: that
    decides when the next one is made.
    """

    def __init__(
        self, session: Session, attempt: PaymentAttempt, *, now: datetime, requested_by: str
    ) -> None:
        self._session = session
        self._attempt = attempt
        self._now = now
        self._requested_by = requested_by
        self._account = session.get_one(Account, attempt.account_id)
        self._client = session.get_one(Client, attempt.client_id)
        self._card = TriedCard(session, attempt)
        is_top_up = attempt.purpose == AttemptPurpose.TOP_UP
        # None as well where it was switched off meanwhile.
        self._setting = session.get(AutoTopUpSetting, attempt.client_id) if is_top_up else None

    def succeed(self, amount: int) -> None:
        """Money came: it is credit, and used at once unless told to wait."""
        self._card.paid(self._now)
        told = self._attempt.told
        payment = receive(
            self._session,
            self._account,
            Received(
                client_id=self._attempt.client_id,
                currency=self._attempt.currency,
                amount=amount,
                source=PaymentSource.CARD,
                paid_on=local_date(self._now, ZoneInfo(self._account.time_zone)),
                event=LedgerEvent.DEPOSIT,
                excess=CreditEntryKind.DEPOSIT,
                requested_by=self._requested_by,
                attempt_id=self._attempt.id,
                reference=told.get("reference"),
                note=told.get("note"),
                flagged=flag_of_amount(self._attempt, amount),
                applies_credit=told.get("apply", True),
            ),
            invoice=None,
            now=self._now,
        )
        tell_receipt(
            self._session, self._account, self._client, payment, requested_by=self._requested_by
        )
        self._begin_anew()
        self._wake_what_waited()

    def decline(self, kind: DeclineClass) -> None:
        """The card refused."""
        was_counted = self._attempt.decline_class is not None
        self._attempt.decline_class = kind
        self._card.declined(kind)
        if not was_counted:
            self._count(kind)
        self._wake_what_waited()

    def refuse(self, code: str) -> None:
        """Stripe did not even ask the card: whose fault that is decides what can help."""
        fault = fault_of(code)
        if fault is Fault.CARD:
            self.decline(DeclineClass.NEEDS_NEW_CARD)
            return
        _log.error(
            "charge refused",
            client=str(self._client.id),
            attempt=str(self._attempt.id),
            code=code,
        )
        self._pause(is_off=fault is Fault.AMOUNT)
        self._wake_what_waited()

    def wait_for_client(self) -> None:
        """Only the client can go on, by authenticating."""
        self._attempt.decline_class = DeclineClass.NEEDS_AUTHENTICATION
        self._count(DeclineClass.NEEDS_AUTHENTICATION)
        self._wake_what_waited()

    def stop(self) -> None:
        """Somebody cancelled it at Stripe: trying again by itself would undo that."""
        self._pause(is_off=True)
        self._wake_what_waited()

    def leave_to_people(self) -> None:
        """Money may have moved, and nobody here can tell: nothing is topped up by itself."""
        self.stop()

    def _begin_anew(self) -> None:
        """Count from here; and wait, where open invoices have used up what came.

        A small target and a large debt would otherwise have the card charged again and again,
        within seconds.
        """
        if self._setting is None:
            return
        self._setting.tries = TopUpTries()
        balance = balance_of(self._session, self._client.id, self._setting.currency)
        if balance < self._setting.threshold:
            self._pause()

    def _count(self, kind: DeclineClass) -> None:
        if self._setting is None or not self._card.is_current:
            return
        self._setting.tries = after_decline(self._setting.tries, kind, self._now)
        if is_told(self._setting.tries):
            tell_payment_failed(
                self._session,
                self._account,
                self._client,
                self._attempt,
                requested_by=self._requested_by,
            )

    def _pause(self, *, is_off: bool = False) -> None:
        """Hold the next top-up for something else than a decline."""
        if self._setting is not None:
            known = self._setting.tries
            self._setting.tries = TopUpTries(known.declines, self._now, known.is_off or is_off)

    def _wake_what_waited(self) -> None:
        """A top-up waits for a deposit, and for one on an old card; what came may not be enough."""
        self._session.flush()
        if self._setting is not None and self._setting.tries != TopUpTries():
            return
        ask_for_top_ups(self._session, [self._client.id], requested_by=self._requested_by)
