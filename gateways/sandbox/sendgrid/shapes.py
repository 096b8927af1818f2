"""The shape of a mail-send request: which fields there are, and of what type."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gateways.sandbox.sendgrid.problems import Problem

_NAMES: Mapping[type, str] = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "integer",
    list: "array",
    str: "string",
    type(None): "null",
}


@dataclass(frozen=True, slots=True)
class Anything:
    """A value that SendGrid passes on unread."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A string, an integer or a boolean."""

    type: type


@dataclass(frozen=True, slots=True)
class ListOf:
    """An array of values of one shape."""

    item: "Shape"


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with any names and values of one shape."""

    value: "Shape"


@dataclass(frozen=True, slots=True)
class Fields:
    """An object with these names and no others."""

    fields: Mapping[str, "Shape"] = field(default_factory=dict)


Shape = Anything | Plain | ListOf | MapOf | Fields

TEXT, INTEGER, FLAG = Plain(str), Plain(int), Plain(bool)
ADDRESS = Fields({"email": TEXT, "name": TEXT})
SWITCH = Fields({"enable": FLAG})

PERSONALIZATION = Fields(
    {
        "from": ADDRESS,
        "to": ListOf(ADDRESS),
        "cc": ListOf(ADDRESS),
        "bcc": ListOf(ADDRESS),
        "subject": TEXT,
        "headers": MapOf(TEXT),
        "substitutions": MapOf(TEXT),
        "dynamic_template_data": MapOf(Anything()),
        "custom_args": MapOf(TEXT),
        "send_at": INTEGER,
    }
)

MAIL_SEND = Fields(
    {
        "personalizations": ListOf(PERSONALIZATION),
        "from": ADDRESS,
        "reply_to": ADDRESS,
        "reply_to_list": ListOf(ADDRESS),
        "subject": TEXT,
        "content": ListOf(Fields({"type": TEXT, "value": TEXT})),
        "attachments": ListOf(
            Fields(
                {
                    "content": TEXT,
                    "type": TEXT,
                    "filename": TEXT,
                    "disposition": TEXT,
                    "content_id": TEXT,
                }
            )
        ),
        "template_id": TEXT,
        "headers": MapOf(TEXT),
        "categories": ListOf(TEXT),
        "custom_args": MapOf(TEXT),
        "send_at": INTEGER,
        "batch_id": TEXT,
        "asm": Fields({"group_id": INTEGER, "groups_to_display": ListOf(INTEGER)}),
        "ip_pool_name": TEXT,
        "mail_settings": Fields(
            {
                "bypass_list_management": SWITCH,
                "bypass_spam_management": SWITCH,
                "bypass_bounce_management": SWITCH,
                "bypass_unsubscribe_management": SWITCH,
                "footer": Fields({"enable": FLAG, "text": TEXT, "html": TEXT}),
                "sandbox_mode": SWITCH,
            }
        ),
        "tracking_settings": Fields(
            {
                "click_tracking": Fields({"enable": FLAG, "enable_text": FLAG}),
                "open_tracking": Fields({"enable": FLAG, "substitution_tag": TEXT}),
                "subscription_tracking": Fields(
                    {"enable": FLAG, "text": TEXT, "html": TEXT, "substitution_tag": TEXT}
                ),
                "ganalytics": Fields(
                    {
                        "enable": FLAG,
                        "utm_source": TEXT,
                        "utm_medium": TEXT,
                        "utm_term": TEXT,
                        "utm_content": TEXT,
                        "utm_campaign": TEXT,
                    }
                ),
            }
        ),
    }
)


def misshapen(shape: Shape, value: object, path: str = "") -> Iterator[Problem]:
    """Each place where a decoded JSON ``value`` has another type, or a field nobody knows."""
    match shape:
        case Plain(type=wanted):
            # In Python, not in JSON, a boolean is an integer.
            if type(value) is not wanted:
                yield _wrong_type(_NAMES[wanted], value, path)
        case ListOf(item=item):
            if isinstance(value, list):
                for position, entry in enumerate(value):
                    yield from misshapen(item, entry, _join(path, str(position)))
            else:
                yield _wrong_type("array", value, path)
        case MapOf() | Fields():
            if isinstance(value, dict):
                yield from _misshapen_fields(shape, value, path)
            else:
                yield _wrong_type("object", value, path)
        case Anything():
            return


def _misshapen_fields(
    shape: MapOf | Fields, value: Mapping[str, object], path: str
) -> Iterator[Problem]:
    for name, entry in value.items():
        inner = shape.value if isinstance(shape, MapOf) else shape.fields.get(name)
        if inner is None:
            yield Problem(f"Additional property {name} is not allowed", path or name)
        else:
            yield from misshapen(inner, entry, _join(path, name))


def _wrong_type(expected: str, value: object, path: str) -> Problem:
    given = _NAMES[type(value)]
    return Problem(f"Invalid type. Expected: {expected}, given: {given}.", path or None)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
