"""Cards that will soon be too old: looked at once more, and then their clients are told."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from billing.card_names import WARNED_BEFORE, last_day
from billing.cycles import local_date
from billing.errors import NotFound
from billing.mails import MailKind
from models import Account, BillingMethod, Client, Mail
from models.client import clients_for_update
from tasks.calls import Call, Gateways, Step
from tasks.card_details import Told, look_at, look_at_cards, note
from tasks.enqueueing import enqueue_for_each
from tasks.kinds import BULK_PRIORITY, Run, job
from tasks.mailing import NewMail, write_mails
from tasks.merchants import merchant_of
from tasks.outcomes import Done, Outcome, Skip
from tasks.sending import expiry_key

MAX_FOUND_AT_ONCE = 10_000

MAX_UNKNOWN_AT_ONCE = 1_000
"""Cards nothing is known of, from before they were looked at: Stripe is asked of so many a day."""


_A_DAY = timedelta(days=1)


@job(queue="payments", priority=BULK_PRIORITY)
def warn_of_expiring_cards(run: Run, session: Session) -> Outcome:
    """Find cards that are charged by themselves and expire, and those nothing is known of."""
    asked_by = f"job:{run.job_id}"
    expiring = session.execute(_expiring(run.now).limit(MAX_FOUND_AT_ONCE)).all()
    enqueue_for_each(
        session,
        warn_of_expiry,
        [(account_id, {"client_id": client_id}) for account_id, client_id in expiring],
        requested_by=asked_by,
        unique_key=lambda arguments: f"warn_of_expiry:{arguments['client_id']}",
    )
    unknown = _unknown(session)
    look_at_cards(
        session, [(one.account_id, one.client_id) for one in unknown], requested_by=asked_by
    )
    return Done({"expiring": len(expiring), "unknown": len(unknown)})


def _expiring(now: datetime) -> Select[UUID, UUID]:
    """Clients whose card is near its last day, or past it, and who were not told of that.

    Up to a day too many, since a day begins sooner elsewhere: each client's job looks at its own.
    """
    ends_at = func.make_date(
        BillingMethod.exp_year, BillingMethod.exp_month, 1
    ) + func.make_interval(0, 1)
    key = func.concat(
        "card:",
        BillingMethod.client_id,
        ":",
        BillingMethod.payment_method,
        ":",
        BillingMethod.exp_year,
        "-",
        BillingMethod.exp_month,
    )
    told = select(Mail.id).where(Mail.kind == MailKind.CARD_EXPIRING, Mail.subject_key == key)
    return (
        select(BillingMethod.account_id, BillingMethod.client_id)
        .join(Client, Client.id == BillingMethod.client_id)
        .join(Account, Account.id == BillingMethod.account_id)
        .where(
            ends_at <= now + WARNED_BEFORE + _A_DAY,
            # The client was asked for another card then.
            BillingMethod.stopped_for.is_(None),
            func.coalesce(Client.auto_collect, Account.auto_collect),
            Client.archived_at.is_(None),
            ~Client.collection_paused,
            ~Account.collection_paused,
            ~told.exists(),
        )
        .order_by(BillingMethod.client_id)
    )


def _unknown(session: Session) -> Sequence[Row[UUID, UUID]]:
    return session.execute(
        select(BillingMethod.account_id, BillingMethod.client_id)
        .where(BillingMethod.checked_at.is_(None))
        .order_by(BillingMethod.client_id)
        .limit(MAX_UNKNOWN_AT_ONCE)
    ).all()


@job(queue="payments", subject="client", priority=BULK_PRIORITY)
def warn_of_expiry(run: Run, session: Session, client_id: UUID) -> Step:
    """Tell a client of its card's expiry, unless Stripe knows of a later one by now."""
    client = _lock(session, client_id)
    card = session.get(BillingMethod, client_id)
    if card is None:
        return Skip("no_billing_method", "the client has no card any more")
    merchant = merchant_of(session, session.get_one(Account, client.account_id))
    method = card.payment_method

    def ask(gateways: Gateways) -> Told:
        return look_at(method, merchant, gateways)

    return Call(ask, partial(_warn, run, client_id, method))


def _warn(run: Run, client_id: UUID, payment_method: str, session: Session, told: Told) -> Step:
    client = _lock(session, client_id)
    card = session.get(BillingMethod, client_id)
    if card is None or card.payment_method != payment_method:
        return Skip("card_replaced", "the client has another card by now")
    note(run, session, card, told)
    account = session.get_one(Account, client.account_id)
    today = local_date(run.now, client.zone(account))
    good_until = _last_day(card)
    if card.stopped_for is not None or good_until is None or good_until > today + WARNED_BEFORE:
        return Skip("not_expiring", "the card is good for a while yet, or is not charged")
    mail = NewMail(
        client=client,
        kind=MailKind.CARD_EXPIRING,
        subject_key=str(expiry_key(card)),
        invoice_ids=[],
        told={
            "key": expiry_key(card),
            "brand": card.brand,
            "last4": card.last4,
            "exp_month": card.exp_month,
            "exp_year": card.exp_year,
            "has_expired": good_until < today,
        },
    )
    mails = write_mails(session, account, [mail], requested_by=f"job:{run.job_id}")
    return Done({"client": str(client_id), "mails": [str(one) for one in mails]})


def _last_day(card: BillingMethod) -> date | None:
    if card.exp_year is None or card.exp_month is None:
        return None
    return last_day(card.exp_year, card.exp_month)


def _lock(session: Session, client_id: UUID) -> Client:
    client = session.scalars(clients_for_update([client_id])).one_or_none()
    if client is None:
        raise NotFound("client", str(client_id))
    return client
