"""The sandbox against what Stripe publishes: the SDK's own types, and its API description."""

import json
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import stripe
import stripe.checkout
import stripe.params
import stripe.params.checkout

from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.operations import ANSWERING
from gateways.sandbox.stripe.parameters import OPERATIONS, Operation, Parameter
from tests.gateways.sandbox.stripe.paying import card, pay
from tests.gateways.sandbox.stripe.test_sessions import page, setup_page

SPECS = Path(__file__).resolve().parents[4].parent / "shared" / "specs"
ABSENT = "../shared/specs is not there, beside the project's root"
# Stripe has them, and that excerpt of its description leaves them out.
NOT_DESCRIBED = {
    ("GET", "/v1/charges/{charge}"),
    ("DELETE", "/v1/customers/{customer}"),
    ("POST", "/v1/payment_methods/{payment_method}"),
    ("GET", "/v1/setup_intents/{intent}"),
    ("GET", "/v1/checkout/sessions/{session}"),
    ("GET", "/v1/events/{id}"),
    ("GET", "/v1/disputes/{dispute}"),
    ("POST", "/v1/disputes/{dispute}/close"),
}
# Younger than that excerpt; the SDK knows them.
YOUNGER: Mapping[Operation, set[str]] = {
    ("POST", "/v1/checkout/sessions"): {"adaptive_pricing", "allowed_payment_method_types"},
    ("GET", "/v1/checkout/sessions"): {"created"},
}

SDK_PARAMETERS: Mapping[Operation, str] = {
    ("POST", "/v1/payment_intents"): "PaymentIntentCreateParams",
    ("GET", "/v1/payment_intents"): "PaymentIntentListParams",
    ("GET", "/v1/payment_intents/search"): "PaymentIntentSearchParams",
    ("GET", "/v1/payment_intents/{intent}"): "PaymentIntentRetrieveParams",
    ("POST", "/v1/payment_intents/{intent}"): "PaymentIntentUpdateParams",
    ("POST", "/v1/payment_intents/{intent}/confirm"): "PaymentIntentConfirmParams",
    ("POST", "/v1/payment_intents/{intent}/cancel"): "PaymentIntentCancelParams",
    ("GET", "/v1/charges"): "ChargeListParams",
    ("GET", "/v1/charges/{charge}"): "ChargeRetrieveParams",
    ("POST", "/v1/refunds"): "RefundCreateParams",
    ("GET", "/v1/refunds"): "RefundListParams",
    ("GET", "/v1/refunds/{refund}"): "RefundRetrieveParams",
    ("GET", "/v1/disputes"): "DisputeListParams",
    ("GET", "/v1/disputes/{dispute}"): "DisputeRetrieveParams",
    ("POST", "/v1/disputes/{dispute}/close"): "DisputeCloseParams",
    ("POST", "/v1/customers"): "CustomerCreateParams",
    ("GET", "/v1/customers"): "CustomerListParams",
    ("GET", "/v1/customers/{customer}"): "CustomerRetrieveParams",
    ("POST", "/v1/customers/{customer}"): "CustomerUpdateParams",
    ("DELETE", "/v1/customers/{customer}"): "CustomerDeleteParams",
    ("GET", "/v1/customers/{customer}/payment_methods"): "CustomerPaymentMethodListParams",
    ("GET", "/v1/payment_methods"): "PaymentMethodListParams",
    ("GET", "/v1/payment_methods/{payment_method}"): "PaymentMethodRetrieveParams",
    ("POST", "/v1/payment_methods/{payment_method}"): "PaymentMethodUpdateParams",
    ("POST", "/v1/payment_methods/{payment_method}/attach"): "PaymentMethodAttachParams",
    ("POST", "/v1/payment_methods/{payment_method}/detach"): "PaymentMethodDetachParams",
    ("GET", "/v1/setup_intents/{intent}"): "SetupIntentRetrieveParams",
    ("POST", "/v1/checkout/sessions"): "checkout.SessionCreateParams",
    ("GET", "/v1/checkout/sessions"): "checkout.SessionListParams",
    ("GET", "/v1/checkout/sessions/{session}"): "checkout.SessionRetrieveParams",
    ("POST", "/v1/checkout/sessions/{session}/expire"): "checkout.SessionExpireParams",
    ("GET", "/v1/events"): "EventListParams",
    ("GET", "/v1/events/{id}"): "EventRetrieveParams",
}
SDK_OBJECTS: Mapping[str, type] = {
    "payment_intent": stripe.PaymentIntent,
    "charge": stripe.Charge,
    "refund": stripe.Refund,
    "dispute": stripe.Dispute,
    "customer": stripe.Customer,
    "payment_method": stripe.PaymentMethod,
    "setup_intent": stripe.SetupIntent,
    "checkout.session": stripe.checkout.Session,
    "event": stripe.Event,
}


@pytest.fixture(scope="module")
def described() -> Any:  # noqa: ANN401 - a JSON document.
    path = SPECS / "stripe-requests.openapi.json"
    if not path.exists():
        pytest.skip(ABSENT)
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def shapes() -> Any:  # noqa: ANN401 - as above.
    path = SPECS / "stripe-fixtures.json"
    if not path.exists():
        pytest.skip(ABSENT)
    return json.loads(path.read_text())["resources"]


@pytest.fixture
def made(
    client: stripe.StripeClient, customer: str, account: str, control: StripeSandboxControl
) -> dict[str, list[dict[str, Any]]]:
    """One or more of every kind of object."""
    paid = pay(client, customer, card(client, customer))
    with pytest.raises(stripe.CardError):
        pay(client, customer, card(client, customer, "pm_card_chargeDeclined"))
    pay(client, customer, card(client, customer, "pm_usBankAccount_success"))
    client.v1.refunds.create({"payment_intent": paid.id})
    for order in (page(customer), setup_page(customer)):
        client.v1.checkout.sessions.create(order)
        control.pay_session(client.v1.checkout.sessions.create(page(customer)).id)
    control.save_card(client.v1.checkout.sessions.create(setup_page(customer)).id)
    pay(client, customer, card(client, customer, "pm_card_createDispute"))
    return {kind: control.objects(kind, account=account) for kind in SDK_OBJECTS}


def test_every_operation_of_the_table_is_answered() -> None:
    assert set(OPERATIONS) == set(ANSWERING) == set(SDK_PARAMETERS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_the_sdk_can_send_every_parameter(operation: Operation) -> None:
    params = attrgetter(SDK_PARAMETERS[operation])(stripe.params)
    assert set(OPERATIONS[operation]) <= set(params.__annotations__)


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_stripe_takes_every_parameter_and_needs_the_same(
    described: Any,  # noqa: ANN401 - a JSON document.
    operation: Operation,
) -> None:
    method, path = operation
    if operation in NOT_DESCRIBED:
        assert method.lower() not in described["paths"].get(path, {})
        return
    schemas, needed = _parameters(described["paths"][path][method.lower()])
    younger = YOUNGER.get(operation, set())
    assert not younger & set(schemas)
    accepted = {
        name: parameter for name, parameter in OPERATIONS[operation].items() if name not in younger
    }
    assert set(accepted) <= set(schemas)
    assert {name for name, parameter in accepted.items() if parameter.is_required} == needed
    for name, parameter in accepted.items():
        _agrees(parameter, schemas[name], name)


def _parameters(operation: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Schemas of the query's or the form's parameters, and which are required."""
    query = {p["name"]: p for p in operation.get("parameters", ()) if p["in"] == "query"}
    form = operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    schemas = {name: p["schema"] for name, p in query.items()} | form.get("properties", {})
    needed = {name for name, p in query.items() if p.get("required")}
    return schemas, needed | set(form.get("required", ()))


def _alternatives(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "anyOf" not in schema:
        yield schema
    for alternative in schema.get("anyOf", ()):
        yield from _alternatives(alternative)


_JSON_TYPES = {
    "text": {"string"},
    "integer": {"integer"},
    "boolean": {"boolean"},
    "flag": {"boolean", "string"},
    "metadata": {"object"},
    "map": {"object"},
    "maps": {"array"},
    "texts": {"array"},
    "range": {"object", "integer"},
}


def _agrees(parameter: Parameter, schema: dict[str, Any], path: str) -> None:
    alternatives = list(_alternatives(schema))
    found = {alternative["type"] for alternative in alternatives}
    assert _JSON_TYPES[parameter.kind] <= found, path
    if parameter.kind in {"maps", "texts"}:
        (array,) = (a for a in alternatives if a["type"] == "array")
        alternatives = list(_alternatives(array["items"]))
    words = {word for alternative in alternatives for word in alternative.get("enum", ())}
    assert not words or set(parameter.choices) <= words, path
    if parameter.is_clearable:
        assert "" in words or found == {"string"}, path
    for name, member in parameter.fields.items():
        (members,) = (a for a in alternatives if a["type"] == "object")
        _agrees(member, members["properties"][name], f"{path}[{name}]")
        assert member.is_required == (name in members.get("required", ())), f"{path}[{name}]"


@pytest.mark.parametrize("kind", SDK_OBJECTS)
def test_objects_have_the_members_that_the_sdk_reads(
    made: dict[str, list[dict[str, Any]]], kind: str
) -> None:
    assert made[kind]
    for body in made[kind]:
        assert set(body) <= set(SDK_OBJECTS[kind].__annotations__)


# What Stripe shows only on asking, in other versions, or with other kinds of payment.
NOT_SHOWN: Mapping[str, set[str]] = {
    "payment_intent": {"customer_account", "excluded_payment_method_types", "managed_payments"},
    "charge": {"refunds"},
    "refund": {"customer", "customer_account", "payment_method"},
    "payment_method": {"customer_account", "card"},
    "setup_intent": {"excluded_payment_method_types"},
    "checkout.session": {"customer_account", "managed_payments"},
}
ONLY_OF_SOME: Mapping[str, set[str]] = {
    "payment_method": {"us_bank_account"},
    "event": {"account"},
}


@pytest.mark.parametrize("kind", SDK_OBJECTS)
def test_objects_have_stripes_shape(
    made: dict[str, list[dict[str, Any]]],
    shapes: Any,  # noqa: ANN401 - a JSON document.
    kind: str,
) -> None:
    shape = shapes[kind]
    for body in made[kind]:
        assert set(body) - set(shape) <= ONLY_OF_SOME.get(kind, set())
        assert set(shape) - set(body) <= NOT_SHOWN.get(kind, set())
        for name in set(body) & set(shape):
            if body[name] is not None and shape[name] is not None:
                assert type(body[name]) is type(shape[name]), name


def test_cards_have_stripes_shape(
    made: dict[str, list[dict[str, Any]]],
    shapes: Any,  # noqa: ANN401 - as above.
) -> None:
    cards = [method["card"] for method in made["payment_method"] if method["type"] == "card"]
    assert {frozenset(shown) for shown in cards} == {frozenset(shapes["payment_method"]["card"])}
    paid = [charge["payment_method_details"] for charge in made["charge"]]
    for details in paid:
        if details["type"] == "card":
            assert set(details["card"]) <= set(shapes["charge"]["payment_method_details"]["card"])
