"""What vendors tell us: stored before it is handled, then handled by a job, in any order."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from billing.collection import UNSETTLED, AttemptState
from billing.errors import NotFound
from billing.mails import MailState, state_after
from gateways.cards import CardReport, CardStatus, RefundReport
from gateways.mail_events import MailEvent
from gateways.payment_events import PaymentEvent
from gateways.stripe_events import DISPUTES_TOLD, event_from
from models import Mail, Payment, PaymentAttempt, Refund, WebhookEvent
from models.mail import mail_for_update
from tasks.attempt_locks import lock_attempt
from tasks.believed_events import comes_from_where_made
from tasks.card_events import handle_card_event, is_about_cards
from tasks.collecting import wake_collection
from tasks.disputes import handle_money_taken_back
from tasks.enqueueing import enqueue, enqueue_for_each
from tasks.kinds import JobKind, Run, job
from tasks.outcomes import Done, Outcome, Skip
from tasks.refunds import settle_refund
from tasks.resolving import resolve_attempt
from tasks.settling import settle_attempt, told_before

_log = structlog.get_logger(__name__)

STRIPE, SENDGRID = "stripe", "sendgrid"

_MAIL_NEWS = {
    "processed": MailState.ACCEPTED,
    "delivered": MailState.DELIVERED,
    "bounce": MailState.BOUNCED,
    "dropped": MailState.SUPPRESSED,
}
_BAD_NEWS = frozenset({MailState.BOUNCED, MailState.SUPPRESSED})

_NOT_STORABLE = re.compile(r"[\x00\ud800-\udfff]")


def store_payment_event(
    session: Session, event: PaymentEvent, *, requested_by: str, merchant_id: UUID | None = None
) -> int:
    """Keep an event of Stripe's, and enqueue its handling; how many are new: one, or none.

    ``merchant_id`` is whose own secret has signed it.
    """
    row = {
        "event_id": event.id,
        "type": event.type,
        "payload": dict(event.payload),
        "merchant_id": merchant_id,
    }
    return _store(session, STRIPE, [row], handle_payment_event, requested_by)


def store_mail_events(session: Session, events: Sequence[MailEvent], *, requested_by: str) -> int:
    """Keep events of SendGrid's, and enqueue the handling of each; how many are new."""
    rows = [
        {
            "event_id": event.id,
            "type": event.kind,
            "payload": {
                "message_id": event.message_id,
                "mail": event.custom_args.get("mail"),
                "at": event.at.isoformat(),
                "reason": event.reason,
            },
        }
        for event in events
    ]
    return _store(session, SENDGRID, rows, handle_mail_event, requested_by)


def _store(
    session: Session,
    provider: str,
    rows: Sequence[Mapping[str, Any]],
    kind: JobKind,
    requested_by: str,
) -> int:
    if not rows:
        return 0
    new = session.scalars(
        insert(WebhookEvent).on_conflict_do_nothing().returning(WebhookEvent.id),
        [{"provider": provider, **_storable(row)} for row in rows],
    ).all()
    enqueue_for_each(
        session, kind, [(None, {"event_id": one}) for one in new], requested_by=requested_by
    )
    return len(new)


def _storable(value: Any) -> Any:  # noqa: ANN401 - JSON
    """JSON without NUL and lone surrogates, which vendors may pass on and PostgreSQL may not hold.

    One event that cannot be stored would keep all that came with it from being stored.
    """
    match value:
        case str():
            return _NOT_STORABLE.sub("", value)
        case Mapping():
            return {_storable(key): _storable(one) for key, one in value.items()}
        case list():
            return [_storable(one) for one in value]
        case _:
            return value


@job(queue="billing")
def handle_payment_event(run: Run, session: Session, event_id: UUID) -> Outcome:
    """Write down what an event says of a charge, refund, dispute or card of ours; not the rest."""
    event = _lock(session, event_id)
    if event.handled_at is not None:
        return Skip("event_handled", "the event was handled before")
    event.handled_at = run.now
    told = event_from(event.payload)
    if is_about_cards(told):
        return handle_card_event(run, session, event, told)
    if told.refund is not None:
        return _handle_refund(run, session, event, told, told.refund)
    if told.checkout is not None:
        return _handle_page(run, session, event, told, told.checkout.session)
    if told.refunded is not None or told.type in DISPUTES_TOLD:
        return handle_money_taken_back(run, session, event, told)
    return _handle_charge(run, session, event, told)


def _handle_charge(run: Run, session: Session, event: WebhookEvent, told: PaymentEvent) -> Outcome:
    report = told.report
    attempt_id = None if report is None else _attempt_told_of(session, event, told, report)
    if report is None or attempt_id is None:
        event.outcome = "not_ours" if report else "not_needed"
        return Done({"event": event.event_id, "outcome": event.outcome})
    if report.is_unexplained and _has_no_outcome(session, attempt_id):
        return _ask_why(run, session, event, attempt_id, report.payment_intent)
    # Of most charges the answer came first: no lock is waited for then, and nothing follows.
    attempt = told_before(session, attempt_id, report)
    if attempt is None:
        attempt = settle_attempt(
            session, attempt_id, report, now=run.now, requested_by=f"{STRIPE}:{event.event_id}"
        )
        is_failure = report.status not in {CardStatus.SUCCEEDED, CardStatus.PROCESSING}
        if attempt.is_page and is_failure and attempt.state == AttemptState.PROCESSING:
            # It may be of an earlier try on the page.
            _ask_after(session, run, attempt)
        wake_collection(session, [attempt.client_id], now=run.now, requested_by=f"job:{run.job_id}")
    event.account_id, event.outcome = attempt.account_id, attempt.state
    return Done({"event": event.event_id, "attempt": str(attempt.id), "outcome": event.outcome})


def _has_no_outcome(session: Session, attempt_id: UUID) -> bool:
    state = session.scalar(select(PaymentAttempt.state).where(PaymentAttempt.id == attempt_id))
    return state in UNSETTLED


def _ask_why(
    run: Run, session: Session, event: WebhookEvent, attempt_id: UUID, payment_intent: str
) -> Outcome:
    """Have Stripe asked why a bank debit came back: that decides what is tried next.

    An answer that was lost told of the debit: asked again by its key, Stripe would repeat that.
    """
    attempt = lock_attempt(session, attempt_id)
    if not attempt.is_page:
        attempt.payment_intent = attempt.payment_intent or payment_intent
    event.account_id, event.outcome = attempt.account_id, "asked"
    _ask_after(session, run, attempt)
    return Done({"event": event.event_id, "attempt": str(attempt.id), "outcome": event.outcome})


def _handle_page(
    run: Run, session: Session, event: WebhookEvent, told: PaymentEvent, page: str
) -> Outcome:
    """Ask how the page stands: what an event says of it may be old by the time it comes."""
    attempt = session.scalar(select(PaymentAttempt).where(PaymentAttempt.checkout_session == page))
    if attempt is None or not comes_from_where_made(session, event, told, attempt):
        event.outcome = "not_ours"
        return Done({"event": event.event_id, "outcome": event.outcome})
    event.account_id, event.outcome = attempt.account_id, "asked"
    _ask_after(session, run, attempt)
    return Done({"event": event.event_id, "attempt": str(attempt.id), "outcome": event.outcome})


def _ask_after(session: Session, run: Run, attempt: PaymentAttempt) -> None:
    enqueue(
        session,
        resolve_attempt,
        account_id=attempt.account_id,
        requested_by=f"job:{run.job_id}",
        unique_key=f"attempt:{attempt.id}",
        attempt_id=attempt.id,
    )


def _attempt_told_of(
    session: Session, event: WebhookEvent, told: PaymentEvent, report: CardReport
) -> UUID | None:
    """The attempt that an event is about: its answer may not have been written down yet.

    None that was made elsewhere: whoever has a Stripe account can write anything into its metadata.
    """
    known = PaymentAttempt.payment_intent == report.payment_intent
    attempt = session.scalar(
        select(PaymentAttempt)
        .where(_is_meant(known, PaymentAttempt.id, report.metadata.get("attempt")))
        .limit(1)
    )
    if attempt is None or not comes_from_where_made(session, event, told, attempt):
        return None
    return attempt.id


def _handle_refund(
    run: Run, session: Session, event: WebhookEvent, told: PaymentEvent, report: RefundReport
) -> Outcome:
    refund_id = _refund_told_of(session, event, told, report)
    if refund_id is None:
        event.outcome = "not_ours"
        return Done({"event": event.event_id, "outcome": event.outcome})
    refund = settle_refund(
        session, refund_id, report, now=run.now, requested_by=f"{STRIPE}:{event.event_id}"
    )
    event.account_id, event.outcome = refund.account_id, refund.state
    wake_collection(session, [refund.client_id], now=run.now, requested_by=f"job:{run.job_id}")
    return Done({"event": event.event_id, "refund": str(refund.id), "outcome": event.outcome})


def _refund_told_of(
    session: Session, event: WebhookEvent, told: PaymentEvent, report: RefundReport
) -> UUID | None:
    """The refund that an event is about, made where it comes from, and of what it says."""
    known = Refund.stripe_refund == report.refund
    refund = session.scalar(
        select(Refund).where(_is_meant(known, Refund.id, report.metadata.get("refund"))).limit(1)
    )
    attempt = None if refund is None else _attempt_refunded(session, refund)
    if refund is None or attempt is None:
        return None
    if not comes_from_where_made(session, event, told, attempt):
        return None
    if (report.amount, report.currency) != (refund.amount, refund.currency):
        _log.error(
            "refund of another amount than asked for",
            refund=str(refund.id),
            stripe_refund=report.refund,
            amount=report.amount,
            asked=refund.amount,
        )
        return None
    return refund.id


def _attempt_refunded(session: Session, refund: Refund) -> PaymentAttempt | None:
    return session.scalar(
        select(PaymentAttempt)
        .join(Payment, Payment.attempt_id == PaymentAttempt.id)
        .where(Payment.id == refund.payment_id)
    )


def _is_meant(
    known: ColumnElement[bool], ours: InstrumentedAttribute[UUID], named: str | None
) -> ColumnElement[bool]:
    """Whether a row is known by Stripe's id, or named by ours in metadata."""
    try:
        return or_(known, ours == UUID(named or ""))
    except ValueError:
        return known


@job(queue="mail")
def handle_mail_event(run: Run, session: Session, event_id: UUID) -> Outcome:
    """Write down what an event says of one of our mails."""
    event = _lock(session, event_id)
    if event.handled_at is not None:
        return Skip("event_handled", "the event was handled before")
    event.handled_at = run.now
    mail = _mail_told_of(session, event.payload)
    news = _MAIL_NEWS.get(event.type)
    event.account_id = mail.account_id if mail else None
    if mail is None or news is None:
        event.outcome = "not_needed" if mail else "not_ours"
        return Done({"event": event.event_id, "outcome": event.outcome})
    known = MailState(mail.state)
    mail.state = event.outcome = state_after(known, news)
    at = datetime.fromisoformat(event.payload["at"])
    if news == MailState.DELIVERED:
        # Also what is told after it came back.
        mail.delivered_at = mail.delivered_at or at
    if mail.state != known:
        mail.message_id = mail.message_id or event.payload["message_id"]
        mail.reason = event.payload["reason"] if news in _BAD_NEWS else None
        mail.sent_at = mail.sent_at or at
    return Done({"event": event.event_id, "mail": str(mail.id), "outcome": event.outcome})


def _mail_told_of(session: Session, payload: Mapping[str, Any]) -> Mail | None:
    try:
        return session.scalars(mail_for_update(UUID(payload["mail"] or ""))).one_or_none()
    except ValueError:
        return None


def _lock(session: Session, event_id: UUID) -> WebhookEvent:
    event = session.get(WebhookEvent, event_id, with_for_update=True)
    if event is None:
        raise NotFound("webhook_event", str(event_id))
    return event
