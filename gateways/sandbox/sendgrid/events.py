"""The events that SendGrid tells of a mail's way, in the form its Event Webhook posts them."""

import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from gateways.sandbox.sendgrid.letters import Letter


class EventKind(StrEnum):
    """A step on a mail's way, or its end."""

    PROCESSED = "processed"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    BOUNCE = "bounce"
    DROPPED = "dropped"
    OPEN = "open"


_IP = "127.0.0.1"
_REASONS = {
    EventKind.BOUNCE: "550 5.1.1 The email account that you tried to reach does not exist.",
    EventKind.DROPPED: "Bounced Address",
}


def events_of(
    letter: Letter, kind: EventKind, *, message_id: str, at: float, reason: str | None = None
) -> list[dict[str, Any]]:
    """One event for each recipient.

    Args:
        letter: Whose way it is. Its custom arguments become fields of each event.
        kind: What happened.
        message_id: What the sender was answered.
        at: When it happened, in seconds since 1970.
        reason: Why a mail bounced or was dropped; a usual reason when ``None``.
    """
    return [
        {
            **letter.custom_args,
            "email": recipient,
            "timestamp": int(at),
            "event": kind.value,
            "sg_event_id": secrets.token_urlsafe(16),
            "sg_message_id": f"{message_id}.recvd-sandbox-1.{position}",
            **({"category": list(letter.categories)} if letter.categories else {}),
            **_details(kind, message_id, reason),
        }
        for position, recipient in enumerate(letter.recipients)
    ]


def _details(kind: EventKind, message_id: str, reason: str | None) -> Mapping[str, Any]:
    smtp_id = f"<{message_id}@sendgrid.sandbox>"
    match kind:
        case EventKind.PROCESSED:
            return {"smtp-id": smtp_id}
        case EventKind.DEFERRED:
            return {"smtp-id": smtp_id, "response": "421 4.7.0 Try again later", "attempt": "1"}
        case EventKind.DELIVERED:
            return {"smtp-id": smtp_id, "response": "250 2.0.0 OK", "ip": _IP, "tls": 1}
        case EventKind.BOUNCE:
            return {
                "smtp-id": smtp_id,
                "reason": reason or _REASONS[kind],
                "status": "5.1.1",
                "type": "bounce",
                "bounce_classification": "Invalid Address",
                "ip": _IP,
                "tls": 1,
            }
        case EventKind.DROPPED:
            return {"smtp-id": smtp_id, "reason": reason or _REASONS[kind], "status": "5.0.0"}
        case EventKind.OPEN:
            return {"useragent": "Mozilla/5.0", "ip": _IP, "sg_machine_open": False}
