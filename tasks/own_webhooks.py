"""Events of accounts' own Stripe accounts: each signed with a secret that we keep sealed."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from gateways.payment_events import PaymentEvent
from gateways.sealing import Seal, SealBroken
from gateways.stripe_events import StripeEvents
from gateways.webhooks import UntrustedEvents
from models.stripe_merchant import own_keys_of

SECRETS_TRIED = 8
"""Of an account, the newest: one that has been replaced may still sign for a while."""

_log = structlog.get_logger(__name__)


def own_event_readers(
    session: Session, account_id: UUID, seal: Seal
) -> list[tuple[UUID, StripeEvents]]:
    """What reads the events of the Stripe accounts that an account has, or had, keys of."""
    readers: dict[str, tuple[UUID, StripeEvents]] = {}
    for own in session.scalars(own_keys_of(account_id).limit(SECRETS_TRIED)):
        try:
            secret = seal.open(str(own.sealed_webhook_secret))
        except SealBroken as error:
            _log.error("events cannot be verified", account=str(account_id), error=str(error))
        else:
            # Keys that came with one secret are of one Stripe account.
            readers.setdefault(secret, (own.merchant_id, StripeEvents(secret)))
    return list(readers.values())


def read_own_event(
    readers: Sequence[tuple[UUID, StripeEvents]],
    body: bytes,
    headers: Mapping[str, str],
    *,
    now: datetime,
) -> tuple[UUID, PaymentEvent]:
    """The merchant whose secret has signed a request, and its event.

    Raises:
        UntrustedEvents: No secret has.
        MalformedEvents: The signed body is no event.
    """
    for merchant_id, reader in readers:
        try:
            return merchant_id, reader.read(body, headers, now=now)
        except UntrustedEvents:
            continue
    raise UntrustedEvents("stripe: an event without a right signature")
