"""Refunding a payment: with a credit note its invoice stays settled, without one the debt is back."""

from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from billing.credit_notes import Destination, require_creditable
from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.refunds import RefundState, require_debt_may_be_back
from models import Account, Invoice, Payment, PaymentSource
from tasks.calls import Step
from tasks.card_refunds import as_result, go_on_with_refund, refund_to_card
from tasks.credit_notes import require_not_amended_away
from tasks.handing_over import hand_over
from tasks.kinds import Run, job
from tasks.outcomes import Done
from tasks.refunds import (
    Asked,
    Returnable,
    disputed,
    kept_of,
    new_refund,
    returnables,
    take_effect,
)
from tasks.withdrawing import lock_invoice, require_no_payment_in_flight, withdraw_first


@job(queue="billing", subject="payment")
def refund_payment(
    run: Run,
    session: Session,
    *,
    payment_id: UUID,
    to: Destination,
    amount: int | None = None,
    reason: str | None = None,
    credit_note: bool = True,
) -> Step:
    """Give a payment back, or a part: as credit or outside.

    To the card that it came by, which other workers can ask Stripe for,
    ``refund_payment_to_card`` does it.
    """
    if to != Destination.CARD:
        return _refund(
            run,
            session,
            payment_id,
            to=to,
            amount=amount,
            reason=reason,
            credit_note=credit_note,
        )
    # The last release did this in one kind: a refund that such a job wrote down is its own.
    return go_on_with_refund(session, run, _itself(payment_id)) or hand_over(
        session,
        run,
        refund_payment_to_card,
        payment_id=payment_id,
        amount=amount,
        reason=reason,
        credit_note=credit_note,
    )


@job(queue="payments", subject="payment")
def refund_payment_to_card(
    run: Run,
    session: Session,
    *,
    payment_id: UUID,
    amount: int | None = None,
    reason: str | None = None,
    credit_note: bool = True,
) -> Step:
    """Give a payment back, or a part, to the card that it came by."""
    return go_on_with_refund(session, run, _itself(payment_id)) or _refund(
        run,
        session,
        payment_id,
        to=Destination.CARD,
        amount=amount,
        reason=reason,
        credit_note=credit_note,
    )


def _itself(payment_id: UUID) -> Select[UUID]:
    return select(Payment.id).where(Payment.id == payment_id)


def _refund(
    run: Run,
    session: Session,
    payment_id: UUID,
    *,
    to: Destination,
    amount: int | None,
    reason: str | None,
    credit_note: bool,
) -> Step:
    payment = session.scalar(
        select(Payment).where(Payment.id == payment_id, Payment.account_id == run.account_id)
    )
    if payment is None:
        raise NotFound("payment", str(payment_id))
    invoice = lock_invoice(session, run, invoice_paid_by(payment))
    refunded = require_refundable(
        session, payment, invoice, to=to, amount=amount, credit_note=credit_note
    )
    waits = withdraw_first(session, run, invoice)
    if waits is not None:
        return waits
    asked = Asked(
        amount=refunded,
        to=to,
        reason=reason,
        job_id=run.job_id,
        requested_by=run.requested_by,
        note_amount=refunded if credit_note else None,
    )
    refund = new_refund(invoice, payment, asked, run.now)
    if to == Destination.CARD:
        return refund_to_card(session, run, refund)
    refund.move(RefundState.SUCCEEDED, run.now)
    session.add(refund)
    session.flush()
    account = session.get_one(Account, invoice.account_id)
    take_effect(session, account, invoice, refund, now=run.now, requested_by=run.requested_by)
    return Done(as_result(refund))


def invoice_paid_by(payment: Payment) -> UUID:
    """The invoice that a payment paid.

    Raises:
        RuleViolation: It paid none (``nothing_to_refund``).
    """
    if payment.invoice_id is None or payment.applied == 0:
        raise RuleViolation(
            "nothing_to_refund",
            "this payment paid no invoice: what it left as credit is refunded as unused credit",
        )
    return payment.invoice_id


def require_refundable(
    session: Session,
    payment: Payment,
    invoice: Invoice,
    *,
    to: Destination,
    amount: int | None,
    credit_note: bool,
) -> int:
    """What of a payment is to be given back: ``amount``, or all that was not yet.

    Raises:
        InvalidInput: It is more than that (``amount_exceeds_paid``), or than a note may take of
            what amendments left (``amount_exceeds_invoice``); or it is to go to a card and did not
            come by one.
        RuleViolation: The invoice is void, or uncollectible and there would be no note
            (``invoice_not_open``); money of it is under way (``payment_in_flight``,
            ``refund_in_flight``), the bank has the payment (``payment_disputed``), or all was
            given back (``nothing_to_refund``).
    """
    require_creditable(InvoiceStatus(invoice.status))
    if not credit_note:
        require_debt_may_be_back(InvoiceStatus(invoice.status))
    require_no_payment_in_flight(session, invoice.id)
    if to == Destination.CARD and payment.source != PaymentSource.CARD:
        raise InvalidInput("to", "must be credit or outside: this payment came by no card")
    if amount is not None and amount <= 0:
        raise InvalidInput("amount", "must be above zero")
    [returnable] = [one for one in returnables(session, invoice.id) if one.payment.id == payment.id]
    if returnable.is_disputed:
        raise disputed()
    most = min(_left(returnable, to), kept_of(invoice))
    if most <= 0:
        raise RuleViolation("nothing_to_refund", "all of this payment was given back already")
    if amount is not None and amount > most:
        raise InvalidInput(
            "amount",
            f"must be at most the {most:,} minor units that were not given back yet",
            code="amount_exceeds_paid",
        )
    wanted = most if amount is None else amount
    if credit_note:
        require_not_amended_away(session, invoice, wanted)
    return wanted


def _left(one: Returnable, to: Destination) -> int:
    return one.left_on_card if to == Destination.CARD else one.left
