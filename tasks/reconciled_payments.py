"""Payments, by our record and by Stripe's."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from billing.collection import AttemptState
from billing.reconciliation import (
    REPAIRED,
    OurPayment,
    TheirRecord,
    Told,
    payment_difference,
)
from gateways.cards import CardReport, CardStatus
from gateways.payment_records import RecordPage
from models import Payment, PaymentAttempt
from tasks.attempts import lock_attempt, settle_attempt
from tasks.calls import Step, go_on
from tasks.collecting import wake_collection
from tasks.comparing import Comparison, Part, asking, id_in
from tasks.merchants import merchant_that_took

_TOLD = {
    CardStatus.SUCCEEDED: Told.DONE,
    CardStatus.PROCESSING: Told.UNDER_WAY,
    CardStatus.NEEDS_ACTION: Told.UNDER_WAY,
    CardStatus.DECLINED: Told.FAILED,
    CardStatus.CANCELED: Told.FAILED,
}

_Asked = tuple[UUID | None, str]
"""Our attempt, if we know it, and Stripe's id of the payment."""


class PaymentComparison:
    """Goes through Stripe's payments of the window, then through ours that were not among them."""

    def __init__(self, comparison: Comparison, then: Part) -> None:
        self._comparison = comparison
        self._then = then
        self._seen: set[UUID] = set()

    def read(self, after: str | None = None) -> Step:
        """Compare the next page of Stripe's."""
        window, merchant = self._comparison.window, self._comparison.merchant
        return asking(
            lambda gateways: gateways.payment_records.payments(window, merchant, after),
            self._compare,
        )

    def _compare(self, session: Session, page: RecordPage[CardReport]) -> Step:
        # Others may be charged through the same Stripe account, and in other ways than ours.
        account = str(self._comparison.account_id)
        named = [report for report in page.records if report.metadata.get("account") == account]
        known = self._told_of(session, named)
        doubts: list[_Asked] = []
        for report in named:
            attempt, ours = known.get(report.payment_intent, (None, None))
            if attempt is not None:
                self._seen.add(attempt.id)
            if payment_difference(ours, _theirs(report)) is not None:
                attempt_id = None if attempt is None else attempt.id
                doubts.append((attempt_id, report.payment_intent))
        self._comparison.count(session, payments=len(named))
        following = self._ask_for_others if page.after is None else self._read_after(page.after)
        return self._ask_for(doubts, following, session)

    def _read_after(self, after: str) -> Part:
        return lambda _session: self.read(after)

    def _told_of(
        self, session: Session, reports: Sequence[CardReport]
    ) -> dict[str, tuple[PaymentAttempt, OurPayment]]:
        """Our record of payments, by Stripe's id; our attempt may not have been told that yet."""
        named = {id_in(report.metadata, "attempt"): report.payment_intent for report in reports}
        intents = [report.payment_intent for report in reports]
        rows = session.execute(
            select(PaymentAttempt, Payment.amount, Payment.currency)
            .outerjoin(Payment, Payment.attempt_id == PaymentAttempt.id)
            .where(
                PaymentAttempt.account_id == self._comparison.account_id,
                or_(PaymentAttempt.payment_intent.in_(intents), PaymentAttempt.id.in_(named)),
            )
        )
        return {
            attempt.payment_intent or named[attempt.id]: (
                attempt,
                _ours(attempt, received, currency),
            )
            for attempt, received, currency in rows
        }

    def _ask_for_others(self, session: Session) -> Step:
        """Ask for each payment of ours that was not listed: made before, or elsewhere, or never."""
        window = self._comparison.window
        begun = session.scalars(
            select(PaymentAttempt)
            .join(Payment, Payment.attempt_id == PaymentAttempt.id)
            .where(
                PaymentAttempt.account_id == self._comparison.account_id,
                PaymentAttempt.created_at >= window.since,
                PaymentAttempt.created_at < window.until,
            )
            .order_by(PaymentAttempt.id)
        )
        unseen: list[_Asked] = [
            (attempt.id, str(attempt.payment_intent))
            for attempt in begun
            if attempt.id not in self._seen
        ]
        self._comparison.count(session, payments=len(unseen))
        return self._ask_for(unseen, self._then, session)

    def _ask_for(self, asked: Sequence[_Asked], then: Part, session: Session) -> Step:
        """Ask for each by itself: what was listed may be older by now than what we have written."""
        if not asked:
            return then(session)
        (attempt_id, intent), *others = asked
        merchant = self._comparison.merchant
        if attempt_id is not None:
            merchant = merchant_that_took(session, session.get_one(PaymentAttempt, attempt_id))

        def compare(session: Session, report: CardReport | None) -> Step:
            self._settle(attempt_id, intent, report, session)
            # In a transaction of its own: this one holds the locks of another client.
            return go_on(partial(self._ask_for, others, then))

        return asking(lambda gateways: gateways.payment_records.payment(intent, merchant), compare)

    def _settle(
        self, attempt_id: UUID | None, intent: str, report: CardReport | None, session: Session
    ) -> None:
        """Look again, now that nobody else can write our record; mend what is safe, list the rest."""
        comparison, now = self._comparison, self._comparison.run.now
        attempt = None if attempt_id is None else lock_attempt(session, attempt_id)
        payment = session.scalar(select(Payment).where(Payment.attempt_id == attempt_id))
        received, currency = (None, None) if payment is None else (payment.amount, payment.currency)
        ours = None if attempt is None else _ours(attempt, received, currency)
        theirs = None if report is None else _theirs(report)
        difference = payment_difference(ours, theirs)
        if difference is None:
            return
        comparison.write_down(
            session,
            difference,
            stripe_id=intent,
            subject_id=attempt_id,
            client_id=None if attempt is None else attempt.client_id,
            invoice_id=None if attempt is None else attempt.invoice_id,
            currency=theirs.currency if theirs else ours and ours.currency,
            ours=ours and ours.state,
            theirs=report and report.status,
            our_amount=ours and ours.received,
            their_amount=theirs and theirs.amount,
        )
        if difference in REPAIRED and attempt is not None and report is not None:
            settle_attempt(
                session,
                attempt.id,
                report,
                now=now,
                requested_by=comparison.asked_by,
                is_current=True,
            )
            wake_collection(session, [attempt.client_id], now=now, requested_by=comparison.asked_by)


def _ours(attempt: PaymentAttempt, received: int | None, currency: str | None) -> OurPayment:
    return OurPayment(AttemptState(attempt.state), received, currency or attempt.currency)


def _theirs(report: CardReport) -> TheirRecord:
    return TheirRecord(_TOLD[report.status], report.amount_received, report.currency)
