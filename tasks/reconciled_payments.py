"""Payments, by our record and by Stripe's."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.orm import Session

from billing.collection import AttemptState
from billing.reconciliation import (
    REPAIRED,
    Compared,
    OurPayment,
    TheirRecord,
    Told,
    payment_difference,
)
from gateways.cards import CardReport, CardStatus
from gateways.merchants import Merchant
from gateways.payment_records import PaymentRecords, RecordPage, Window
from models import Payment, PaymentAttempt
from models.payment_attempt import STILL_OPEN
from tasks.attempt_locks import lock_attempt
from tasks.collecting import wake_collection
from tasks.comparing import Comparison, Looked, id_in
from tasks.settling import settle_attempt

_TOLD = {
    CardStatus.SUCCEEDED: Told.DONE,
    CardStatus.PROCESSING: Told.UNDER_WAY,
    CardStatus.NEEDS_ACTION: Told.UNDER_WAY,
    CardStatus.DECLINED: Told.FAILED,
    CardStatus.CANCELED: Told.FAILED,
}


class Payments:
    """Payments of a window, and what ours still wait for, however old."""

    compared = Compared.PAYMENTS

    def read(
        self, records: PaymentRecords, window: Window, merchant: Merchant, after: str | None
    ) -> RecordPage[CardReport]:
        """A page of Stripe's; see ``Kind``."""
        return records.payments(window, merchant, after)

    def compare(
        self,
        session: Session,
        comparison: Comparison,
        merchant_id: UUID | None,
        page: Sequence[CardReport],
    ) -> list[Looked]:
        """Those of a page that are in our name; see ``Kind``."""
        # Others may be charged through the same Stripe account, and in other ways than ours.
        account = str(comparison.account_id)
        named = [report for report in page if report.metadata.get("account") == account]
        known = _known(
            session,
            comparison,
            [report.payment_intent for report in named],
            {id_in(report.metadata, "attempt"): report.payment_intent for report in named},
        )
        looked = []
        for report in named:
            attempt, payment = known.get(report.payment_intent, (None, None))
            ours = None if attempt is None else _ours(attempt, payment)
            looked.append(
                Looked(
                    report.payment_intent,
                    # Where it was made all news of it is, whoever else names it.
                    merchant_id if attempt is None else attempt.merchant_id,
                    differs=payment_difference(ours, _theirs(report)) is not None,
                )
            )
        return looked

    def ours(self, comparison: Comparison) -> Select[str | None, UUID | None]:
        """Payments begun in the window, and attempts that have no outcome yet; see ``Kind``."""
        began_in_window = and_(
            PaymentAttempt.created_at >= comparison.window.since,
            PaymentAttempt.created_at < comparison.window.until,
            select(Payment.id).where(Payment.attempt_id == PaymentAttempt.id).exists(),
        )
        return select(PaymentAttempt.payment_intent, PaymentAttempt.merchant_id).where(
            PaymentAttempt.account_id == comparison.account_id,
            PaymentAttempt.payment_intent.is_not(None),
            or_(began_in_window, PaymentAttempt.state.in_(STILL_OPEN)),
        )

    def ask(self, records: PaymentRecords, stripe_id: str, merchant: Merchant) -> CardReport | None:
        """One payment; see ``Kind``."""
        return records.payment(stripe_id, merchant)

    def settle(
        self, session: Session, comparison: Comparison, asked: Looked, found: CardReport | None
    ) -> None:
        """Look again under its locks; see ``Kind``."""
        now = comparison.run.now
        named = {} if found is None else {id_in(found.metadata, "attempt"): asked.stripe_id}
        known, _ = _known(session, comparison, [asked.stripe_id], named).get(
            asked.stripe_id, (None, None)
        )
        attempt = None if known is None else lock_attempt(session, known.id)
        if attempt is not None and attempt.merchant_id != asked.merchant_id:
            # It was made elsewhere, and that is where it is asked for.
            return
        acknowledged = comparison.look_again(session, asked.stripe_id)
        ours = None if attempt is None else _ours(attempt, _payment_of(session, attempt))
        theirs = None if found is None else _theirs(found)
        difference = payment_difference(ours, theirs)
        if difference is None:
            return
        is_repaired = False
        if difference in REPAIRED and attempt is not None and found is not None:
            settle_attempt(
                session,
                attempt.id,
                found,
                now=now,
                requested_by=comparison.asked_by,
                is_current=True,
            )
            wake_collection(session, [attempt.client_id], now=now, requested_by=comparison.asked_by)
            settled = _ours(attempt, _payment_of(session, attempt))
            is_repaired = payment_difference(settled, theirs) is None
        comparison.write_down(
            session,
            difference,
            repaired=is_repaired,
            acknowledged=acknowledged,
            stripe_id=asked.stripe_id,
            merchant_id=asked.merchant_id,
            subject_id=None if attempt is None else attempt.id,
            client_id=None if attempt is None else attempt.client_id,
            invoice_id=None if attempt is None else attempt.invoice_id,
            currency=theirs.currency if theirs else ours and ours.currency,
            ours=ours and ours.state,
            theirs=found and found.status,
            our_amount=ours and ours.received,
            their_amount=theirs and theirs.amount,
        )


def _known(
    session: Session,
    comparison: Comparison,
    intents: Collection[str],
    named: Mapping[UUID | None, str],
) -> dict[str, tuple[PaymentAttempt, Payment | None]]:
    """Our attempts by Stripe's id, and what came of each.

    One may not have been told that id yet: it is ``named`` there.
    """
    found = session.execute(
        select(PaymentAttempt, Payment)
        .outerjoin(Payment, Payment.attempt_id == PaymentAttempt.id)
        .where(
            PaymentAttempt.account_id == comparison.account_id,
            or_(
                PaymentAttempt.payment_intent.in_(intents),
                PaymentAttempt.payment_intent.is_(None) & PaymentAttempt.id.in_(named),
            ),
        )
    )
    return {
        attempt.payment_intent or named[attempt.id]: (attempt, payment)
        for attempt, payment in found
    }


def _payment_of(session: Session, attempt: PaymentAttempt) -> Payment | None:
    return session.scalar(select(Payment).where(Payment.attempt_id == attempt.id))


def _ours(attempt: PaymentAttempt, payment: Payment | None) -> OurPayment:
    return OurPayment(
        AttemptState(attempt.state),
        received=None if payment is None else payment.amount,
        asked=attempt.amount,
        currency=attempt.currency if payment is None else payment.currency,
    )


def _theirs(report: CardReport) -> TheirRecord:
    return TheirRecord(_TOLD[report.status], report.amount_received, report.currency)
