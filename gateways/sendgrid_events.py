"""SendGrid's Event Webhook, behind the MailEvents protocol."""

import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from sendgrid.helpers.eventwebhook import (  # type: ignore[import-untyped]  # No types.
    EventWebhook,
    EventWebhookHeader,
)

from gateways.mail_events import MailEvent
from gateways.webhooks import MalformedEvents, UntrustedEvents

# SendGrid tries for a day to deliver events; what is repeated within it is known by its id.
MAX_AGE = timedelta(hours=25)
MAX_AHEAD = timedelta(minutes=5)

_OWN_FIELDS = frozenset(
    {
        "asm_group_id",
        "attempt",
        "bounce_classification",
        "category",
        "cert_err",
        "email",
        "event",
        "ip",
        "marketing_campaign_id",
        "marketing_campaign_name",
        "newsletter",
        "pool",
        "reason",
        "response",
        "send_at",
        "sg_content_type",
        "sg_event_id",
        "sg_machine_open",
        "sg_message_id",
        "sg_template_id",
        "sg_template_name",
        "singlesend_id",
        "smtp-id",
        "status",
        "template_id",
        "timestamp",
        "tls",
        "type",
        "unique_args",
        "url",
        "url_offset",
        "useragent",
    }
)
# An event's message id is the accepted mail's, then which machine took it for whom.
_ROUTE = re.compile(r"\.(?:recvd|filter)")


class SendGridEvents:
    """Trusts what SendGrid has signed, if it did so lately.

    Args:
        public_key: The webhook's verification key, as SendGrid's settings page shows it.
        max_age: How old a signature may be.

    Raises:
        ValueError: That is not such a key.
    """

    def __init__(self, public_key: str, *, max_age: timedelta = MAX_AGE) -> None:
        self._verifier = EventWebhook(public_key)
        if not isinstance(self._verifier.public_key, ec.EllipticCurvePublicKey):
            # A wrong setting, as an unreadable key is one, and not a caller's mistake of type.
            raise ValueError("the webhook's verification key is no ECDSA key")  # noqa: TRY004
        self._max_age = max_age

    def read(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> list[MailEvent]:
        """The events of one request; see ``MailEvents``."""
        sent = {name.lower(): value for name, value in headers.items()}
        signature = sent.get(EventWebhookHeader.SIGNATURE.lower(), "")
        timestamp = sent.get(EventWebhookHeader.TIMESTAMP.lower(), "")
        text = self._verified(body, signature, timestamp)
        age = now - _instant(timestamp)
        if not -MAX_AHEAD <= age <= self._max_age:
            raise UntrustedEvents(f"sendgrid: events signed {age} ago")
        try:
            return [_event(fields) for fields in json.loads(text)]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise MalformedEvents(f"sendgrid: not events: {error!r}") from error

    def _verified(self, body: bytes, signature: str, timestamp: str) -> str:
        try:
            text = body.decode()
            if timestamp.isascii() and self._verifier.verify_signature(text, signature, timestamp):
                return text
        except (UnicodeDecodeError, binascii.Error, ValueError) as error:
            raise UntrustedEvents("sendgrid: events without a readable signature") from error
        raise UntrustedEvents("sendgrid: events with a wrong signature")


def _instant(timestamp: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(timestamp), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UntrustedEvents(f"sendgrid: events signed at {timestamp!r}") from error


def _event(fields: Mapping[str, Any]) -> MailEvent:
    return MailEvent(
        id=str(fields["sg_event_id"]),
        kind=str(fields["event"]),
        message_id=_ROUTE.split(str(fields.get("sg_message_id", "")))[0],
        recipient=str(fields["email"]),
        at=datetime.fromtimestamp(int(fields["timestamp"]), UTC),
        reason=fields.get("reason") or fields.get("response"),
        custom_args={
            name: value
            for name, value in fields.items()
            if name not in _OWN_FIELDS and isinstance(value, str)
        },
    )
