"""Through whose Stripe account an account's clients are charged."""

import re
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from billing.errors import InvalidInput, NotFound, RuleViolation
from gateways.merchants import DEPLOYMENT, Merchant
from gateways.sealing import Seal, SealBroken
from models import Account, BillingMethod, Client, PaymentAttempt, StripeMerchant
from models.billing_method import CardOfClient
from models.stripe_merchant import newest_of, own_keys_of

HINT_CHARACTERS = 4

_CONNECTED = re.compile(r"acct_[A-Za-z0-9]{1,250}")
_KEY = re.compile(r"(sk|rk)_[!-~]{8,250}")
_WEBHOOK_SECRET = re.compile(r"whsec_[!-~]{8,250}")


def merchant_of(session: Session, account: Account) -> Merchant:
    """Where an account's new charges are made."""
    return merchant_by_id(session, account.merchant_id)


def merchant_that_took(session: Session, attempt: PaymentAttempt) -> Merchant:
    """Where an attempt was made, which is where all news of it is."""
    return merchant_by_id(session, attempt.merchant_id)


def merchant_by_id(session: Session, merchant_id: UUID | None) -> Merchant:
    """A merchant as it is reached now; the deployment for ``None``."""
    if merchant_id is None:
        return DEPLOYMENT
    way = way_to(session, merchant_id)
    return Merchant(id=merchant_id, stripe_account=way.stripe_account, sealed_key=way.sealed_key)


def way_to(session: Session, merchant_id: UUID) -> StripeMerchant:
    """How a merchant's Stripe account is reached now."""
    return session.scalars(newest_of(merchant_id)).one()


def is_of_current_merchant() -> ColumnElement[bool]:
    """Whether a card is known where its account, joined to it, charges now."""
    return BillingMethod.merchant_id.is_not_distinct_from(Account.merchant_id)


def with_cards_elsewhere(client_ids: Sequence[UUID]) -> Select[UUID]:
    """Those of these clients whose card is known at another Stripe account than is charged now."""
    return (
        select(BillingMethod.client_id)
        .join(Account, Account.id == BillingMethod.account_id)
        .where(BillingMethod.client_id.in_(client_ids), ~is_of_current_merchant())
    )


def card_of(session: Session, client_id: UUID, *, lock: bool = False) -> BillingMethod | None:
    """The card that a client can be charged on; ``None`` as well where another merchant knows it.

    Lock the client first.
    """
    # The client's lock keeps its card; that of the account is read as it is by now.
    method = session.get(BillingMethod, client_id, with_for_update=lock)
    return method if method is not None and is_charged_through(session, method) else None


def charged_through(account: Account, card: BillingMethod | None) -> BillingMethod | None:
    """What ``card_of`` finds, where card and account were just read under the client's lock."""
    return card if card is not None and card.merchant_id == account.merchant_id else None


def is_charged_through(session: Session, card: CardOfClient) -> bool:
    """Whether a card is known where its account charges now."""
    current = select(Account.merchant_id).where(Account.id == card.account_id)
    return session.scalar(current) == card.merchant_id


def why_no_card(session: Session, client_id: UUID) -> str:
    """Why ``card_of`` finds none, for people."""
    if session.get(BillingMethod, client_id) is None:
        return "the client has no card: set its billing method"
    return (
        "the client's card was left at another Stripe account than the one charged through now: "
        "set its billing method again"
    )


def charge_through(session: Session, account: Account, stripe_account: str | None) -> None:
    """Charge through an account that is connected to the deployment's, or the deployment's itself.

    Attempts stay where they were made, and cards where they were left.

    Raises:
        InvalidInput: That is no id of a Stripe account (``stripe_account``).
        RuleViolation: Another account charges through it (``stripe_account_taken``).
    """
    if stripe_account is None:
        _move_to(session, account, None)
        return
    if not _CONNECTED.fullmatch(stripe_account):
        raise InvalidInput(
            "stripe_account", "must be the id of a Stripe account, such as acct_1A2b"
        )
    known = session.scalars(
        select(StripeMerchant).where(StripeMerchant.stripe_account == stripe_account)
    ).one_or_none()
    if known is None:
        known = StripeMerchant(account_id=account.id, stripe_account=stripe_account)
        try:
            with session.begin_nested():
                session.add(known)
        except IntegrityError:
            # Another account was faster.
            raise _taken(stripe_account) from None
    if known.account_id != account.id:
        raise _taken(stripe_account)
    _move_to(session, account, known.id)


def charge_by_own_key(
    session: Session,
    account: Account,
    seal: Seal,
    *,
    secret_key: str,
    webhook_secret: str | None,
    same_stripe_account: bool | None,
) -> StripeMerchant:
    """Charge through the Stripe account that a key is of; the account's row is locked.

    Args:
        session: Of the caller's transaction.
        account: Whose key it is.
        seal: What key and secret are sealed with.
        secret_key: Starts with "sk_" or "rk_".
        webhook_secret: Verifies what that Stripe account tells us; ``None`` where it is as before.
        same_stripe_account: Whether the key is of the Stripe account that the account's last key was
            of; cards and payments there stay good then. Needed where it had a key before. Where it
            is not, but the secret came with an earlier key, it is of that one's Stripe account.

    Raises:
        InvalidInput: One of them is wrong, or missing.
    """
    if not _KEY.fullmatch(secret_key):
        raise InvalidInput("secret_key", "must be a secret key of Stripe's: sk_ or rk_ and more")
    last = session.scalars(own_keys_of(account.id).limit(1)).one_or_none()
    if last is None and same_stripe_account:
        raise InvalidInput(
            "same_stripe_account", "must be false: the account had no key of its own before"
        )
    if last is not None and same_stripe_account is None:
        raise InvalidInput(
            "same_stripe_account",
            "must be true for another key of the same Stripe account, whose cards and payments stay "
            "good, or false for another Stripe account: the account had a key of its own before",
        )
    if webhook_secret is not None and not _WEBHOOK_SECRET.fullmatch(webhook_secret):
        raise InvalidInput("webhook_secret", "must begin with whsec_ and be one word")
    continued = last if same_stripe_account else None
    known = None if webhook_secret is None else _known_by(session, account, seal, webhook_secret)
    if known is not None and last is not None:
        # Each endpoint has a secret of its own, so the Stripe account that signs by it is known.
        if (known.merchant_id == last.merchant_id) != same_stripe_account:
            raise InvalidInput(
                "same_stripe_account",
                f"must be {str(not same_stripe_account).lower()}, as that webhook secret tells",
            )
        continued = known
    if webhook_secret is None and continued is None:
        raise InvalidInput("webhook_secret", "is needed: Stripe tells by it what became of charges")
    own = StripeMerchant(
        account_id=account.id,
        continues=None if continued is None else continued.merchant_id,
        sealed_key=seal.close(secret_key),
        sealed_webhook_secret=(
            continued.sealed_webhook_secret
            if webhook_secret is None and continued is not None
            else seal.close(webhook_secret or "")
        ),
        key_hint=secret_key[-HINT_CHARACTERS:],
    )
    session.add(own)
    session.flush()
    _move_to(session, account, own.merchant_id)
    return own


def _known_by(
    session: Session, account: Account, seal: Seal, webhook_secret: str
) -> StripeMerchant | None:
    """The newest key of an account that came with that secret, as far as they can be opened."""
    for own in session.scalars(own_keys_of(account.id)):
        with suppress(SealBroken):
            if seal.open(str(own.sealed_webhook_secret)) == webhook_secret:
                return own
    return None


def forget_own_key(session: Session, account: Account) -> None:
    """Charge through the deployment again. What was made by the key is still asked after by it.

    Raises:
        NotFound: The account does not charge by a key of its own.
    """
    if merchant_of(session, account).sealed_key is None:
        raise NotFound("stripe_key", f"of account {account.id}")
    _move_to(session, account, None)


def _move_to(session: Session, account: Account, merchant_id: UUID | None) -> None:
    """Charge there from now on. Nobody there knows the customers that were made elsewhere."""
    if account.merchant_id == merchant_id:
        return
    account.merchant_id = merchant_id
    session.flush()
    known = select(Client).where(
        Client.account_id == account.id, Client.stripe_customer.is_not(None)
    )
    for client in session.scalars(known.order_by(Client.id).with_for_update(key_share=True)):
        client.stripe_customer = None
    session.flush()


def _taken(stripe_account: str) -> RuleViolation:
    return RuleViolation(
        "stripe_account_taken", f"another account charges through {stripe_account}"
    )
