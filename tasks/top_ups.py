"""Automatic top-ups: a card is charged once its client's credit is below the threshold."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import Select, and_, func, or_, select, text
from sqlalchemy.orm import Session

from billing.collection import UNSETTLED, AttemptPurpose, AttemptState
from billing.errors import NotFound
from billing.top_ups import PAUSE_AFTER_DECLINE, TopUpHold, next_top_up
from models import Account, AutoTopUpSetting, BillingMethod, Client, CreditBalance, PaymentAttempt
from models.client import clients_for_update
from models.payment_attempt import STILL_OPEN, open_for_credit
from tasks.attempts import as_result, ask_for, begin_credit_attempt, is_to_ask_again, withdraw
from tasks.auto_top_ups import asked_for
from tasks.calls import Step
from tasks.collecting import MAX_FOUND_AT_ONCE, wake_collection
from tasks.credit_balances import balance_of
from tasks.enqueueing import enqueue_for_each
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.merchants import card_of, is_of_current_merchant
from tasks.outcomes import Done, Outcome
from tasks.wanted_attempts import give_up_unsent, is_still_wanted
from tasks.withdrawing import withdraw_attempt

WAITS_AT_MOST = timedelta(days=1)
"""How long a charge for credit waits for its client to authenticate."""

_BELOW = text("""
SELECT settings.account_id, settings.client_id
  FROM auto_top_ups AS settings LEFT JOIN credit_balances USING (client_id, currency)
 WHERE settings.client_id = ANY(:clients) AND NOT is_off AND COALESCE(balance, 0) < threshold
""")


def start_asked_for(session: Session) -> None:
    """Start the top-ups that this transaction's work asked for; the last thing it does."""
    asked = asked_for(session)
    for requested_by in sorted(set(asked.values())):
        clients = sorted(one for one in asked if asked[one] == requested_by)
        wake_top_ups(session, clients, requested_by=requested_by)


def wake_top_ups(session: Session, client_ids: Sequence[UUID], *, requested_by: str) -> None:
    """Top up those of these clients whose credit is too low, without waiting for the next sweep."""
    below = session.execute(_BELOW, {"clients": list(client_ids)}).all()
    start_top_ups(session, [(one.account_id, one.client_id) for one in below], requested_by)


def start_top_ups(
    session: Session, clients: Sequence[tuple[UUID, UUID]], requested_by: str
) -> None:
    """Enqueue one job for each account and client; it looks again at what is to be done."""
    if not clients:
        return
    enqueue_for_each(
        session,
        top_up_client,
        [(account_id, {"client_id": client_id}) for account_id, client_id in clients],
        requested_by=requested_by,
        unique_key=lambda arguments: f"top_up:{arguments['client_id']}",
    )


@job(queue="payments", subject="client", priority=BULK_PRIORITY)
def top_up_client(run: Run, session: Session, client_id: UUID) -> Step:
    """Charge a client's card once for what its credit is below the target, if now is the time."""
    client = session.scalars(clients_for_update([client_id])).one_or_none()
    if client is None:
        raise NotFound("client", str(client_id))
    under_way = {one.purpose: one for one in session.scalars(open_for_credit(client_id))}
    top_up = under_way.get(AttemptPurpose.TOP_UP)
    if top_up is not None and give_up_unsent(session, top_up, run.now):
        del under_way[AttemptPurpose.TOP_UP]
        top_up = None
    if top_up is not None and is_to_ask_again(run, top_up) and is_still_wanted(session, top_up):
        return ask_for(session, run, top_up, partial(_ended, run))
    setting = session.get(AutoTopUpSetting, client_id)
    method = card_of(session, client_id, lock=True)
    if setting is None or method is None:
        return _held(client_id, "no_auto_top_up" if setting is None else "no_billing_method")
    amount = _next(session, run, client, setting, method, under_way)
    if not isinstance(amount, int):
        return _held(client_id, amount)
    if top_up is not None:
        return withdraw(session, run, top_up, partial(_withdrawn, run, client_id))
    return begin_credit_attempt(
        session,
        run,
        method,
        purpose=AttemptPurpose.TOP_UP,
        amount=amount,
        currency=setting.currency,
        ended=partial(_ended, run),
    )


def _next(  # noqa: PLR0917 - all that decides, as it was read under the locks
    session: Session,
    run: Run,
    client: Client,
    setting: AutoTopUpSetting,
    method: BillingMethod,
    under_way: Mapping[str, PaymentAttempt],
) -> int | str:
    """What to charge now, in minor units, or why nothing."""
    account = session.get_one(Account, client.account_id)
    if account.collection_paused or client.collection_paused or client.archived_at is not None:
        return "collection_paused"
    if method.stopped_for is not None:
        return "card_stopped"
    top_up, deposit = (
        under_way.get(purpose) for purpose in (AttemptPurpose.TOP_UP, AttemptPurpose.DEPOSIT)
    )
    # Another card or setting begins anew: the last top-up waits for a client who need not come.
    is_outdated = _waits_for_client(top_up) and setting.declines == 0
    return next_top_up(
        setting.setting,
        balance=balance_of(session, client.id, setting.currency),
        # What a deposit brings may be enough; one that waits for the client may never come.
        has_open=(top_up is not None and not is_outdated)
        or (deposit is not None and deposit.state in UNSETTLED),
        tries=setting.tries,
        now=run.now,
    )


def _waits_for_client(attempt: PaymentAttempt | None) -> bool:
    return attempt is not None and attempt.state == AttemptState.NEEDS_ACTION


def _withdrawn(run: Run, client_id: UUID, session: Session, attempt: PaymentAttempt | None) -> Step:
    if _waits_for_client(attempt):
        return _held(client_id, TopUpHold.OPEN)
    return top_up_client.body(run, session, client_id=client_id)


def _ended(run: Run, session: Session, attempt: PaymentAttempt | None) -> Step:
    if attempt is None:
        raise ValueError("a top-up is never made without the card")
    wake_collection(session, [attempt.client_id], now=run.now, requested_by=f"job:{run.job_id}")
    return Done(as_result(attempt))


def _held(client_id: UUID, why: str) -> Done:
    return Done({"client": str(client_id), "held": why})


@job(queue="payments")
def top_up_due(run: Run, session: Session) -> Outcome:
    """Find clients whose credit is too low, and charges for credit that wait for theirs too long."""
    asked_by = f"job:{run.job_id}"
    clients = session.execute(_due_to_top_up(run.now).limit(MAX_FOUND_AT_ONCE)).all()
    start_top_ups(session, [(one.account_id, one.client_id) for one in clients], asked_by)
    waiting = session.execute(
        select(PaymentAttempt.account_id, PaymentAttempt.id)
        .where(
            PaymentAttempt.purpose != AttemptPurpose.INVOICE,
            PaymentAttempt.state == AttemptState.NEEDS_ACTION,
            PaymentAttempt.created_at <= run.now - WAITS_AT_MOST,
        )
        .order_by(PaymentAttempt.id)
        .limit(MAX_FOUND_AT_ONCE)
    ).all()
    enqueue_for_each(
        session,
        withdraw_attempt,
        [(account_id, {"attempt_id": attempt_id}) for account_id, attempt_id in waiting],
        requested_by=asked_by,
        unique_key=lambda arguments: f"withdraw:{arguments['attempt_id']}",
    )
    return Done({"clients": len(clients), "withdrawn": len(waiting)})


def _due_to_top_up(now: datetime) -> Select[UUID, UUID]:
    """Clients who can be topped up now: whoever is held is left for another sweep."""
    has_open = (
        select(PaymentAttempt.id)
        .where(
            PaymentAttempt.client_id == AutoTopUpSetting.client_id,
            PaymentAttempt.purpose != AttemptPurpose.INVOICE,
            PaymentAttempt.state.in_(STILL_OPEN),
            or_(
                PaymentAttempt.purpose == AttemptPurpose.TOP_UP,
                PaymentAttempt.state.in_(UNSETTLED),
            ),
        )
        .exists()
    )
    return (
        select(AutoTopUpSetting.account_id, AutoTopUpSetting.client_id)
        .join(Client, Client.id == AutoTopUpSetting.client_id)
        .join(Account, Account.id == AutoTopUpSetting.account_id)
        .join(BillingMethod, BillingMethod.client_id == AutoTopUpSetting.client_id)
        .outerjoin(
            CreditBalance,
            and_(
                CreditBalance.client_id == AutoTopUpSetting.client_id,
                CreditBalance.currency == AutoTopUpSetting.currency,
            ),
        )
        .where(
            func.coalesce(CreditBalance.balance, 0) < AutoTopUpSetting.threshold,
            ~AutoTopUpSetting.is_off,
            or_(
                AutoTopUpSetting.declined_at.is_(None),
                AutoTopUpSetting.declined_at <= now - PAUSE_AFTER_DECLINE,
            ),
            BillingMethod.stopped_for.is_(None),
            is_of_current_merchant(),
            ~Account.collection_paused,
            ~Client.collection_paused,
            Client.archived_at.is_(None),
            ~has_open,
        )
        .order_by(AutoTopUpSetting.client_id)
    )
