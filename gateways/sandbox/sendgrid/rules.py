"""What SendGrid asks of a mail beyond its shape: who, what about, how much of it."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from gateways.sandbox.sendgrid.problems import Problem
from gateways.sandbox.sendgrid.shapes import MAIL_SEND, misshapen

MAX_BODY_BYTES = 30_000_000
MAX_PERSONALIZATIONS = 1_000
MAX_RECIPIENTS = 1_000
MAX_CATEGORIES = 10
MAX_CATEGORY_CHARACTERS = 255
MAX_CUSTOM_ARGS_BYTES = 10_000
MAX_SECONDS_AHEAD = 72 * 3_600

RESERVED_HEADERS = frozenset(
    {
        "x-sg-id",
        "x-sg-eid",
        "received",
        "dkim-signature",
        "content-type",
        "content-transfer-encoding",
        "to",
        "from",
        "subject",
        "reply-to",
        "cc",
        "bcc",
    }
)
DISPOSITIONS = frozenset({"inline", "attachment"})

_EMAIL = re.compile(r"[!-?A-~]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_CONTENT_ORDER = ("text/plain", "text/html")
_BYPASSES = ("bypass_spam_management", "bypass_bounce_management", "bypass_unsubscribe_management")

JsonObject = Mapping[str, Any]


def problems_of(payload: object, *, now: float) -> list[Problem]:
    """All that SendGrid would refuse in a decoded mail-send request; empty when it is accepted.

    Args:
        payload: Any JSON value.
        now: The time of the request, in seconds since 1970.
    """
    misshapes = list(misshapen(MAIL_SEND, payload))
    if misshapes or not isinstance(payload, dict):
        return misshapes
    return list(
        chain(
            _personalizations(payload),
            _sender(payload),
            _subject(payload),
            _content(payload),
            _attachments(payload),
            _categories(payload),
            _custom_args(payload),
            _headers(payload),
            _schedule(payload, now),
            _settings(payload),
        )
    )


def is_sandboxed(payload: JsonObject) -> bool:
    """Whether a valid request only asks to be checked."""
    settings: JsonObject = payload.get("mail_settings", {})
    return bool(settings.get("sandbox_mode", {}).get("enable"))


def _personalizations(payload: JsonObject) -> Iterator[Problem]:
    entries = payload.get("personalizations") or []
    if not entries:
        yield Problem(
            "The personalizations field is required and must have at least one personalization.",
            "personalizations",
        )
    if len(entries) > MAX_PERSONALIZATIONS:
        yield Problem(
            "The personalization block is limited to 1000 personalizations per API request. "
            f"You have provided {len(entries)} personalizations. Please consider splitting this "
            "into multiple requests and resending your request.",
            "personalizations",
        )
    if sum(len(_recipients(entry)) for entry in entries) > MAX_RECIPIENTS:
        yield Problem(
            "There is a limit of 1000 total recipients (to + cc + bcc) per request.",
            "personalizations",
        )
    for position, entry in enumerate(entries):
        yield from _personalization(entry, f"personalizations.{position}")


def _personalization(entry: JsonObject, path: str) -> Iterator[Problem]:
    if not entry.get("to"):
        yield Problem(
            "The to array is required for all personalization objects, and must have at least "
            "one email object with a valid email address.",
            f"{path}.to",
        )
    seen = set()
    for kind, position, address in _recipients(entry):
        yield from _address(address, f"{path}.{kind}.{position}.email")
        email = address.get("email", "").lower()
        if email in seen:
            yield Problem(
                "Each email address in the personalization block should be unique between to, "
                f"cc, and bcc. We found the first duplicate instance of [{email}] in the "
                f"{path}.{kind} field.",
                path,
            )
            return
        seen.add(email)


def _recipients(entry: JsonObject) -> list[tuple[str, int, JsonObject]]:
    return [
        (kind, position, address)
        for kind in ("to", "cc", "bcc")
        for position, address in enumerate(entry.get(kind, []))
    ]


def _address(address: JsonObject, path: str) -> Iterator[Problem]:
    if not _EMAIL.fullmatch(address.get("email", "")):
        yield Problem("Does not contain a valid address.", path)


def _sender(payload: JsonObject) -> Iterator[Problem]:
    if not payload.get("from", {}).get("email"):
        yield Problem(
            "The from object must be provided for every email send. It is an object that "
            "requires the email parameter, but may also contain a name parameter.  "
            'e.g. {"email" : "example@example.com"}  or '
            '{"email" : "example@example.com", "name" : "Example Recipient"}.',
            "from.email",
        )
    else:
        yield from _address(payload["from"], "from.email")
    for position, entry in enumerate(payload.get("personalizations", [])):
        if "from" in entry:
            yield from _address(entry["from"], f"personalizations.{position}.from.email")
    if "reply_to" in payload and "reply_to_list" in payload:
        yield Problem(
            "You can use either the reply_to or the reply_to_list property, but not both.",
            "reply_to",
        )
    if "reply_to" in payload:
        yield from _address(payload["reply_to"], "reply_to.email")
    for position, address in enumerate(payload.get("reply_to_list", [])):
        yield from _address(address, f"reply_to_list.{position}.email")


def _subject(payload: JsonObject) -> Iterator[Problem]:
    entries = payload.get("personalizations", [])
    if not (
        payload.get("subject")
        or payload.get("template_id")
        or (entries and all(entry.get("subject") for entry in entries))
    ):
        yield Problem(
            "The subject is required. You can get around this requirement if you use a template "
            "with a subject defined or if every personalization has a subject defined.",
            "subject",
        )
    for path, holder in _holders(payload):
        if holder.get("subject") == "":
            yield Problem(
                "The subject must be a string at least one character in length.", f"{path}subject"
            )
        if re.search(r"[\r\n]", holder.get("subject", "")):
            yield Problem("The subject may not contain line breaks.", f"{path}subject")


def _content(payload: JsonObject) -> Iterator[Problem]:
    blocks = payload.get("content", [])
    if not blocks and not payload.get("template_id"):
        yield Problem(
            "Unless a valid template_id is provided, the content parameter is required. There "
            "must be at least one defined content block. We typically suggest both text/plain and "
            "text/html blocks are included, but only one block is required.",
            "content",
        )
    for position, block in enumerate(blocks):
        for name in ("type", "value"):
            if not block.get(name):
                yield Problem(
                    f"The content {name} must be a string at least one character in length.",
                    f"content.{position}.{name}",
                )
    types = [block.get("type") for block in blocks]
    if any(types.count(kind) > 1 for kind in _CONTENT_ORDER):
        yield Problem("If present, text/plain and text/html may only be provided once.", "content")
    ranks = [_CONTENT_ORDER.index(kind) if kind in _CONTENT_ORDER else 2 for kind in types]
    if ranks != sorted(ranks):
        yield Problem(
            "If present, text/plain and text/html must be the first values in the content array, "
            "in that order.",
            "content",
        )


def _attachments(payload: JsonObject) -> Iterator[Problem]:
    for position, attachment in enumerate(payload.get("attachments", [])):
        path = f"attachments.{position}"
        if not attachment.get("content"):
            yield Problem("The attachment content is required.", f"{path}.content")
        elif not _is_base64(attachment["content"]):
            yield Problem("The attachment content must be base64 encoded.", f"{path}.content")
        if not attachment.get("filename"):
            yield Problem("The attachment filename is required.", f"{path}.filename")
        if re.search(r"[;\r\n]", attachment.get("type", "")) or attachment.get("type") == "":
            yield Problem(
                "The attachment type cannot contain ; or line breaks and must be at least one "
                "character in length.",
                f"{path}.type",
            )
        if attachment.get("disposition", "attachment") not in DISPOSITIONS:
            yield Problem(
                'The disposition of an attachment must be "inline" or "attachment".',
                f"{path}.disposition",
            )


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


def _categories(payload: JsonObject) -> Iterator[Problem]:
    categories = payload.get("categories", [])
    if len(categories) > MAX_CATEGORIES:
        yield Problem("You cannot have more than 10 categories per request.", "categories")
    if len(set(categories)) < len(categories):
        yield Problem("The categories must be unique.", "categories")
    for position, category in enumerate(categories):
        if len(category) > MAX_CATEGORY_CHARACTERS:
            yield Problem("A category name cannot exceed 255 characters.", f"categories.{position}")


def _custom_args(payload: JsonObject) -> Iterator[Problem]:
    for path, holder in _holders(payload):
        size = sum(
            len(f"{name}{value}".encode()) for name, value in holder.get("custom_args", {}).items()
        )
        if size > MAX_CUSTOM_ARGS_BYTES:
            yield Problem(
                "The custom_args may not exceed 10000 bytes for each email.", f"{path}custom_args"
            )


def _headers(payload: JsonObject) -> Iterator[Problem]:
    for path, holder in _holders(payload):
        for name, value in holder.get("headers", {}).items():
            if name.lower() in RESERVED_HEADERS:
                yield Problem(f"You cannot override the {name} header.", f"{path}headers.{name}")
            elif not re.fullmatch(r"[!-9;-~]+", name) or re.search(r"[\r\n]", value):
                yield Problem("The header is not well formed.", f"{path}headers.{name}")


def _schedule(payload: JsonObject, now: float) -> Iterator[Problem]:
    for path, holder in _holders(payload):
        if holder.get("send_at", 0) > now + MAX_SECONDS_AHEAD:
            yield Problem(
                "Scheduling more than 72 hours in advance is forbidden.", f"{path}send_at"
            )


def _settings(payload: JsonObject) -> Iterator[Problem]:
    if "asm" in payload and "group_id" not in payload["asm"]:
        yield Problem("The asm group_id is required.", "asm.group_id")
    if len(payload.get("asm", {}).get("groups_to_display", [])) > 25:
        yield Problem("You can have at most 25 groups to display.", "asm.groups_to_display")
    if "ip_pool_name" in payload and not 2 <= len(payload["ip_pool_name"]) <= 64:
        yield Problem("The ip_pool_name must be 2 to 64 characters long.", "ip_pool_name")
    settings: JsonObject = payload.get("mail_settings", {})
    enabled = {name for name, setting in settings.items() if setting.get("enable")}
    if "bypass_list_management" in enabled and enabled.intersection(_BYPASSES):
        yield Problem(
            "The bypass_list_management setting cannot be combined with other bypass settings.",
            "mail_settings.bypass_list_management",
        )


def _holders(payload: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """Where a field may stand that a personalization overrides, with the path that leads there."""
    yield "", payload
    for position, entry in enumerate(payload.get("personalizations", [])):
        yield f"personalizations.{position}.", entry
