"""Mail, as the rest of the system sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from billing.errors import DuecourseError


class OutcomeUnknown(DuecourseError):  # noqa: N818 - named as the fact it states.
    """The mail may have been accepted: sending it again might send it twice.

    Not a ``TransientFailure``, so that nobody who repeats those repeats this one. Whether it was
    accepted is told by its events, which carry its custom arguments.
    """


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Who a mail is from or for; ``name`` is shown to people and may be empty."""

    email: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a mail; ``content_type`` is a MIME type ("application/pdf")."""

    filename: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One mail, ready to send.

    Attributes:
        sender: An address of a domain that may send through us.
        reply_to: Who gets the answers, when that is not the sender.
        to: At least one.
        text: The body for those who read no HTML. At least one character.
        html: The body for the others.
        custom_args: Come back in every event of this mail; at most 10,000 bytes, and nothing
            private. Names that events themselves use ("email", "timestamp", "event") are lost.
        category: Groups mails in statistics; one name per kind of mail.
    """

    sender: Mailbox
    to: tuple[Mailbox, ...]
    subject: str
    text: str
    html: str | None = None
    cc: tuple[Mailbox, ...] = ()
    reply_to: Mailbox | None = None
    attachments: tuple[Attachment, ...] = ()
    custom_args: Mapping[str, str] = field(default_factory=dict)
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Queued to be delivered. ``message_id`` is in every event of this mail."""

    message_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """This mail will never be accepted as it is. An outcome to record, not an error to raise."""

    reason: str


class MailGateway(Protocol):
    """Sends mail. Safe to use from many threads."""

    def send(self, mail: Mail) -> Accepted | Refused:
        """Hand over one mail, once: there is no idempotency key.

        Raises:
            TransientFailure: It was certainly not accepted; send it again later.
            OutcomeUnknown: It may have been accepted; do not send it again unasked.
        """
        ...
