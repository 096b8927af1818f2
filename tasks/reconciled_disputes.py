"""Disputes of card payments, by our record and by Stripe's."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.disputes import DisputeState
from billing.reconciliation import REPAIRED, DisputeRecord, dispute_difference
from gateways.disputes import DisputeReport
from gateways.payment_records import RecordPage
from models import Dispute, Payment, PaymentAttempt
from models.client import clients_for_update
from models.dispute import dispute_for_update
from tasks.calls import Step, go_on
from tasks.collecting import wake_collection
from tasks.comparing import Comparison, Part, asking
from tasks.disputes import STATES, settle_dispute
from tasks.merchants import merchant_that_took

_Asked = tuple[UUID, str]
"""The disputed payment, and Stripe's id of the dispute."""


class DisputeComparison:
    """Goes through Stripe's disputes of the window, then through ours that were not among them."""

    def __init__(self, comparison: Comparison, then: Part) -> None:
        self._comparison = comparison
        self._then = then
        self._seen: set[str] = set()

    def read(self, after: str | None = None) -> Step:
        """Compare the next page of Stripe's."""
        window, merchant = self._comparison.window, self._comparison.merchant
        return asking(
            lambda gateways: gateways.payment_records.disputes(window, merchant, after),
            self._compare,
        )

    def _compare(self, session: Session, page: RecordPage[DisputeReport]) -> Step:
        payments = self._payments_of(session, page.records)
        known = {
            dispute.stripe_dispute: _ours(dispute)
            for dispute in session.scalars(
                select(Dispute).where(
                    Dispute.stripe_dispute.in_([report.dispute for report in page.records])
                )
            )
        }
        doubts: list[_Asked] = []
        for report in page.records:
            payment_id = payments.get(report.payment_intent)
            if payment_id is None:
                # Of money that never came through us, or is not written down: that is listed.
                continue
            self._seen.add(report.dispute)
            self._comparison.count(session, disputes=1)
            if dispute_difference(known.get(report.dispute), _theirs(report)) is not None:
                doubts.append((payment_id, report.dispute))
        following = self._ask_for_others if page.after is None else self._read_after(page.after)
        return self._ask_for(doubts, following, session)

    def _read_after(self, after: str) -> Part:
        return lambda _session: self.read(after)

    def _payments_of(
        self, session: Session, reports: Sequence[DisputeReport]
    ) -> dict[str | None, UUID]:
        """The payments that these are about, by Stripe's id of them."""
        rows = session.execute(
            select(PaymentAttempt.payment_intent, Payment.id)
            .join(Payment, Payment.attempt_id == PaymentAttempt.id)
            .where(
                PaymentAttempt.account_id == self._comparison.account_id,
                PaymentAttempt.payment_intent.in_([report.payment_intent for report in reports]),
            )
        )
        return dict(rows.all())

    def _ask_for_others(self, session: Session) -> Step:
        """Ask for each dispute of ours that was not listed."""
        window = self._comparison.window
        begun = session.execute(
            select(Dispute.payment_id, Dispute.stripe_dispute).where(
                Dispute.account_id == self._comparison.account_id,
                Dispute.disputed_at >= window.since,
                Dispute.disputed_at < window.until,
                Dispute.stripe_dispute.not_in(self._seen),
            )
        )
        unseen: list[_Asked] = [(payment_id, known) for payment_id, known in begun]
        self._comparison.count(session, disputes=len(unseen))
        return self._ask_for(unseen, self._then, session)

    def _ask_for(self, asked: Sequence[_Asked], then: Part, session: Session) -> Step:
        """Ask for each by itself: what was listed may be older by now than what we have written."""
        if not asked:
            return then(session)
        (payment_id, known), *others = asked
        payment = session.get_one(Payment, payment_id)
        attempt = session.get_one(PaymentAttempt, payment.attempt_id)
        merchant = merchant_that_took(session, attempt)

        def compare(session: Session, report: DisputeReport | None) -> Step:
            self._settle(payment_id, known, report, session)
            # In a transaction of its own: this one holds the locks of another client.
            return go_on(partial(self._ask_for, others, then))

        return asking(lambda gateways: gateways.payment_records.dispute(known, merchant), compare)

    def _settle(
        self, payment_id: UUID, known: str, report: DisputeReport | None, session: Session
    ) -> None:
        """Look again, now that nobody else can write our record; mend what is safe, list the rest."""
        comparison, now = self._comparison, self._comparison.run.now
        payment = session.get_one(Payment, payment_id)
        session.scalars(clients_for_update([payment.client_id])).one()
        dispute = session.scalars(dispute_for_update(known)).one_or_none()
        ours = None if dispute is None else _ours(dispute)
        theirs = None if report is None else _theirs(report)
        difference = dispute_difference(ours, theirs)
        if difference is None:
            return
        comparison.write_down(
            session,
            difference,
            stripe_id=known,
            subject_id=None if dispute is None else dispute.id,
            client_id=payment.client_id,
            invoice_id=payment.invoice_id,
            currency=payment.currency,
            ours=ours and ours.state,
            theirs=report and report.status,
            our_amount=ours and ours.amount,
            their_amount=theirs and theirs.amount,
        )
        if difference in REPAIRED and report is not None:
            settle_dispute(
                session,
                payment,
                report,
                told_at=now,
                now=now,
                requested_by=comparison.asked_by,
            )
            wake_collection(session, [payment.client_id], now=now, requested_by=comparison.asked_by)


def _ours(dispute: Dispute) -> DisputeRecord:
    return DisputeRecord(DisputeState(dispute.state), dispute.amount, dispute.currency)


def _theirs(report: DisputeReport) -> DisputeRecord:
    return DisputeRecord(STATES[report.status], report.amount, report.currency)
