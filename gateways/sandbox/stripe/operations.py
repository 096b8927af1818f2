"""Which function answers which operation."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from gateways.sandbox.stripe import (
    customers,
    disputes,
    intents,
    listing,
    looking,
    payment_methods,
    refunds,
    search,
    sessions,
    setup_intents,
)
from gateways.sandbox.stripe.books import Books, Call
from gateways.sandbox.stripe.errors import JsonObject, unrecognized_url
from gateways.sandbox.stripe.parameters import Operation

Answering = Callable[[Call, Books], JsonObject]

ANSWERING: Mapping[Operation, Answering] = MappingProxyType(
    {
        ("POST", "/v1/payment_intents"): intents.create,
        ("GET", "/v1/payment_intents"): listing.payment_intents,
        ("GET", "/v1/payment_intents/search"): search.payment_intents,
        ("GET", "/v1/payment_intents/{intent}"): intents.retrieve,
        ("POST", "/v1/payment_intents/{intent}"): intents.update,
        ("POST", "/v1/payment_intents/{intent}/confirm"): intents.confirm,
        ("POST", "/v1/payment_intents/{intent}/cancel"): intents.cancel,
        ("GET", "/v1/charges"): listing.charges,
        ("GET", "/v1/charges/{charge}"): looking.retrieve_charge,
        ("POST", "/v1/refunds"): refunds.create,
        ("GET", "/v1/refunds"): listing.refunds,
        ("GET", "/v1/refunds/{refund}"): refunds.retrieve,
        ("GET", "/v1/disputes"): listing.disputes,
        ("GET", "/v1/disputes/{dispute}"): disputes.retrieve,
        ("POST", "/v1/disputes/{dispute}/close"): disputes.accept,
        ("POST", "/v1/customers"): customers.create,
        ("GET", "/v1/customers"): listing.customers,
        ("GET", "/v1/customers/{customer}"): customers.retrieve,
        ("POST", "/v1/customers/{customer}"): customers.update,
        ("DELETE", "/v1/customers/{customer}"): customers.delete,
        ("GET", "/v1/customers/{customer}/payment_methods"): listing.payment_methods_of_customer,
        ("GET", "/v1/payment_methods"): listing.payment_methods,
        ("GET", "/v1/payment_methods/{payment_method}"): payment_methods.retrieve,
        ("POST", "/v1/payment_methods/{payment_method}"): payment_methods.update,
        ("POST", "/v1/payment_methods/{payment_method}/attach"): payment_methods.attach,
        ("POST", "/v1/payment_methods/{payment_method}/detach"): payment_methods.detach,
        ("GET", "/v1/setup_intents/{intent}"): setup_intents.retrieve,
        ("POST", "/v1/checkout/sessions"): sessions.create,
        ("GET", "/v1/checkout/sessions"): listing.checkout_sessions,
        ("GET", "/v1/checkout/sessions/{session}"): sessions.retrieve,
        ("POST", "/v1/checkout/sessions/{session}/expire"): sessions.expire,
        ("GET", "/v1/events"): listing.events,
        ("GET", "/v1/events/{id}"): looking.retrieve_event,
    }
)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template) + r"\Z")


# The most literal first: `search` is no intent's id.
_PATTERNS = [
    (operation, _pattern(operation[1]))
    for operation in sorted(ANSWERING, key=lambda operation: operation[1].count("{"))
]


def operation_at(method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """The operation, and the ids in its path.

    Raises:
        ApiError: There is none.
    """
    for operation, pattern in _PATTERNS:
        match = pattern.match(path) if operation[0] == method else None
        if match is not None:
            return operation, match.groupdict()
    raise unrecognized_url(method, path)
