import json
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema_rs
import pytest
import stripe

from gateways.cards import CardsUnavailable, ChargeRefused
from gateways.merchants import DEPLOYMENT
from gateways.sandbox.stripe.cardholders import Cardholder, make_cardholder
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.errors import JsonObject
from gateways.sandbox.stripe.faults import FaultKind
from gateways.sandbox.stripe.forms import nested
from gateways.sandbox.stripe.parameters import OPERATIONS, check
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sandbox.stripe.settings import Settings
from gateways.saved_cards import NewCustomer, SavedCard, SavedCardsGateway
from gateways.stripe_api import StripeApi
from gateways.stripe_saved_cards import StripeSavedCards, saved_card
from tests.gateways.sandbox.stripe.test_spec import ABSENT, SPECS
from tests.gateways.test_stripe_cards import http, request_schema, server_that_answers

SECRET = "sk_test_8Kq2unguessable"
CUSTOMERS = "/v1/customers"
METHODS = "/v1/payment_methods"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[StripeSandbox]:
    with (
        tempfile.TemporaryDirectory(prefix="due course ") as directory,
        StripeSandbox(Path(directory)) as sandbox,
    ):
        yield sandbox


@pytest.fixture
def control(sandbox: StripeSandbox) -> StripeSandboxControl:
    """The module's Stripe with nothing switched on; other tests' customers may be in it."""
    sandbox.control.clear_faults()
    sandbox.control.set(**Settings().as_json())
    return sandbox.control


@pytest.fixture(autouse=True)
def _retries_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(stripe.HTTPClient, "MAX_DELAY", 0.001)


@pytest.fixture
def saved_cards(control: StripeSandboxControl) -> Iterator[SavedCardsGateway]:
    with StripeApi(SECRET, base_url=control.url) as api:
        yield StripeSavedCards(api)


@pytest.fixture
def holder(control: StripeSandboxControl) -> Cardholder:
    return make_cardholder(control.url)


@pytest.fixture
def new() -> NewCustomer:
    """A client with a key of its own."""
    client = secrets.token_hex(8)
    return NewCustomer(
        name="Ada's Shop",
        email="ada@example.com",
        idempotency_key=f"customer-{client}",
        metadata={"client": client},
        merchant=DEPLOYMENT,
    )


Customers = Callable[[NewCustomer], list[JsonObject]]


@pytest.fixture
def customers_of(control: StripeSandboxControl) -> Customers:
    """The customers that Stripe made of the client."""

    def found(new: NewCustomer) -> list[JsonObject]:
        made = control.objects("customer")
        return [customer for customer in made if customer["metadata"] == new.metadata]

    return found


def test_a_customer_is_made_once_however_often_it_is_asked_for(
    saved_cards: SavedCardsGateway, customers_of: Customers, new: NewCustomer
) -> None:
    customer = saved_cards.create_customer(new)
    assert saved_cards.create_customer(new) == customer
    (made,) = customers_of(new)
    assert (made["id"], made["name"], made["email"]) == (customer, new.name, new.email)


def test_a_client_without_an_address_is_made_a_customer_without_one(
    saved_cards: SavedCardsGateway,
    control: StripeSandboxControl,
    customers_of: Customers,
    new: NewCustomer,
) -> None:
    saved_cards.create_customer(replace(new, email=None))
    (logged,) = control.requests(idempotency_key=new.idempotency_key)
    assert "email" not in logged.parameters
    assert len(customers_of(new)) == 1


def test_a_customer_without_a_key_is_not_made(
    saved_cards: SavedCardsGateway, customers_of: Customers, new: NewCustomer
) -> None:
    with pytest.raises(ValueError, match="idempotency key"):
        saved_cards.create_customer(replace(new, idempotency_key=""))
    assert customers_of(new) == []


def test_a_customer_that_stripe_does_not_take_is_refused(
    saved_cards: SavedCardsGateway, customers_of: Customers, new: NewCustomer
) -> None:
    with pytest.raises(ChargeRefused, match="400") as refused:
        saved_cards.create_customer(replace(new, metadata={"client": "7" * 501}))
    assert refused.value.code == "invalid"
    assert customers_of(new) == []


@pytest.mark.parametrize("kind", ["lost_answer", "server_error", "rate_limit", "reset", "conflict"])
def test_a_customer_whose_making_failed_is_made_by_the_next_call(
    saved_cards: SavedCardsGateway,
    control: StripeSandboxControl,
    customers_of: Customers,
    new: NewCustomer,
    kind: FaultKind,
) -> None:
    control.add_fault(kind, path=CUSTOMERS, times=3)
    with pytest.raises(CardsUnavailable):
        saved_cards.create_customer(new)
    control.clear_faults()
    customer = saved_cards.create_customer(new)
    assert [made["id"] for made in customers_of(new)] == [customer]


def test_an_answer_that_takes_too_long_is_asked_for_later(
    control: StripeSandboxControl, customers_of: Customers, new: NewCustomer
) -> None:
    control.add_fault("delay", path=CUSTOMERS, seconds=0.6, after_effect=True)
    with (
        StripeApi(SECRET, base_url=control.url, read_seconds=0.2) as api,
        pytest.raises(CardsUnavailable, match="timed out"),
    ):
        StripeSavedCards(api).create_customer(new)
    assert len(customers_of(new)) == 1


def test_a_card_is_told_as_stripe_knows_it(
    saved_cards: SavedCardsGateway, control: StripeSandboxControl, holder: Cardholder
) -> None:
    card = SavedCard(
        payment_method=holder.payment_method,
        customer=holder.customer,
        kind="card",
        brand="visa",
        last4="4242",
        exp_month=12,
        exp_year=2034,
    )
    assert saved_cards.retrieve(holder.payment_method, DEPLOYMENT) == card
    control.update_card(holder.payment_method, exp_year=2040)
    assert saved_cards.retrieve(holder.payment_method, DEPLOYMENT) == replace(card, exp_year=2040)


def test_a_bank_account_never_expires(
    saved_cards: SavedCardsGateway, control: StripeSandboxControl
) -> None:
    holder = make_cardholder(control.url, payment_method="pm_usBankAccount_success")
    account = saved_cards.retrieve(holder.payment_method, DEPLOYMENT)
    assert (account.kind, account.brand, account.last4) == (
        "us_bank_account",
        "STRIPE TEST BANK",
        "6789",
    )
    assert (account.exp_month, account.exp_year) == (None, None)


def test_a_kind_that_shows_nothing_of_itself_is_told_all_the_same() -> None:
    method = {"id": "pm_1", "object": "payment_method", "customer": "cus_1", "type": "link"}
    assert saved_card(method) == SavedCard(
        payment_method="pm_1",
        customer="cus_1",
        kind="link",
        brand=None,
        last4=None,
        exp_month=None,
        exp_year=None,
    )


def test_a_card_that_is_forgotten_is_nobody_s_and_cannot_be_forgotten_again(
    saved_cards: SavedCardsGateway, holder: Cardholder
) -> None:
    saved_cards.detach(holder.payment_method, DEPLOYMENT)
    assert saved_cards.retrieve(holder.payment_method, DEPLOYMENT).customer is None
    with pytest.raises(ChargeRefused, match="not attached to a customer"):
        saved_cards.detach(holder.payment_method, DEPLOYMENT)


def test_forgetting_with_its_answer_lost_is_done_once(
    saved_cards: SavedCardsGateway, control: StripeSandboxControl, holder: Cardholder
) -> None:
    control.add_fault("lost_answer", path=f"{METHODS}/*")
    saved_cards.detach(holder.payment_method, DEPLOYMENT)
    detached = control.events("payment_method.detached")
    assert [event["data"]["object"]["id"] for event in detached].count(holder.payment_method) == 1


def test_the_card_of_a_customer_who_was_deleted_is_nobody_s(
    saved_cards: SavedCardsGateway, control: StripeSandboxControl, holder: Cardholder
) -> None:
    control.delete_customer(holder.customer)
    assert saved_cards.retrieve(holder.payment_method, DEPLOYMENT).customer is None


def test_a_card_that_is_not_there_is_surely_not_there(saved_cards: SavedCardsGateway) -> None:
    for ask in (saved_cards.retrieve, saved_cards.detach):
        with pytest.raises(ChargeRefused, match="404 No such") as refused:
            ask("pm_nothing", DEPLOYMENT)
        assert refused.value.code == "resource_missing"


@pytest.mark.parametrize("kind", ["server_error", "rate_limit", "reset"])
def test_a_question_that_fails_can_be_asked_again(
    saved_cards: SavedCardsGateway,
    control: StripeSandboxControl,
    holder: Cardholder,
    kind: FaultKind,
) -> None:
    for ask in (saved_cards.retrieve, saved_cards.detach):
        control.add_fault(kind, method=None, path=f"{METHODS}*", times=None)
        with pytest.raises(CardsUnavailable):
            ask(holder.payment_method, DEPLOYMENT)
        control.clear_faults()
        ask(holder.payment_method, DEPLOYMENT)


@pytest.mark.parametrize("answer", [None, [], {}, {"object": "customer"}])
def test_a_strange_answer_is_no_answer(answer: object) -> None:
    with (
        server_that_answers(http(200, answer)) as url,
        StripeApi(SECRET, base_url=url) as api,
        pytest.raises(CardsUnavailable),
    ):
        StripeSavedCards(api).retrieve("pm_1", DEPLOYMENT)


def test_the_requests_agree_with_stripe_s_description(
    saved_cards: SavedCardsGateway,
    control: StripeSandboxControl,
    new: NewCustomer,
    holder: Cardholder,
) -> None:
    path = SPECS / "stripe-requests.openapi.json"
    if not path.exists():
        pytest.skip(ABSENT)
    described = json.loads(path.read_text())["paths"]
    before = len(control.requests())
    saved_cards.create_customer(new)
    saved_cards.retrieve(holder.payment_method, DEPLOYMENT)
    saved_cards.detach(holder.payment_method, DEPLOYMENT)
    sent = set()
    for request in control.requests()[before:]:
        place = request.path.replace(holder.payment_method, "{payment_method}")
        operation = (request.method, place)
        values = check(nested(request.parameters.items()), OPERATIONS[operation])
        jsonschema_rs.validate(request_schema(described[place][request.method.lower()]), values)
        sent.add(operation)
    assert sent == {
        ("POST", CUSTOMERS),
        ("GET", f"{METHODS}/{{payment_method}}"),
        ("POST", f"{METHODS}/{{payment_method}}/detach"),
    }
