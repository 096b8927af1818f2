"""Automatic collection: a client's due invoices are charged one after another, oldest first."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, DateTime, Select, bindparam, exists, or_, select
from sqlalchemy.orm import Session

from billing.collection import UNSETTLED, AttemptState, Origin
from billing.errors import NotFound, RuleViolation
from models import (
    Account,
    BillingMethod,
    BillingRun,
    Client,
    CreditBalance,
    Invoice,
    PaymentAttempt,
)
from models.billing_method import CardOfClient
from models.payment_attempt import open_attempts_of
from models.refund import is_being_refunded
from tasks.attempts import as_result, ask_for, begin_attempt, is_to_ask_again, withdraw
from tasks.calls import Step, go_on
from tasks.credit_balances import apply_credit
from tasks.enqueueing import enqueue_for_each
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.merchants import charged_through
from tasks.outcomes import Done
from tasks.tried_cards import backup_to_try, require_tries_left, stop_tries
from tasks.wanted_attempts import give_up_unsent, is_still_wanted

MAX_FOUND_AT_ONCE = 10_000

MAX_CHARGES_A_RUN = 5
"""Then the job is run anew: one that waits out Stripe for each must end within its time limit."""


def due_to_collect(now: datetime | BindParameter[datetime]) -> Select[Invoice]:
    """The invoices whose automatic try is due.

    Those of a run wait for its end: until then, older ones of the same client may be added. Those
    of a client with a charge that is not settled wait for that, and one that is being refunded
    waits until that is settled. While collection is paused all of them wait: each is tried once
    when it goes on.
    """
    unsettled = select(PaymentAttempt.id).where(
        PaymentAttempt.client_id == Invoice.client_id, PaymentAttempt.state.in_(UNSETTLED)
    )
    return (
        select(Invoice)
        .outerjoin(BillingRun, BillingRun.id == Invoice.run_id)
        .join(Client, Client.id == Invoice.client_id)
        .join(Account, Account.id == Invoice.account_id)
        .where(
            Invoice.next_attempt_at <= now,
            ~Client.collection_paused,
            ~Account.collection_paused,
            or_(Invoice.run_id.is_(None), BillingRun.finished_at.is_not(None)),
            ~unsettled.exists(),
            ~is_being_refunded(Invoice.id),
        )
    )


# Built once: what they are built of never changes, and that costs more than running them.
_LOCK = select(Client.id).where(Client.id == bindparam("client_id")).with_for_update(key_share=True)
_DUE_OF_CLIENT = (
    due_to_collect(bindparam("now", type_=DateTime(timezone=True)))
    .where(Invoice.client_id == bindparam("client_id"))
    .limit(1)
)
_KNOWN = (
    select(
        Account,
        BillingMethod,
        exists()
        .where(PaymentAttempt.client_id == Client.id, PaymentAttempt.state.in_(UNSETTLED))
        .label("is_under_way"),
        exists()
        .where(CreditBalance.client_id == Client.id, CreditBalance.balance != 0)
        .label("has_balance"),
        _DUE_OF_CLIENT.with_only_columns(Invoice.id)
        .offset(1)
        .correlate(None)
        .exists()
        .label("has_several_due"),
    )
    .select_from(Client)
    .join(Account, Account.id == Client.account_id)
    .outerjoin(BillingMethod, BillingMethod.client_id == Client.id)
    .where(Client.id == bindparam("client_id"))
    .execution_options(populate_existing=True)
)
_OLDEST_DUE = (
    _DUE_OF_CLIENT.order_by(Invoice.due_on, Invoice.id)
    .with_for_update(of=Invoice)
    .execution_options(populate_existing=True)
)


def wake_collection(
    session: Session, client_ids: Sequence[UUID], *, now: datetime, requested_by: str
) -> None:
    """Charge those of these clients who have something due, without waiting for the next sweep."""
    due = due_to_collect(now).where(Invoice.client_id.in_(client_ids))
    start_collections(session, due, requested_by=requested_by)


def start_collections(session: Session, due: Select[Invoice], *, requested_by: str) -> int:
    """Enqueue one job for each client of these invoices; how many."""
    owners = session.execute(
        due.with_only_columns(Invoice.account_id, Invoice.client_id)
        .distinct()
        .limit(MAX_FOUND_AT_ONCE)
    ).all()
    enqueue_for_each(
        session,
        collect_client,
        [(account_id, {"client_id": client_id}) for account_id, client_id in owners],
        requested_by=requested_by,
        # A second one beside it would only wait for the client's lock.
        unique_key=lambda arguments: f"collect:{arguments['client_id']}",
    )
    return len(owners)


@job(queue="payments", subject="client", priority=BULK_PRIORITY)
def collect_client(run: Run, session: Session, client_id: UUID) -> Step:
    """Charge a client's card for what is due, invoice after invoice, until one is not paid."""
    return _collect_next(run, client_id, [], session)


def _collect_next(run: Run, client_id: UUID, done: list[dict[str, Any]], session: Session) -> Step:
    """Go on with the client's oldest invoice that is due; ``done`` tells of those before."""
    if session.execute(_LOCK, {"client_id": client_id}).one_or_none() is None:
        raise NotFound("client", str(client_id))
    # Account and card are held as long as they are needed: the session then reads them once.
    known = session.execute(_KNOWN, {"client_id": client_id, "now": run.now}).one()
    account, card, is_under_way, has_balance, has_several_due = known
    under_way = [
        attempt
        for attempt in (_unsettled_of(session, client_id) if is_under_way else ())
        if not give_up_unsent(session, attempt, run.now)
    ]
    for attempt in under_way:
        if is_to_ask_again(run, attempt) and is_still_wanted(session, attempt):
            ended = partial(_ended, run, client_id, done, is_last=False)
            return ask_for(session, run, attempt, ended)
    if under_way:
        return Done({"attempts": done, "waits_for": str(under_way[0].id)})
    if has_balance:
        apply_credit(session, account, [client_id], now=run.now, requested_by=f"job:{run.job_id}")
    invoice = _oldest_due(session, client_id, run.now)
    if invoice is None:
        return Done({"attempts": done})
    if len(done) >= MAX_CHARGES_A_RUN:
        wake_collection(session, [client_id], now=run.now, requested_by=f"job:{run.job_id}")
        return Done({"attempts": done, "goes_on": True})
    charged = charged_through(account, card)
    # While an attempt was under way, which is given up by now, nothing counted as due.
    is_last = not (has_several_due or is_under_way)
    return _charge(run, session, invoice, charged, done, is_last=is_last)


def _charge(
    run: Run,
    session: Session,
    invoice: Invoice,
    card: BillingMethod | None,
    done: list[dict[str, Any]],
    *,
    is_last: bool,
) -> Step:
    """Charge one invoice, once nothing of an earlier try is in the way."""
    client_id = invoice.client_id
    method = _to_be_charged(session, invoice, card)
    if method is None:
        # No try without a card, and none is used up.
        stop_tries(session, client_id)
        return Done({"attempts": done, "stopped": _why_not(card)})
    waiting = (
        session.scalars(open_attempts_of([invoice.id])).one_or_none()
        if invoice.attempt_count
        else None
    )
    try:
        if waiting is not None:
            # It waits for a client who has got a new card instead, or another day.
            require_tries_left(session, invoice, method, now=run.now)
            return withdraw(session, run, waiting, partial(_withdrawn, run, client_id, done))
        return begin_attempt(
            session,
            run,
            invoice,
            method,
            origin=Origin.AUTOMATIC,
            # A second card that pays becomes the first, for all that has waited for one.
            ended=partial(_ended, run, client_id, done, is_last=is_last and method is card),
        )
    except RuleViolation as refusal:
        invoice.next_attempt_at = None
        told = {"invoice": str(invoice.id), "refused": refusal.code}
        return go_on(partial(_collect_next, run, client_id, [*done, told]))


def _to_be_charged(
    session: Session, invoice: Invoice, card: BillingMethod | None
) -> CardOfClient | None:
    """The card to try an invoice on: the second one where the first has just refused it."""
    if card is None or card.stopped_for is None:
        return card
    refused_by = session.scalar(
        select(PaymentAttempt.payment_method)
        .where(
            PaymentAttempt.invoice_id == invoice.id,
            PaymentAttempt.origin == Origin.AUTOMATIC,
            PaymentAttempt.state == AttemptState.DECLINED,
            # What Stripe refused without asking the card was no try of it.
            PaymentAttempt.decline_class.is_not(None),
        )
        .order_by(PaymentAttempt.id.desc())
        .limit(1)
    )
    is_next = refused_by == card.payment_method
    return backup_to_try(session, invoice.client_id) if is_next else None


def _ended(
    run: Run,
    client_id: UUID,
    done: list[dict[str, Any]],
    session: Session,
    attempt: PaymentAttempt | None,
    *,
    is_last: bool,
) -> Step:
    """Go on after an invoice that is paid; anything else holds the rest.

    ``is_last`` says that no other was due when it was charged: what is due since then is the next
    sweep's, within a minute.
    """
    if attempt is None:
        # Carried: a client may have hundreds that are too small for a card.
        return go_on(partial(_collect_next, run, client_id, done))
    told = [*done, as_result(attempt)]
    is_refused = attempt.state == AttemptState.DECLINED
    goes_on = (attempt.state == AttemptState.SUCCEEDED and not is_last) or (
        is_refused and _is_due(session, run, attempt)
    )
    if goes_on:
        return _collect_next(run, client_id, told, session)
    return Done({"attempts": told})


def _is_due(session: Session, run: Run, attempt: PaymentAttempt) -> bool:
    """Whether an invoice is to be tried again at once: on the client's second card."""
    invoice = session.get_one(Invoice, attempt.invoice_id)
    return invoice.next_attempt_at is not None and invoice.next_attempt_at <= run.now


def _withdrawn(
    run: Run,
    client_id: UUID,
    done: list[dict[str, Any]],
    session: Session,
    attempt: PaymentAttempt | None,
) -> Step:
    if attempt is not None and attempt.state == AttemptState.NEEDS_ACTION:
        return Done({"attempts": done, "waits_for": str(attempt.id)})
    return _collect_next(run, client_id, done, session)


def _unsettled_of(session: Session, client_id: UUID) -> Sequence[PaymentAttempt]:
    return session.scalars(
        select(PaymentAttempt).where(
            PaymentAttempt.client_id == client_id, PaymentAttempt.state.in_(UNSETTLED)
        )
    ).all()


def _oldest_due(session: Session, client_id: UUID, now: datetime) -> Invoice | None:
    """The invoice to be charged next, locked. Hold its client's lock."""
    due = session.scalars(_OLDEST_DUE, {"client_id": client_id, "now": now})
    return due.one_or_none()


def _why_not(method: BillingMethod | None) -> str:
    return "no_billing_method" if method is None else str(method.stopped_for)
