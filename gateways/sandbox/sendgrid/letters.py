"""What each personalization of an accepted request becomes: one letter with its recipients."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, formataddr
from typing import Any

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Enclosure:
    """An attachment, decoded."""

    filename: str
    content_type: str
    content: bytes
    disposition: str
    content_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One mail as its recipients would get it; addresses are pairs of name and email."""

    sender: tuple[str, str]
    reply_to: tuple[tuple[str, str], ...]
    to: tuple[tuple[str, str], ...]
    cc: tuple[tuple[str, str], ...]
    bcc: tuple[tuple[str, str], ...]
    subject: str
    headers: Mapping[str, str]
    contents: tuple[tuple[str, str], ...]
    enclosures: tuple[Enclosure, ...]
    categories: tuple[str, ...]
    custom_args: Mapping[str, str]

    @property
    def recipients(self) -> list[str]:
        """The address of everyone who gets it, and has events of their own."""
        return [email for _name, email in (*self.to, *self.cc, *self.bcc)]

    @property
    def html(self) -> str | None:
        """The HTML body, when there is one."""
        return dict(self.contents).get("text/html")


def letters_of(payload: JsonObject) -> Iterator[Letter]:
    """The letters of a valid request, in its order."""
    enclosures = tuple(_enclosure(attachment) for attachment in payload.get("attachments", []))
    reply_to = [payload["reply_to"]] if "reply_to" in payload else payload.get("reply_to_list", [])
    for entry in payload["personalizations"]:
        swaps: Mapping[str, str] = entry.get("substitutions", {})
        subject = entry.get("subject") or payload.get("subject") or _template(payload)
        blocks = payload.get("content") or [{"type": "text/plain", "value": _template(payload)}]
        yield Letter(
            sender=_address(entry.get("from") or payload["from"]),
            reply_to=tuple(map(_address, reply_to)),
            to=tuple(map(_address, entry["to"])),
            cc=tuple(map(_address, entry.get("cc", []))),
            bcc=tuple(map(_address, entry.get("bcc", []))),
            subject=_substituted(subject, swaps),
            headers={**payload.get("headers", {}), **entry.get("headers", {})},
            contents=tuple((part["type"], _substituted(part["value"], swaps)) for part in blocks),
            enclosures=enclosures,
            categories=tuple(payload.get("categories", [])),
            custom_args={**payload.get("custom_args", {}), **entry.get("custom_args", {})},
        )


def message_of(letter: Letter, *, message_id: str, accepted_at: float) -> EmailMessage:
    """The letter as a MIME message that any mail program opens."""
    message = EmailMessage(policy=SMTP)
    message["From"] = _written(letter.sender)
    message["To"] = ", ".join(map(_written, letter.to))
    if letter.cc:
        message["Cc"] = ", ".join(map(_written, letter.cc))
    if letter.bcc:
        message["Bcc"] = ", ".join(map(_written, letter.bcc))
    if letter.reply_to:
        message["Reply-To"] = ", ".join(map(_written, letter.reply_to))
    message["Subject"] = letter.subject
    message["Date"] = format_datetime(datetime.fromtimestamp(accepted_at, UTC))
    message["Message-ID"] = f"<{message_id}@sendgrid.sandbox>"
    for category in letter.categories:
        message["X-Category"] = _one_line(category)
    for name, value in letter.custom_args.items():
        message["X-Custom-Arg"] = _one_line(f"{name}={value}")
    for name, value in letter.headers.items():
        if name not in message:
            message[name] = value
    _fill(message, letter)
    return message


def _fill(message: EmailMessage, letter: Letter) -> None:
    (first_type, first), *others = letter.contents
    message.set_content(first, subtype=_subtype(first_type))
    for content_type, value in others:
        message.add_alternative(value, subtype=_subtype(content_type))
    for enclosure in letter.enclosures:
        maintype, _, subtype = enclosure.content_type.partition("/")
        message.add_attachment(
            enclosure.content,
            maintype=maintype,
            subtype=subtype or "octet-stream",
            filename=enclosure.filename,
            disposition=enclosure.disposition,
            cid=f"<{enclosure.content_id}>" if enclosure.content_id else None,
        )


def _subtype(content_type: str) -> str:
    return content_type.partition("/")[2] or "plain"


def _enclosure(attachment: JsonObject) -> Enclosure:
    return Enclosure(
        filename=attachment["filename"],
        content_type=attachment.get("type", "application/octet-stream"),
        content=base64.b64decode(attachment["content"]),
        disposition=attachment.get("disposition", "attachment"),
        content_id=attachment.get("content_id"),
    )


def _template(payload: JsonObject) -> str:
    return f"(template {payload.get('template_id')})"


def _substituted(text: str, swaps: Mapping[str, str]) -> str:
    for tag, value in swaps.items():
        text = text.replace(tag, value)
    return text


def _address(address: JsonObject) -> tuple[str, str]:
    return address.get("name", ""), address["email"]


def _written(address: tuple[str, str]) -> str:
    name, email = address
    return formataddr((_one_line(name), email))


def _one_line(text: str) -> str:
    return " ".join(text.split())
