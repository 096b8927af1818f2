"""The cards of a client, and what a new one means for what is open."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from billing.disputes import STOPPED_FOR_DISPUTE
from billing.errors import InvalidInput, NotFound, RuleViolation
from models import Account, BackupMethod, BillingMethod, Client
from models.billing_method import CARD_FIELDS, CardOfClient
from models.client import clients_for_update
from tasks.card_changes import begin_with_card, lose_backup, lose_card
from tasks.card_details import look_at_cards
from tasks.detaching import forget_at_stripe
from tasks.disputed_cards import stop_of
from tasks.tried_cards import stop_tries

_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended(:customer, 0))")

_Names = tuple[str, str, UUID | None]
"""A card by Stripe's names of customer and payment method, and whose Stripe account knows it."""


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

    Top-ups begin anew with it, too. What it is, Stripe is asked.

    The same card again changes nothing, so that repeating a request tries nothing twice; one
    that automatic tries had stopped on is tried again, but for one that is disputed. The client's
    second card becomes its first.

    Raises:
        NotFound: The account has no such client.
        RuleViolation: Another account charges this customer (``stripe_customer_taken``).
    """
    _lock(session, account_id, client_id)
    _require_own_customer(session, account_id, stripe_customer)
    method = session.get(BillingMethod, client_id, with_for_update=True)
    card = stripe_customer, payment_method, _merchant(session, account_id)
    is_at_rest = method is not None and method.stopped_for in {None, STOPPED_FOR_DISPUTE}
    if method is not None and is_at_rest and _names(method) == card:
        return method
    backup = session.get(BackupMethod, client_id)
    if method is None:
        method = BillingMethod(client_id=client_id, account_id=account_id, created_at=now)
        session.add(method)
    if backup is not None and backup.payment_method == payment_method:
        session.delete(backup)
    _put(session, method, card, now)
    session.flush()
    if method.stopped_for is None:
        begin_with_card(session, client_id, now=now, requested_by=requested_by)
    else:
        stop_tries(session, client_id)
    look_at_cards(session, [(account_id, client_id)], requested_by=requested_by)
    return method


def set_backup_method(
    session: Session,
    account_id: UUID,
    client_id: UUID,
    *,
    stripe_customer: str,
    payment_method: str,
    now: datetime,
    requested_by: str,
) -> BackupMethod:
    """Give a client a second card, for when the first one is gone or refused.

    The same again changes nothing, but where it was stopped after a decline: it may be tried again.

    Raises:
        InvalidInput: It is the card that the client is charged on already.
        NotFound: The account has no such client.
        RuleViolation: Another account charges this customer (``stripe_customer_taken``).
    """
    _lock(session, account_id, client_id)
    _require_own_customer(session, account_id, stripe_customer)
    method = session.get(BillingMethod, client_id)
    if method is not None and method.payment_method == payment_method:
        raise InvalidInput("payment_method", "is the card that the client is charged on already")
    backup = session.get(BackupMethod, client_id)
    card = stripe_customer, payment_method, _merchant(session, account_id)
    is_at_rest = backup is not None and backup.stopped_for in {None, STOPPED_FOR_DISPUTE}
    if backup is not None and is_at_rest and _names(backup) == card:
        return backup
    if backup is None:
        backup = BackupMethod(client_id=client_id, account_id=account_id, created_at=now)
        session.add(backup)
    _put(session, backup, card, now)
    session.flush()
    look_at_cards(session, [(account_id, client_id)], requested_by=requested_by)
    return backup


def remove_billing_method(
    session: Session, account_id: UUID, client_id: UUID, *, now: datetime, requested_by: str
) -> None:
    """Charge a client's card no more; a charge under way is not taken back.

    Where the client has a second card, that is charged from now on. Stripe forgets the one that is
    removed, once nothing is under way on it.

    Raises:
        NotFound: The account has no such client, or the client has no card.
    """
    client = _lock(session, account_id, client_id)
    method = session.get(BillingMethod, client_id, with_for_update=True)
    if method is None:
        raise NotFound("billing_method", f"of client {client_id}")
    removed = method.payment_method
    lose_card(session, method, now=now, requested_by=requested_by)
    forget_at_stripe(session, client, removed, requested_by=requested_by)


def remove_backup_method(
    session: Session, account_id: UUID, client_id: UUID, *, requested_by: str
) -> None:
    """Take a client's second card away, here and, once nothing is under way on it, at Stripe.

    Raises:
        NotFound: The account has no such client, or the client has no second card.
    """
    client = _lock(session, account_id, client_id)
    backup = session.get(BackupMethod, client_id, with_for_update=True)
    if backup is None:
        raise NotFound("backup_method", f"of client {client_id}")
    removed = backup.payment_method
    lose_backup(session, backup)
    forget_at_stripe(session, client, removed, requested_by=requested_by)


def _put(session: Session, method: CardOfClient, card: _Names, now: datetime) -> None:
    """Make it this card, which nothing is known of yet, unless it is the same one."""
    if _names(method) != card:
        for name in CARD_FIELDS:
            setattr(method, name, None)
        method.stripe_customer, method.payment_method, method.merchant_id = card
    # Before its disputes are looked up, which writes down what is there so far.
    method.created_at = now
    method.stopped_for = stop_of(session, method.client_id, method.payment_method)


def _names(method: CardOfClient) -> _Names:
    return method.stripe_customer, method.payment_method, method.merchant_id


def _merchant(session: Session, account_id: UUID) -> UUID | None:
    """Where the account charges now, which is where its clients leave their cards."""
    return session.scalar(select(Account.merchant_id).where(Account.id == account_id))


def _require_own_customer(session: Session, account_id: UUID, stripe_customer: str) -> None:
    # Each of two accounts that want one at the same moment would not see the other's claim.
    session.execute(_ALONE, {"customer": f"stripe_customer:{stripe_customer}"})
    for table in (BillingMethod, BackupMethod, Client):
        elsewhere = select(table.account_id).where(
            table.stripe_customer == stripe_customer, table.account_id != account_id
        )
        if session.scalar(elsewhere.limit(1)) is not None:
            raise RuleViolation(
                "stripe_customer_taken",
                f"the Stripe customer {stripe_customer} is not this account's",
            )


def _lock(session: Session, account_id: UUID, client_id: UUID) -> Client:
    find = clients_for_update([client_id]).where(Client.account_id == account_id)
    client = session.scalars(find).one_or_none()
    if client is None:
        raise NotFound("client", str(client_id))
    return client
