"""Every operation of the sandbox and every parameter it takes, in one table.

The sandbox takes fewer parameters than Stripe, and none that Stripe does not: what Duecourse must
not send is refused here as there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from gateways.sandbox.stripe.errors import (
    malformed,
    missing_parameter,
    not_one_of,
    unknown_parameter,
)
from gateways.sandbox.stripe.forms import Value

MAX_TEXT = 5_000
MAX_METADATA_KEYS, MAX_METADATA_KEY, MAX_METADATA_VALUE = 50, 40, 500

Kind = Literal["text", "integer", "boolean", "flag", "metadata", "map", "maps", "texts", "range"]
Operation = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Parameter:
    """What one parameter takes.

    Attributes:
        kind: ``flag`` is a boolean or one of ``choices``; ``range`` is a time or its bounds.
        is_clearable: Whether an empty string unsets it.
        choices: The words that a text, or each of the texts, can be.
        fields: The members of a ``map``, or of each of the ``maps``; any, when there are none.
    """

    kind: Kind
    is_required: bool = False
    is_clearable: bool = False
    choices: tuple[str, ...] = ()
    fields: "Mapping[str, Parameter]" = field(default_factory=dict)

    @property
    def required(self) -> "Parameter":
        """The same, and the operation needs it."""
        return replace(self, is_required=True)

    @property
    def clearable(self) -> "Parameter":
        """The same, and an empty string unsets it."""
        return replace(self, is_clearable=True)


TEXT = Parameter("text")
INTEGER = Parameter("integer")
BOOLEAN = Parameter("boolean")
METADATA = Parameter("metadata")
TEXTS = Parameter("texts")
RANGE = Parameter("range")


def _one_of(*choices: str) -> Parameter:
    return Parameter("text", choices=choices)


def _map(**fields: Parameter) -> Parameter:
    return Parameter("map", fields=fields)


def _maps(**fields: Parameter) -> Parameter:
    return Parameter("maps", fields=fields)


_ADDRESS = _map(
    city=TEXT.clearable, country=TEXT.clearable, line1=TEXT.clearable,
    line2=TEXT.clearable, postal_code=TEXT.clearable, state=TEXT.clearable,
)  # fmt: skip
_ONE = {"expand": TEXTS}
_PAGE = {**_ONE, "limit": INTEGER, "starting_after": TEXT, "ending_before": TEXT}
_PAYING = {
    "error_on_requires_action": BOOLEAN,
    "mandate_data": Parameter("map"),
    "off_session": Parameter("flag", choices=("one_off", "recurring")),
    "payment_method": TEXT,
    "receipt_email": TEXT.clearable,
    "return_url": TEXT,
    "setup_future_usage": _one_of("off_session", "on_session"),
}
_CUSTOMER = {
    **_ONE,
    "address": _ADDRESS,
    "description": TEXT.clearable,
    "email": TEXT.clearable,
    "invoice_settings": _map(default_payment_method=TEXT.clearable),
    "metadata": METADATA.clearable,
    "name": TEXT.clearable,
    "phone": TEXT.clearable,
    "preferred_locales": TEXTS,
}
_METHOD_TYPES = ("card", "us_bank_account")
_METHOD_TYPE = _one_of(*_METHOD_TYPES)

OPERATIONS: Mapping[Operation, Mapping[str, Parameter]] = MappingProxyType(
    {
        ("POST", "/v1/payment_intents"): {
            **_ONE,
            **_PAYING,
            "amount": INTEGER.required,
            "automatic_payment_methods": _map(
                enabled=BOOLEAN.required, allow_redirects=_one_of("always", "never")
            ),
            "capture_method": _one_of("automatic", "automatic_async"),
            "confirm": BOOLEAN,
            "confirmation_method": _one_of("automatic", "manual"),
            "currency": TEXT.required,
            "customer": TEXT,
            "description": TEXT,
            "metadata": METADATA,
            "statement_descriptor": TEXT,
            "statement_descriptor_suffix": TEXT,
        },
        ("GET", "/v1/payment_intents"): {**_PAGE, "created": RANGE, "customer": TEXT},
        ("GET", "/v1/payment_intents/search"): {
            **_ONE,
            "limit": INTEGER,
            "page": TEXT,
            "query": TEXT.required,
        },
        ("GET", "/v1/payment_intents/{intent}"): _ONE,
        ("POST", "/v1/payment_intents/{intent}"): {
            **_ONE,
            "amount": INTEGER,
            "customer": TEXT,
            "description": TEXT,
            "metadata": METADATA.clearable,
            "payment_method": TEXT,
            "receipt_email": TEXT.clearable,
        },
        ("POST", "/v1/payment_intents/{intent}/confirm"): {**_ONE, **_PAYING},
        ("POST", "/v1/payment_intents/{intent}/cancel"): {
            **_ONE,
            "cancellation_reason": _one_of(
                "abandoned", "duplicate", "fraudulent", "requested_by_customer"
            ),
        },
        ("GET", "/v1/charges"): {
            **_PAGE,
            "created": RANGE,
            "customer": TEXT,
            "payment_intent": TEXT,
        },
        ("GET", "/v1/charges/{charge}"): _ONE,
        ("POST", "/v1/refunds"): {
            **_ONE,
            "amount": INTEGER,
            "charge": TEXT,
            "metadata": METADATA.clearable,
            "payment_intent": TEXT,
            "reason": _one_of("duplicate", "fraudulent", "requested_by_customer"),
        },
        ("GET", "/v1/refunds"): {
            **_PAGE,
            "charge": TEXT,
            "created": RANGE,
            "payment_intent": TEXT,
        },
        ("GET", "/v1/refunds/{refund}"): _ONE,
        ("GET", "/v1/disputes"): {
            **_PAGE,
            "charge": TEXT,
            "created": RANGE,
            "payment_intent": TEXT,
        },
        ("GET", "/v1/disputes/{dispute}"): _ONE,
        ("POST", "/v1/disputes/{dispute}/close"): _ONE,
        ("POST", "/v1/customers"): {**_CUSTOMER, "payment_method": TEXT},
        ("GET", "/v1/customers"): {**_PAGE, "created": RANGE, "email": TEXT},
        ("GET", "/v1/customers/{customer}"): _ONE,
        ("POST", "/v1/customers/{customer}"): _CUSTOMER,
        ("DELETE", "/v1/customers/{customer}"): {},
        ("GET", "/v1/customers/{customer}/payment_methods"): {**_PAGE, "type": _METHOD_TYPE},
        ("GET", "/v1/payment_methods"): {**_PAGE, "customer": TEXT, "type": _METHOD_TYPE},
        ("GET", "/v1/payment_methods/{payment_method}"): _ONE,
        ("POST", "/v1/payment_methods/{payment_method}"): {
            **_ONE,
            "card": _map(exp_month=INTEGER, exp_year=INTEGER),
            "metadata": METADATA.clearable,
        },
        ("POST", "/v1/payment_methods/{payment_method}/attach"): {
            **_ONE,
            "customer": TEXT.required,
        },
        ("POST", "/v1/payment_methods/{payment_method}/detach"): _ONE,
        ("GET", "/v1/setup_intents/{intent}"): _ONE,
        ("POST", "/v1/checkout/sessions"): {
            **_ONE,
            "adaptive_pricing": _map(enabled=BOOLEAN),
            "cancel_url": TEXT,
            "client_reference_id": TEXT,
            "currency": TEXT,
            "customer": TEXT,
            "expires_at": INTEGER,
            "line_items": _maps(
                price_data=_map(
                    currency=TEXT.required,
                    product_data=_map(name=TEXT.required),
                    unit_amount=INTEGER,
                ),
                quantity=INTEGER,
            ),
            "metadata": METADATA,
            "mode": _one_of("payment", "setup"),
            "payment_intent_data": _map(
                description=TEXT,
                metadata=METADATA,
                setup_future_usage=_one_of("off_session", "on_session"),
                statement_descriptor_suffix=TEXT,
            ),
            "allowed_payment_method_types": Parameter("texts", choices=_METHOD_TYPES),
            "setup_intent_data": _map(metadata=METADATA),
            "success_url": TEXT.required,
        },
        ("GET", "/v1/checkout/sessions"): {
            **_PAGE,
            "created": RANGE,
            "customer": TEXT,
            "payment_intent": TEXT,
        },
        ("GET", "/v1/checkout/sessions/{session}"): _ONE,
        ("POST", "/v1/checkout/sessions/{session}/expire"): _ONE,
        ("GET", "/v1/events"): {**_PAGE, "created": RANGE, "type": TEXT, "types": TEXTS},
        ("GET", "/v1/events/{id}"): _ONE,
    }
)

Checked = dict[str, Any]


def check(
    given: Mapping[str, Value], accepted: Mapping[str, Parameter], within: str = ""
) -> Checked:
    """The given values with their types; ``None`` for one that is to be unset.

    Raises:
        ApiError: One is unknown, missing or of another type. Such an answer is not kept.
    """
    for name in given:
        if name not in accepted:
            raise unknown_parameter(_path(within, name))
    for name, parameter in accepted.items():
        if parameter.is_required and name not in given:
            raise missing_parameter(_path(within, name))
    return {
        name: _checked(value, accepted[name], _path(within, name)) for name, value in given.items()
    }


def _path(within: str, name: str) -> str:
    return f"{within}[{name}]" if within else name


def _checked(value: Value, parameter: Parameter, path: str) -> object:
    if value == "" and parameter.is_clearable:
        return None
    if parameter.kind == "map":
        return _members(value, parameter, path)
    if parameter.kind in _ARRAYS:
        one = _ARRAYS[parameter.kind]
        return [one(member, parameter, at) for at, member in _array(value, path)]
    if parameter.kind in _STRUCTURES:
        return _STRUCTURES[parameter.kind](value, path)
    text = _text(value, path)
    if parameter.kind in _SCALARS and text not in parameter.choices:
        return _SCALARS[parameter.kind](text, path)
    return _word(text, parameter, path)


def _word(value: Value, parameter: Parameter, path: str) -> str:
    text = _text(value, path)
    if parameter.choices and text not in parameter.choices:
        raise not_one_of(path, parameter.choices)
    return text


def _text(value: Value, path: str) -> str:
    if not isinstance(value, str):
        raise malformed(f"Invalid string: {value}", path)
    if value == "":
        raise malformed(
            f"You passed an empty string for '{path}'. We assume empty values are an attempt to "
            f"unset a parameter; however '{path}' cannot be unset. You should remove '{path}' "
            "from your request or supply a non-empty value.",
            path,
            "parameter_invalid_empty",
        )
    if len(value) > MAX_TEXT:
        raise malformed(f"Invalid string: {path} must be at most {MAX_TEXT} characters", path)
    return value


def _integer(text: str, path: str) -> int:
    if not text.removeprefix("-").isdecimal() or not text.isascii():
        raise malformed(f"Invalid integer: {text}", path, "parameter_invalid_integer")
    return int(text)


def _boolean(text: str, path: str) -> bool:
    if text not in {"true", "false"}:
        raise malformed(f"Invalid boolean: {text}", path)
    return text == "true"


def _members(value: Value, parameter: Parameter, path: str) -> Checked:
    if not isinstance(value, dict):
        raise malformed("Invalid object", path)
    return check(value, parameter.fields, path) if parameter.fields else dict(value)


def _array(value: Value, path: str) -> list[tuple[str, Value]]:
    """The members of an array in their order, each with its own path."""
    if not isinstance(value, dict) or not all(place.isdecimal() for place in value):
        raise malformed("Invalid array", path)
    return [(f"{path}[{place}]", value[place]) for place in sorted(value, key=int)]


def _range(value: Value, path: str) -> dict[str, int]:
    """Bounds by their Stripe names; a bare time is both."""
    if isinstance(value, str):
        at = _integer(value, path)
        return {"gte": at, "lte": at}
    bounds = dict.fromkeys(("gt", "gte", "lt", "lte"), INTEGER)
    return _members(value, Parameter("map", fields=bounds), path)


def _metadata(value: Value, path: str) -> dict[str, str]:
    """Stripe's limits hold; an empty value removes its key."""
    if not isinstance(value, dict):
        raise malformed("Invalid object", path)
    if len(value) > MAX_METADATA_KEYS:
        raise malformed(f"You may only specify up to {MAX_METADATA_KEYS} metadata keys", path)
    for key, text in value.items():
        if not isinstance(text, str):
            raise malformed(f"Invalid string: {text}", f"{path}[{key}]")
        if len(key) > MAX_METADATA_KEY:
            raise malformed(
                f"Metadata keys can have up to {MAX_METADATA_KEY} characters: {key}", path
            )
        if len(text) > MAX_METADATA_VALUE:
            raise malformed(
                f"Metadata values can have up to {MAX_METADATA_VALUE} characters; you passed in a "
                f"value that is {len(text)} characters.",
                f"{path}[{key}]",
            )
    return {key: text for key, text in value.items() if isinstance(text, str)}


_ARRAYS: Mapping[Kind, Callable[[Value, Parameter, str], object]] = MappingProxyType(
    {"maps": _members, "texts": _word}
)
_STRUCTURES: Mapping[Kind, Callable[[Value, str], object]] = MappingProxyType(
    {"metadata": _metadata, "range": _range}
)
_SCALARS: Mapping[Kind, Callable[[str, str], object]] = MappingProxyType(
    {"integer": _integer, "boolean": _boolean, "flag": _boolean}
)
