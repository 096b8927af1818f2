"""The control side, from the other end of the line."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import urllib3

from billing.errors import DuecourseError
from gateways.sandbox.sendgrid.events import EventKind
from gateways.sandbox.sendgrid.faults import Fault
from gateways.sandbox.sendgrid.store import Delivery, LoggedRequest

TIMEOUT = urllib3.Timeout(connect=3.0, read=30.0)


class ControlRefused(DuecourseError):  # noqa: N818 - named as the fact it states.
    """The sandbox did not do as told. The message says why."""


@dataclass(frozen=True, slots=True)
class SentMail:
    """A mail that the sandbox accepted: one for each personalization.

    Attributes:
        number: Counts from 1 in the order of acceptance.
        message_id: What the sender was, or would have been, answered.
        position: Which personalization of the request it was, from 0.
        accepted_at: Seconds since 1970.
        recipients: Email addresses, cc and bcc included.
        folder: Holds ``mail.eml``, ``mail.html`` and the attachments.
    """

    number: int
    message_id: str
    position: int
    accepted_at: float
    recipients: Sequence[str]
    subject: str
    custom_args: Mapping[str, str]
    folder: Path

    @property
    def eml(self) -> bytes:
        """The mail as a mail program reads it."""
        return (self.folder / "mail.eml").read_bytes()


class SendGridControl:
    """Asks the sandbox, and tells it what to do.

    Every method raises ``ControlRefused`` when it answers an error, and urllib3's errors when it
    does not answer.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url}/_sandbox"
        self._pool = urllib3.PoolManager(retries=False, timeout=TIMEOUT)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def public_key(self) -> str:
        """What verifies the webhook's signatures, as SendGrid's settings page shows it."""
        return str(self._call("GET", "/public-key")["public_key"])

    def mails(self, *, message_id: str | None = None, **custom_args: str) -> list[SentMail]:
        """The accepted mails, oldest first, that have this id and all these custom arguments."""
        fields = {**custom_args, **({"message_id": message_id} if message_id else {})}
        found = self._call("GET", "/mails", fields=fields)
        return [SentMail(**{**mail, "folder": Path(mail["folder"])}) for mail in found]

    def requests(self) -> list[LoggedRequest]:
        """Every request to send, oldest first, answered or not."""
        return [LoggedRequest(**request) for request in self._call("GET", "/requests")]

    def fail(self, fault: Fault) -> None:
        """Make coming sends go wrong, after the faults that are in line already."""
        self._call("POST", "/faults", asdict(fault))

    def faults_in_line(self) -> int:
        """How many sends are still to go wrong."""
        return sum(fault["times"] for fault in self._call("GET", "/faults"))

    def clear_faults(self) -> None:
        """Make coming sends go well."""
        self._call("DELETE", "/faults")

    def set_webhook(
        self, url: str, *, automatic: Sequence[EventKind] = (), retry_seconds: float = 5.0
    ) -> None:
        """Say where events go.

        Args:
            url: Posted to.
            automatic: The events that follow each accepted mail by themselves, in this order; they
                are posted again until the receiver takes them or a day is over.
            retry_seconds: How long it waits in between.
        """
        self._call(
            "PUT",
            "/webhook",
            {"url": url, "automatic": list(automatic), "retry_seconds": retry_seconds},
        )

    def deliver(
        self,
        mail: SentMail,
        kind: EventKind,
        *,
        reason: str | None = None,
        copies: int = 1,
        age_seconds: float = 0.0,
        forged: bool = False,
    ) -> Delivery:
        """Post an event for each recipient of a mail to the webhook, now, and say how it ended.

        Args:
            mail: Whose way it is.
            kind: What happened to it.
            reason: Why it bounced or was dropped.
            copies: How often the same events are posted.
            age_seconds: How long ago the signature says it was made.
            forged: Whether the signature is wrong.
        """
        asked = {
            "mail": mail.number,
            "kind": kind,
            "at": time.time(),
            "reason": reason,
            "copies": copies,
            "age_seconds": age_seconds,
            "forged": forged,
        }
        return Delivery(**self._call("POST", "/events", asked))

    def deliveries(self) -> list[Delivery]:
        """Every batch of events that was made, oldest first."""
        return [Delivery(**delivery) for delivery in self._call("GET", "/deliveries")]

    def redeliver(self, delivery: Delivery) -> Delivery:
        """Post the same events once more, signed anew."""
        return Delivery(**self._call("POST", f"/deliveries/{delivery.number}/again"))

    def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        fields: Mapping[str, str] | None = None,
    ) -> Any:  # noqa: ANN401 - JSON, which each caller takes apart.
        response = self._pool.request(
            method,
            self._url + path,
            fields=dict(fields or {}) or None,
            json=body,
            # A kept one may be ended by the sandbox just as it is used again.
            headers={"Connection": "close"},
        )
        if response.status >= 400:
            raise ControlRefused(f"{method} {path}: {response.status} {response.data.decode()}")
        return response.json() if response.data else None
