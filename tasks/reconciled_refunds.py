"""Refunds to cards, by our record and by Stripe's."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.orm import Session

from billing.credit_notes import Destination
from billing.reconciliation import (
    REPAIRED,
    Compared,
    OurRefund,
    TheirRecord,
    Told,
    refund_difference,
)
from billing.refunds import UNSETTLED_REFUNDS, RefundState
from gateways.cards import RefundStatus
from gateways.merchants import Merchant
from gateways.payment_records import PaymentRecords, RecordedRefund, RecordPage, Window
from models import Payment, PaymentAttempt, Refund
from tasks.collecting import wake_collection
from tasks.comparing import Comparison, Looked, id_in
from tasks.refunds import lock_refund, settle_refund

MAY_COME_BACK = timedelta(days=45)
"""How long after a refund its bank may still give it back."""

_TOLD = {
    RefundStatus.SUCCEEDED: Told.DONE,
    RefundStatus.PROCESSING: Told.UNDER_WAY,
    RefundStatus.FAILED: Told.FAILED,
}


class Refunds:
    """Refunds of a window, and those of ours that may have ended or come back since."""

    compared = Compared.REFUNDS

    def read(
        self, records: PaymentRecords, window: Window, merchant: Merchant, after: str | None
    ) -> RecordPage[RecordedRefund]:
        """A page of Stripe's; see ``Kind``."""
        return records.refunds(window, merchant, after)

    def compare(
        self,
        session: Session,
        comparison: Comparison,
        merchant_id: UUID | None,
        page: Sequence[RecordedRefund],
    ) -> list[Looked]:
        """Those of a page that are of our money; see ``Kind``."""
        known = _known(
            session,
            comparison,
            [one.report.refund for one in page],
            {id_in(one.report.metadata, "refund"): one.report.refund for one in page},
        )
        paid_by = {
            attempt.payment_intent: attempt for attempt in _refunded(session, comparison, page)
        }
        looked = []
        for theirs in page:
            refund, made_at = known.get(theirs.report.refund, (None, None))
            attempt = paid_by.get(theirs.payment_intent)
            if refund is None and attempt is None:
                # Of money that never came through us.
                continue
            if refund is None and attempt is not None:
                made_at = attempt.merchant_id
            ours = None if refund is None else _ours(refund)
            differs = refund_difference(ours, _theirs(theirs)) is not None
            looked.append(Looked(theirs.report.refund, made_at, differs=differs))
        return looked

    def ours(self, comparison: Comparison) -> Select[str | None, UUID | None]:
        """Refunds of the window, those of late, and those without an outcome; see ``Kind``."""
        made_in_window = and_(
            Refund.created_at >= comparison.window.since,
            Refund.created_at < comparison.window.until,
        )
        of_late = Refund.succeeded_at >= comparison.run.now - MAY_COME_BACK
        return (
            select(Refund.stripe_refund, PaymentAttempt.merchant_id)
            .join(Payment, Payment.id == Refund.payment_id)
            .join(PaymentAttempt, PaymentAttempt.id == Payment.attempt_id)
            .where(
                Refund.account_id == comparison.account_id,
                Refund.destination == Destination.CARD,
                Refund.stripe_refund.is_not(None),
                or_(
                    and_(Refund.state == RefundState.SUCCEEDED, or_(made_in_window, of_late)),
                    Refund.state.in_(UNSETTLED_REFUNDS),
                ),
            )
        )

    def ask(
        self, records: PaymentRecords, stripe_id: str, merchant: Merchant
    ) -> RecordedRefund | None:
        """One refund; see ``Kind``."""
        return records.refund(stripe_id, merchant)

    def settle(
        self, session: Session, comparison: Comparison, asked: Looked, found: RecordedRefund | None
    ) -> None:
        """Look again under its locks; see ``Kind``."""
        now = comparison.run.now
        named = {} if found is None else {id_in(found.report.metadata, "refund"): asked.stripe_id}
        known, made_at = _known(session, comparison, [asked.stripe_id], named).get(
            asked.stripe_id, (None, asked.merchant_id)
        )
        if made_at != asked.merchant_id:
            # It was made elsewhere, and that is where it is asked for.
            return
        refund = None if known is None else lock_refund(session, known.id)
        acknowledged = comparison.look_again(session, asked.stripe_id)
        ours = None if refund is None else _ours(refund)
        theirs = None if found is None else _theirs(found)
        difference = refund_difference(ours, theirs)
        if difference is None:
            return
        of = refund or (found and next(iter(_refunded(session, comparison, [found])), None))
        is_repaired = False
        if difference in REPAIRED and refund is not None and found is not None:
            settle_refund(
                session,
                refund.id,
                found.report,
                now=now,
                requested_by=comparison.asked_by,
            )
            wake_collection(session, [refund.client_id], now=now, requested_by=comparison.asked_by)
            is_repaired = refund_difference(_ours(refund), theirs) is None
        comparison.write_down(
            session,
            difference,
            repaired=is_repaired,
            acknowledged=acknowledged,
            stripe_id=asked.stripe_id,
            merchant_id=asked.merchant_id,
            subject_id=None if refund is None else refund.id,
            client_id=of and of.client_id,
            invoice_id=of and of.invoice_id,
            currency=theirs.currency if theirs else ours and ours.currency,
            ours=ours and ours.state,
            theirs=found and found.report.status,
            our_amount=ours and ours.amount,
            their_amount=theirs and theirs.amount,
        )


def _known(
    session: Session,
    comparison: Comparison,
    ids: Collection[str],
    named: Mapping[UUID | None, str],
) -> dict[str, tuple[Refund, UUID | None]]:
    """Our refunds by Stripe's id, and who made each; one may not have been told that id yet."""
    found = session.execute(
        select(Refund, PaymentAttempt.merchant_id)
        .join(Payment, Payment.id == Refund.payment_id)
        .join(PaymentAttempt, PaymentAttempt.id == Payment.attempt_id)
        .where(
            Refund.account_id == comparison.account_id,
            or_(
                Refund.stripe_refund.in_(ids),
                Refund.stripe_refund.is_(None) & Refund.id.in_(named),
            ),
        )
    )
    return {
        refund.stripe_refund or named[refund.id]: (refund, merchant_id)
        for refund, merchant_id in found
    }


def _refunded(
    session: Session, comparison: Comparison, refunds: Sequence[RecordedRefund]
) -> Sequence[PaymentAttempt]:
    """Those of the refunded payments that came through us."""
    return session.scalars(
        select(PaymentAttempt).where(
            PaymentAttempt.account_id == comparison.account_id,
            PaymentAttempt.payment_intent.in_([one.payment_intent for one in refunds]),
        )
    ).all()


def _ours(refund: Refund) -> OurRefund:
    return OurRefund(RefundState(refund.state), refund.amount, refund.currency)


def _theirs(recorded: RecordedRefund) -> TheirRecord:
    return TheirRecord(_TOLD[recorded.report.status], recorded.amount, recorded.currency)
