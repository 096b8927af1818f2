"""What became of a mail after it was accepted, as the rest of the system sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class MailEvent:
    """One thing that happened to a mail for one of its recipients.

    Events come more than once and in any order: ``id`` tells the repeated ones, ``at`` the order.

    Attributes:
        kind: "processed", "deferred", "delivered", "bounce", "dropped", "open", or another that
            SendGrid may add.
        message_id: As in ``Accepted``. Empty in events that belong to no mail.
        recipient: An email address.
        at: In UTC, to the second.
        reason: Why it was not delivered (yet), in the words of who refused it.
        custom_args: What the mail was sent with.
    """

    id: str
    kind: str
    message_id: str
    recipient: str
    at: datetime
    reason: str | None
    custom_args: Mapping[str, str]


class MailEvents(Protocol):
    """Reads the events that a vendor posts to us."""

    def read(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> list[MailEvent]:
        """The events of one request, in its order.

        Args:
            body: As it came, to the byte.
            headers: The request's, under names in any case.
            now: When it came.

        Raises:
            UntrustedEvents: The signature is missing, wrong or too old.
            MalformedEvents: The signed body is not a list of events.
        """
        ...
