"""Refunds to cards, by our record and by Stripe's."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from billing.credit_notes import Destination
from billing.reconciliation import (
    REPAIRED,
    OurRefund,
    TheirRecord,
    Told,
    refund_difference,
)
from billing.refunds import RefundState
from gateways.cards import RefundStatus
from gateways.merchants import Merchant
from gateways.payment_records import RecordedRefund, RecordPage
from models import Payment, PaymentAttempt, Refund
from tasks.calls import Step, go_on
from tasks.collecting import wake_collection
from tasks.comparing import Comparison, Part, asking, id_in
from tasks.merchants import merchant_that_took
from tasks.refunds import lock_refund, settle_refund

_TOLD = {
    RefundStatus.SUCCEEDED: Told.DONE,
    RefundStatus.PROCESSING: Told.UNDER_WAY,
    RefundStatus.FAILED: Told.FAILED,
}

_Asked = tuple[UUID | None, str]
"""Our refund, if it is one, and Stripe's id of it."""


class RefundComparison:
    """Goes through Stripe's refunds of the window, then through ours that were not among them."""

    def __init__(self, comparison: Comparison, then: Part) -> None:
        self._comparison = comparison
        self._then = then
        self._seen: set[UUID] = set()

    def read(self, after: str | None = None) -> Step:
        """Compare the next page of Stripe's."""
        window, merchant = self._comparison.window, self._comparison.merchant
        return asking(
            lambda gateways: gateways.payment_records.refunds(window, merchant, after),
            self._compare,
        )

    def _compare(self, session: Session, page: RecordPage[RecordedRefund]) -> Step:
        known = self._told_of(session, page.records)
        paid_by = self._payments_of(session, page.records)
        compared = 0
        doubts: list[_Asked] = []
        for theirs in page.records:
            ours = known.get(theirs.report.refund)
            if ours is None and theirs.payment_intent not in paid_by:
                # Of money that never came through us.
                continue
            compared += 1
            if ours is not None:
                self._seen.add(ours.id)
            refund_id, ours_now = (None, None) if ours is None else (ours.id, _ours(ours))
            if refund_difference(ours_now, _theirs(theirs)) is not None:
                doubts.append((refund_id, theirs.report.refund))
        self._comparison.count(session, refunds=compared)
        following = self._ask_for_others if page.after is None else self._read_after(page.after)
        return self._ask_for(doubts, following, session)

    def _read_after(self, after: str) -> Part:
        return lambda _session: self.read(after)

    def _told_of(self, session: Session, recorded: Sequence[RecordedRefund]) -> dict[str, Refund]:
        """Our record of refunds, by Stripe's id; ours may not have been told that yet."""
        named = {id_in(one.report.metadata, "refund"): one.report.refund for one in recorded}
        ids = [one.report.refund for one in recorded]
        found = session.scalars(
            select(Refund).where(
                Refund.account_id == self._comparison.account_id,
                or_(Refund.stripe_refund.in_(ids), Refund.id.in_(named)),
            )
        )
        return {refund.stripe_refund or named[refund.id]: refund for refund in found}

    def _payments_of(self, session: Session, recorded: Sequence[RecordedRefund]) -> set[str | None]:
        """Those of the refunded payments that came through us."""
        return set(
            session.scalars(
                select(PaymentAttempt.payment_intent).where(
                    PaymentAttempt.account_id == self._comparison.account_id,
                    PaymentAttempt.payment_intent.in_([one.payment_intent for one in recorded]),
                )
            )
        )

    def _ask_for_others(self, session: Session) -> Step:
        """Ask for each refund of ours that was not listed."""
        window = self._comparison.window
        made = session.scalars(
            select(Refund).where(
                Refund.account_id == self._comparison.account_id,
                Refund.destination == Destination.CARD,
                Refund.state == RefundState.SUCCEEDED,
                Refund.created_at >= window.since,
                Refund.created_at < window.until,
            )
        )
        unseen: list[_Asked] = [
            (refund.id, str(refund.stripe_refund)) for refund in made if refund.id not in self._seen
        ]
        self._comparison.count(session, refunds=len(unseen))
        return self._ask_for(unseen, self._then, session)

    def _ask_for(self, asked: Sequence[_Asked], then: Part, session: Session) -> Step:
        """Ask for each by itself: what was listed may be older by now than what we have written."""
        if not asked:
            return then(session)
        (refund_id, known), *others = asked
        merchant = self._comparison.merchant
        if refund_id is not None:
            merchant = self._merchant_of(session, session.get_one(Refund, refund_id))

        def compare(session: Session, theirs: RecordedRefund | None) -> Step:
            self._settle(refund_id, known, theirs, session)
            # In a transaction of its own: this one holds the locks of another client.
            return go_on(partial(self._ask_for, others, then))

        return asking(lambda gateways: gateways.payment_records.refund(known, merchant), compare)

    def _merchant_of(self, session: Session, refund: Refund) -> Merchant:
        payment = session.get_one(Payment, refund.payment_id)
        return merchant_that_took(session, session.get_one(PaymentAttempt, payment.attempt_id))

    def _settle(
        self,
        refund_id: UUID | None,
        stripe_id: str,
        theirs: RecordedRefund | None,
        session: Session,
    ) -> None:
        """Look again, now that nobody else can write our record; mend what is safe, list the rest."""
        comparison, now = self._comparison, self._comparison.run.now
        refund = None if refund_id is None else lock_refund(session, refund_id)
        ours = None if refund is None else _ours(refund)
        difference = refund_difference(ours, None if theirs is None else _theirs(theirs))
        if difference is None:
            return
        refunded = refund or (theirs and self._refunded(session, theirs))
        comparison.write_down(
            session,
            difference,
            stripe_id=stripe_id,
            subject_id=refund_id,
            client_id=refunded and refunded.client_id,
            invoice_id=refunded and refunded.invoice_id,
            currency=theirs.currency if theirs else ours and ours.currency,
            ours=ours and ours.state,
            theirs=theirs and theirs.report.status,
            our_amount=ours and ours.amount,
            their_amount=theirs and theirs.amount,
        )
        if difference in REPAIRED and refund is not None and theirs is not None:
            settle_refund(
                session,
                refund.id,
                theirs.report,
                now=now,
                requested_by=comparison.asked_by,
            )
            wake_collection(session, [refund.client_id], now=now, requested_by=comparison.asked_by)

    def _refunded(self, session: Session, theirs: RecordedRefund) -> PaymentAttempt | None:
        """Whose payment it is that somebody has refunded."""
        return session.scalar(
            select(PaymentAttempt).where(PaymentAttempt.payment_intent == theirs.payment_intent)
        )


def _ours(refund: Refund) -> OurRefund:
    return OurRefund(RefundState(refund.state), refund.amount, refund.currency)


def _theirs(recorded: RecordedRefund) -> TheirRecord:
    return TheirRecord(_TOLD[recorded.report.status], recorded.amount, recorded.currency)
