"""The types of request fields: what each accepts, and what it says when it refuses.

A field is refused, never corrected: a number where a decimal text belongs has been a float.
"""

import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, NotRequired, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from billing.currencies import currency_code
from billing.cycles import time_zone
from billing.dates import MAX_NET_DAYS
from billing.dunning import DunningFinal
from billing.errors import InvalidInput
from billing.instants import date_or_instant, instant, iso_date
from billing.money import MAX_AMOUNT, decimal_from
from billing.number_formats import MAX_NEXT_NUMBER
from billing.reviews import MAX_REVIEW_HOURS
from billing.texts import MAX_LONG, MAX_SHORT
from tasks.accounts import MAX_DUNNING_DAYS, MAX_TRIES_AGAIN
from tasks.automation import PERSON
from tasks.tax_rates import MAX_TAX_RATES

FORBID_UNKNOWN = ConfigDict(extra="forbid")
MAX_METADATA = 50
MAX_EMAIL = 254

_EMAIL = re.compile(r"[^@\s\x00]+@[^@\s\x00]+")
# JavaScript's largest exact integer: what every JSON reader hands on unchanged.
_MAX_JSON_INTEGER = 2**53 - 1

Parsed = TypeVar("Parsed")


def refused(message: str) -> PydanticCustomError:
    """What a validator raises: ``message`` says what the value must be."""
    return PydanticCustomError("refused", "{message}", {"message": message})


def _by_rule(rule: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    """A billing rule as a validator: its refusal becomes this field's."""

    def check(text: str) -> Parsed:
        try:
            return rule(text)
        except InvalidInput as error:
            raise refused(error.message) from None

    return check


def _storable(text: str) -> str:
    if "\x00" in text:
        raise refused("must not contain the NUL character")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise refused("must not be empty")
    return text


def _not_zero(amount: int) -> int:
    if amount == 0:
        raise refused("must not be zero")
    return amount


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise refused("must be an email address, such as ada@example.com")
    return text


def _review_hours(value: object) -> object:
    if value == PERSON or (type(value) is int and 0 <= value <= MAX_REVIEW_HOURS):
        return value
    raise refused(f'must be 0 to {MAX_REVIEW_HOURS} hours, or "{PERSON}"')


def _decimal(value: object) -> Decimal:
    if not isinstance(value, str):
        raise refused('must be a decimal in quotes, such as "0.25": a bare number may lose digits')
    return _by_rule(lambda text: decimal_from(text, "decimal"))(value)


def _text(rule: Callable[[str], Parsed]) -> Callable[[object], Parsed]:
    """A rule about how a value is written, as a validator of any JSON value."""

    def check(value: object) -> Parsed:
        return _by_rule(rule)(value if isinstance(value, str) else "")

    return check


def _metadata_value(value: object) -> object:
    match value:
        case bool():
            return value
        case int() if abs(value) <= _MAX_JSON_INTEGER:
            return value
        case str() if len(value) <= MAX_LONG and _is_unicode(value):
            return _storable(value)
        case _:
            raise refused(
                f"must be a text of at most {MAX_LONG} characters, an integer or a boolean"
            )


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


ShortText = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_SHORT), AfterValidator(_storable)
]
"""One line of text, not empty."""

Name = Annotated[ShortText, AfterValidator(_not_blank)]
Description = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_LONG),
    AfterValidator(_storable),
    AfterValidator(_not_blank),
]
Note = Description
"""A few sentences for the books, not empty."""

Email = Annotated[
    str,
    StringConstraints(max_length=MAX_EMAIL),
    AfterValidator(_email),
    WithJsonSchema({"type": "string", "maxLength": MAX_EMAIL, "pattern": f"^{_EMAIL.pattern}$"}),
]
CurrencyCode = Annotated[
    str,
    AfterValidator(_by_rule(currency_code)),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z]{3}$", "description": "ISO 4217"}),
]
ZoneName = Annotated[
    str,
    AfterValidator(_by_rule(lambda name: time_zone(name).key)),
    WithJsonSchema({"type": "string", "description": "IANA time zone, such as America/Chicago"}),
]
Flag = Annotated[bool, Field(strict=True)]
AnchorDay = Annotated[
    int,
    Field(
        strict=True,
        ge=1,
        le=31,
        description="Where periods begin: on a monthly cycle a day of the month, in shorter months "
        "the last; on a weekly one an ISO weekday (1 is Monday). A semimonthly cycle has the 1st "
        "and the 15th.",
    ),
]
ReviewHours = Annotated[
    int,
    Field(
        strict=True,
        ge=0,
        le=MAX_REVIEW_HOURS,
        description="How long a billing period's draft stays one before it is finalized by itself, "
        "from the moment it is made; 0 is at once.",
    ),
]
ClientReviewHours = Annotated[
    int | str,
    PlainValidator(_review_hours),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_REVIEW_HOURS},
                {"const": PERSON},
            ],
            "description": f"As the account's; `{PERSON}` leaves the drafts to a person.",
        }
    ),
]
NetDays = Annotated[int, Field(strict=True, ge=0, le=MAX_NET_DAYS)]
NextNumber = Annotated[int, Field(strict=True, ge=1, le=MAX_NEXT_NUMBER)]
Amount = Annotated[int, Field(strict=True, ge=-MAX_AMOUNT, le=MAX_AMOUNT)]
Total = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
PositiveAmount = Annotated[int, Field(strict=True, ge=1, le=MAX_AMOUNT)]
SignedAmount = Annotated[
    Amount,
    AfterValidator(_not_zero),
    WithJsonSchema(
        {
            "type": "integer",
            "minimum": -MAX_AMOUNT,
            "maximum": MAX_AMOUNT,
            "not": {"const": 0},
        }
    ),
]
DecimalText = Annotated[
    Decimal,
    PlainValidator(_decimal),
    WithJsonSchema({"type": "string", "pattern": r"^[+-]?[0-9]{1,20}(\.[0-9]{1,20})?$"}),
]
IsoDate = Annotated[
    date,
    PlainValidator(_text(lambda text: iso_date(text, "date"))),
    WithJsonSchema({"type": "string", "format": "date"}),
]
Instant = Annotated[
    datetime,
    PlainValidator(_text(lambda text: instant(text, "instant"))),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
AsOf = Annotated[
    date | datetime,
    PlainValidator(_text(lambda text: date_or_instant(text, "as_of"))),
    WithJsonSchema({"anyOf": [{"type": "string", "format": f} for f in ("date-time", "date")]}),
]
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_storable)],
        Annotated[
            Any,
            AfterValidator(_metadata_value),
            WithJsonSchema({"type": ["string", "integer", "boolean"]}),
        ],
    ],
    Field(max_length=MAX_METADATA),
]
TaxIds = Annotated[list[ShortText], Field(max_length=10)]
TaxRateIds = Annotated[
    list[UUID],
    Field(
        max_length=MAX_TAX_RATES,
        json_schema_extra={"uniqueItems": True},
        description="Ids of tax rates; those apply that are valid on the charge's date.",
    ),
]


class Address(TypedDict, total=False):
    """A postal address, line by line; printed in this order."""

    __pydantic_config__ = FORBID_UNKNOWN  # type: ignore[misc]  # pydantic's way to set it here.

    line1: ShortText
    line2: ShortText
    city: ShortText
    state: ShortText
    postal_code: ShortText
    country: ShortText


class Switches(TypedDict, total=False):
    """Which mails to switch on or off; what is left out stays, null takes the switch away."""

    __pydantic_config__ = FORBID_UNKNOWN  # type: ignore[misc]  # pydantic's way, as above.

    invoice_ready: Flag | None
    receipt: Flag | None
    payment_failed: Flag | None
    authentication_needed: Flag | None
    card_expiring: Flag | None


class Pauses(TypedDict, total=False):
    """What to pause (true) or to let go on (false); what is left out stays."""

    __pydantic_config__ = FORBID_UNKNOWN  # type: ignore[misc]  # pydantic's way, as above.

    billing: Flag
    collection: Flag


class Dunning(TypedDict):
    """When a declined card is tried again: days from each automatic try to the next.

    `final` says what becomes of the invoice after the last; it stays as it is where left out.
    """

    __pydantic_config__ = FORBID_UNKNOWN  # type: ignore[misc]  # pydantic's way, as above.

    days: Annotated[
        list[Annotated[int, Field(strict=True, ge=1, le=MAX_DUNNING_DAYS)]],
        Field(max_length=MAX_TRIES_AGAIN),
    ]
    final: NotRequired[DunningFinal]


class NoOptions(BaseModel):
    """This command takes no options."""

    model_config = FORBID_UNKNOWN | ConfigDict(json_schema_extra={"examples": [{}]})


def plain(value: Decimal) -> str:
    """A decimal as text, without exponent and without zeros that say nothing: ``0.25``, ``3``."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
