"""Whether what is tried by itself is still wanted when it can be sent at last."""

from datetime import datetime

from sqlalchemy import ColumnElement, Exists, and_, exists, or_, select
from sqlalchemy.orm import Session

from billing.collection import AttemptPurpose, AttemptState, Origin
from models import Account, AutoTopUpSetting, BackupMethod, BillingMethod, Client, PaymentAttempt

NO_LONGER_WANTED = "collection was paused or switched off, or the card stopped, before it was sent"


def is_still_wanted(session: Session, attempt: PaymentAttempt) -> bool:
    """Whether an attempt may be sent, or sent again. Hold the client's lock.

    What staff or clients asked for may. What is tried by itself may not while collection is paused,
    nor on a card that the client has no more, or that is not tried any more; and no top-up once that
    is switched off.
    """
    if attempt.origin != Origin.AUTOMATIC:
        return True
    wanted = (
        select(Client.id)
        .join(Account, Account.id == Client.account_id)
        .where(
            Client.id == attempt.client_id,
            ~Client.collection_paused,
            ~Account.collection_paused,
            or_(
                _is_tried(BillingMethod, attempt),
                and_(Client.use_backup_card, _is_tried(BackupMethod, attempt)),
            ),
        )
    )
    if attempt.purpose == AttemptPurpose.TOP_UP:
        is_on = exists().where(AutoTopUpSetting.client_id == Client.id, ~AutoTopUpSetting.is_off)
        wanted = wanted.where(is_on)
    return session.scalar(wanted) is not None


def _is_tried(card: type[BillingMethod | BackupMethod], attempt: PaymentAttempt) -> Exists:
    same_merchant: ColumnElement[bool] = card.merchant_id.is_not_distinct_from(Account.merchant_id)
    return exists().where(
        card.client_id == Client.id,
        card.payment_method == attempt.payment_method,
        card.stopped_for.is_(None),
        same_merchant,
    )


def give_up_unsent(session: Session, attempt: PaymentAttempt, now: datetime) -> bool:
    """Cancel an attempt that Stripe was never asked for, if it is not wanted any more.

    Whether it was. Hold the client's lock: whoever would ask for it holds that, too.
    """
    is_given_up = (
        attempt.is_unsent
        and attempt.state == AttemptState.PENDING
        and not is_still_wanted(session, attempt)
    )
    if is_given_up:
        attempt.message = NO_LONGER_WANTED
        attempt.move(AttemptState.CANCELED, now)
        session.flush()
    return is_given_up
