"""Disputes of card payments, by our record and by Stripe's."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.orm import Session

from billing.disputes import PENDING, DisputeState
from billing.reconciliation import REPAIRED, Compared, DisputeRecord, dispute_difference
from gateways.disputes import DisputeReport
from gateways.merchants import Merchant
from gateways.payment_records import PaymentRecords, RecordPage, Window
from models import Dispute, Payment, PaymentAttempt
from models.client import clients_for_update
from models.dispute import dispute_for_update
from models.invoice import invoices_for_update
from tasks.collecting import wake_collection
from tasks.comparing import Comparison, Looked
from tasks.disputes import STATES, settle_dispute


class Disputes:
    """Disputes of a window, and those of ours that the bank has not ended, however old."""

    compared = Compared.DISPUTES

    def read(
        self, records: PaymentRecords, window: Window, merchant: Merchant, after: str | None
    ) -> RecordPage[DisputeReport]:
        """A page of Stripe's; see ``Kind``."""
        return records.disputes(window, merchant, after)

    def compare(
        self,
        session: Session,
        comparison: Comparison,
        merchant_id: UUID | None,
        page: Sequence[DisputeReport],
    ) -> list[Looked]:
        """Those of a page that are of our money, each where that was taken; see ``Kind``."""
        paid = _payments(session, comparison, [report.payment_intent for report in page])
        known = {
            dispute.stripe_dispute: dispute
            for dispute in session.scalars(
                select(Dispute).where(
                    Dispute.account_id == comparison.account_id,
                    Dispute.stripe_dispute.in_([report.dispute for report in page]),
                )
            )
        }
        looked = []
        for report in page:
            if report.payment_intent not in paid:
                # Of money that never came through us, or is not written down: that is listed.
                continue
            payment, made_at = paid[report.payment_intent]
            difference = dispute_difference(
                _ours(known.get(report.dispute)), _theirs(report), paid_in=payment.currency
            )
            looked.append(Looked(report.dispute, made_at, differs=difference is not None))
        return looked

    def ours(self, comparison: Comparison) -> Select[str, UUID | None]:
        """Disputes of the window, and those that are pending; see ``Kind``."""
        begun_in_window = and_(
            Dispute.disputed_at >= comparison.window.since,
            Dispute.disputed_at < comparison.window.until,
        )
        return (
            select(Dispute.stripe_dispute, PaymentAttempt.merchant_id)
            .join(Payment, Payment.id == Dispute.payment_id)
            .join(PaymentAttempt, PaymentAttempt.id == Payment.attempt_id)
            .where(
                Dispute.account_id == comparison.account_id,
                or_(begun_in_window, Dispute.state.in_(PENDING)),
            )
        )

    def ask(
        self, records: PaymentRecords, stripe_id: str, merchant: Merchant
    ) -> DisputeReport | None:
        """One dispute; see ``Kind``."""
        return records.dispute(stripe_id, merchant)

    def settle(
        self, session: Session, comparison: Comparison, asked: Looked, found: DisputeReport | None
    ) -> None:
        """Look again under its locks; see ``Kind``."""
        now = comparison.run.now
        payment = _disputed(session, comparison, asked, found)
        if payment is None:
            # Neither has it: what was found of it is gone.
            comparison.look_again(session, asked.stripe_id)
            return
        session.scalars(clients_for_update([payment.client_id])).one()
        if payment.invoice_id is not None:
            session.scalars(invoices_for_update([payment.invoice_id])).one()
        dispute = session.scalars(dispute_for_update(asked.stripe_id)).one_or_none()
        acknowledged = comparison.look_again(session, asked.stripe_id)
        ours = _ours(dispute)
        theirs = None if found is None else _theirs(found)
        difference = dispute_difference(ours, theirs, paid_in=payment.currency)
        if difference is None:
            return
        is_repaired = False
        if difference in REPAIRED and found is not None:
            dispute = settle_dispute(
                session,
                payment,
                found,
                told_at=now,
                now=now,
                requested_by=comparison.asked_by,
            )
            wake_collection(session, [payment.client_id], now=now, requested_by=comparison.asked_by)
            after = dispute_difference(_ours(dispute), theirs, paid_in=payment.currency)
            is_repaired = after is None
        comparison.write_down(
            session,
            difference,
            repaired=is_repaired,
            acknowledged=acknowledged,
            stripe_id=asked.stripe_id,
            merchant_id=asked.merchant_id,
            subject_id=None if dispute is None else dispute.id,
            client_id=payment.client_id,
            invoice_id=payment.invoice_id,
            currency=payment.currency if theirs is None else theirs.currency,
            ours=ours and ours.state,
            theirs=found and found.status,
            our_amount=ours and ours.amount,
            their_amount=theirs and theirs.amount,
        )


def _disputed(
    session: Session, comparison: Comparison, asked: Looked, found: DisputeReport | None
) -> Payment | None:
    """The payment of ours that a dispute is of, by either record."""
    known = session.scalar(
        select(Payment)
        .join(Dispute, Dispute.payment_id == Payment.id)
        .where(
            Dispute.account_id == comparison.account_id,
            Dispute.stripe_dispute == asked.stripe_id,
        )
    )
    if known is not None or found is None:
        return known
    paid = _payments(session, comparison, [found.payment_intent])
    payment, made_at = paid.get(found.payment_intent, (None, None))
    return payment if made_at == asked.merchant_id else None


def _payments(
    session: Session, comparison: Comparison, intents: Sequence[str | None]
) -> dict[str | None, tuple[Payment, UUID | None]]:
    """The payments of ours among these, by Stripe's id, and who made each."""
    rows = session.execute(
        select(PaymentAttempt.payment_intent, Payment, PaymentAttempt.merchant_id)
        .join(Payment, Payment.attempt_id == PaymentAttempt.id)
        .where(
            PaymentAttempt.account_id == comparison.account_id,
            PaymentAttempt.payment_intent.in_(intents),
        )
    )
    return {intent: (payment, merchant_id) for intent, payment, merchant_id in rows}


def _ours(dispute: Dispute | None) -> DisputeRecord | None:
    if dispute is None:
        return None
    return DisputeRecord(DisputeState(dispute.state), dispute.amount, dispute.currency)


def _theirs(report: DisputeReport) -> DisputeRecord:
    return DisputeRecord(STATES[report.status], report.amount, report.currency)
