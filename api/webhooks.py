"""Webhooks: what vendors post to us. Verified and stored here; a job handles it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict

from api.idempotency import raw_body
from api.problems import Refusal, documented
from api.stripe_keys import SealOf
from api.transactions import Transaction
from gateways.mail_events import MailEvents
from gateways.payment_events import PaymentEvents
from gateways.webhooks import MalformedEvents, UntrustedEvents
from tasks.own_webhooks import own_event_readers, read_own_event
from tasks.webhooks import SENDGRID, STRIPE, store_mail_events, store_payment_event

router = APIRouter(tags=["webhooks"])

Body = Annotated[bytes, Depends(raw_body)]
Events = TypeVar("Events")

_RESPONSES = documented(
    "malformed",
    "untrusted_events",
    "too_large",
    "internal_error",
    "webhooks_not_configured",
    "database_unavailable",
)


@dataclass(frozen=True, slots=True)
class EventReaders:
    """What reads the events of each vendor; ``None`` where there is nothing to verify them by."""

    payments: PaymentEvents | None = None
    mails: MailEvents | None = None


class EventsReport(BaseModel):
    """How many events were new, and will be handled."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"received": 1}]})

    received: int


def event_readers(request: Request) -> EventReaders:
    """Those that the application was made with."""
    readers: EventReaders = request.app.state.event_readers
    return readers


Readers = Annotated[EventReaders, Depends(event_readers)]


def _signed(example: Any, headers: list[str]) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """What OpenAPI says of a body that is read to the byte, because it is signed."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {}, "example": example}},
        },
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
            for name in headers
        ],
    }


_STRIPE_EVENT = {"id": "evt_1NG8Du", "object": "event", "type": "payment_intent.succeeded"}


@router.post(
    "/webhooks/stripe",
    summary="Take an event of Stripe's",
    responses=_RESPONSES,
    openapi_extra=_signed(_STRIPE_EVENT, ["Stripe-Signature"]),
)
def take_payment_event(
    request: Request, body: Body, readers: Readers, session: Transaction
) -> EventsReport:
    """Of the deployment's Stripe account, and of those that are connected to it.

    Signed with the webhook's secret. One that comes again is kept once.
    """
    reader = _configured(readers.payments, "STRIPE_WEBHOOK_SECRET")
    event = _trusted(lambda: reader.read(body, request.headers, now=datetime.now(UTC)))
    new = store_payment_event(session, event, requested_by=f"webhook:{STRIPE}")
    return EventsReport(received=new)


@router.post(
    "/webhooks/stripe/{account_id}",
    summary="Take an event of an account's own Stripe account",
    responses=documented(
        "malformed",
        "untrusted_events",
        "account_not_found",
        "too_large",
        "internal_error",
        "database_unavailable",
    ),
    openapi_extra=_signed(_STRIPE_EVENT, ["Stripe-Signature"]),
)
def take_own_payment_event(
    account_id: UUID, request: Request, body: Body, seal: SealOf, session: Transaction
) -> EventsReport:
    """Signed with the webhook's secret that came with the account's own Stripe key.

    It is believed of what was charged by that Stripe account's keys, and of nothing else.
    """
    now = datetime.now(UTC)
    readers = own_event_readers(session, account_id, seal)
    merchant_id, event = _trusted(lambda: read_own_event(readers, body, request.headers, now=now))
    new = store_payment_event(
        session, event, requested_by=f"webhook:{STRIPE}:{account_id}", merchant_id=merchant_id
    )
    return EventsReport(received=new)


@router.post(
    "/webhooks/sendgrid",
    summary="Take events of SendGrid's",
    responses=_RESPONSES,
    openapi_extra=_signed(
        [{"sg_event_id": "c2VnbWVudA", "event": "delivered", "email": "ada@example.com"}],
        [
            "X-Twilio-Email-Event-Webhook-Signature",
            "X-Twilio-Email-Event-Webhook-Timestamp",
        ],
    ),
)
def take_mail_events(
    request: Request, body: Body, readers: Readers, session: Transaction
) -> EventsReport:
    """Signed with the webhook's key. Those that come again are kept once."""
    reader = _configured(readers.mails, "SENDGRID_WEBHOOK_KEY")
    events = _trusted(lambda: reader.read(body, request.headers, now=datetime.now(UTC)))
    new = store_mail_events(session, events, requested_by=f"webhook:{SENDGRID}")
    return EventsReport(received=new)


def _configured(reader: Events | None, setting: str) -> Events:
    if reader is None:
        raise Refusal(
            "webhooks_not_configured", f"Nothing can be verified here: {setting} is not set."
        )
    return reader


def _trusted(read: Callable[[], Events]) -> Events:
    """What was read, if it is signed as it should be."""
    try:
        return read()
    except UntrustedEvents:
        # Not why: whoever forges a signature would like to know.
        raise Refusal(
            "untrusted_events", "The signature is missing, wrong or too old; nothing was kept."
        ) from None
    except MalformedEvents:
        raise Refusal("malformed", "The body is signed, but holds no events.") from None
