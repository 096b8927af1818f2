"""The card that a client is charged on, and what a new one means for what is open."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.errors import NotFound, RuleViolation
from models import Account, BillingMethod, Client
from models.client import clients_for_update
from tasks.auto_top_ups import begin_anew, wake_top_ups
from tasks.collecting import wake_collection
from tasks.tried_cards import try_all_again


def set_billing_method(
    session: Session,
    account_id: UUID,
    client_id: UUID,
    *,
    stripe_customer: str,
    payment_method: str,
    now: datetime,
    requested_by: str,
) -> BillingMethod:
    """Put a client on a card, which is of the Stripe account that the account charges through.

    A new one is tried at once, with a fresh schedule.

    Top-ups begin anew with it, too.

    The same card again changes nothing, so that repeating a request tries nothing twice; one
    that automatic tries had stopped on is tried again.

    Raises:
        NotFound: The account has no such client.
        RuleViolation: Another account charges this customer (``stripe_customer_taken``).
    """
    _lock(session, account_id, client_id)
    elsewhere = select(BillingMethod.client_id).where(
        BillingMethod.stripe_customer == stripe_customer, BillingMethod.account_id != account_id
    )
    if session.scalar(elsewhere.limit(1)) is not None:
        raise RuleViolation(
            "stripe_customer_taken", f"the Stripe customer {stripe_customer} is not this account's"
        )
    method = session.get(BillingMethod, client_id, with_for_update=True)
    merchant_id = session.scalar(select(Account.merchant_id).where(Account.id == account_id))
    card = stripe_customer, payment_method, merchant_id
    is_the_same = (
        method is not None
        and (method.stripe_customer, method.payment_method, method.merchant_id) == card
    )
    if method is not None and is_the_same and method.stopped_for is None:
        return method
    if method is None:
        method = BillingMethod(client_id=client_id, account_id=account_id, created_at=now)
        session.add(method)
    method.stripe_customer, method.payment_method, method.merchant_id = card
    method.stopped_for, method.created_at = None, now
    session.flush()
    try_all_again(session, client_id, now)
    wake_collection(session, [client_id], now=now, requested_by=requested_by)
    begin_anew(session, client_id)
    wake_top_ups(session, [client_id], requested_by=requested_by)
    return method


def remove_billing_method(session: Session, account_id: UUID, client_id: UUID) -> None:
    """Charge no card of this client any more; a charge under way is not taken back.

    Raises:
        NotFound: The account has no such client, or the client has no card.
    """
    _lock(session, account_id, client_id)
    method = session.get(BillingMethod, client_id, with_for_update=True)
    if method is None:
        raise NotFound("billing_method", f"of client {client_id}")
    session.delete(method)
    session.flush()


def _lock(session: Session, account_id: UUID, client_id: UUID) -> None:
    find = clients_for_update([client_id]).where(Client.account_id == account_id)
    if session.scalars(find).one_or_none() is None:
        raise NotFound("client", str(client_id))
