"""Refunds through Stripe's SDK: sent once, and what each way of failing means."""

import json
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jsonschema_rs
import pytest
import stripe

from gateways.cards import (
    CardCharge,
    CardGateway,
    CardRefund,
    CardsUnavailable,
    ChargeOutcomeUnknown,
    ChargeRefused,
    RefundReport,
    RefundStatus,
)
from gateways.merchants import DEPLOYMENT
from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.errors import JsonObject
from gateways.sandbox.stripe.faults import FaultKind
from gateways.sandbox.stripe.forms import nested
from gateways.sandbox.stripe.parameters import OPERATIONS, check
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sandbox.stripe.settings import Settings
from gateways.stripe_cards import refund_report
from gateways.stripe_events import REFUNDS_TOLD, event_from
from gateways.webhooks import MalformedEvents
from tests.gateways.sandbox.stripe.test_spec import ABSENT, SPECS
from tests.stripe import cards_at_stripe

REFUNDS = "/v1/refunds"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[StripeSandbox]:
    with (
        tempfile.TemporaryDirectory(prefix="due course ") as directory,
        StripeSandbox(Path(directory)) as sandbox,
    ):
        yield sandbox


@pytest.fixture
def control(sandbox: StripeSandbox) -> StripeSandboxControl:
    """The module's Stripe with nothing switched on; other tests' refunds may be in it."""
    sandbox.control.clear_faults()
    sandbox.control.set(**Settings(settle_after=None).as_json())
    return sandbox.control


@pytest.fixture(autouse=True)
def _retries_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(stripe.HTTPClient, "MAX_DELAY", 0.001)


@pytest.fixture
def cards(control: StripeSandboxControl) -> Iterator[CardGateway]:
    with cards_at_stripe("sk_test_local", base_url=control.url) as cards:
        yield cards


def paid(
    control: StripeSandboxControl,
    cards: CardGateway,
    card: str = "pm_card_visa",
    *,
    amount: int = 12_34,
    currency: str = "usd",
) -> str:
    """The payment intent of a charge of so much."""
    holder = make_cardholder(control.url, payment_method=card)
    attempt = secrets.token_hex(8)
    report = cards.charge(
        CardCharge(
            amount=amount,
            currency=currency,
            customer=holder.customer,
            payment_method=holder.payment_method,
            idempotency_key=attempt,
            description="INV-1",
            metadata={"attempt": attempt},
            sent_since=datetime.now(UTC),
        )
    )
    return report.payment_intent


def of(payment_intent: str, amount: int = 5_00, currency: str = "usd") -> CardRefund:
    """A refund with a key and a name of its own."""
    name = secrets.token_hex(8)
    return CardRefund(
        payment_intent=payment_intent,
        amount=amount,
        currency=currency,
        idempotency_key=f"refund-{name}",
        metadata={"account": "1", "refund": name},
    )


@pytest.fixture
def order(control: StripeSandboxControl, cards: CardGateway) -> CardRefund:
    return of(paid(control, cards))


def made(control: StripeSandboxControl, order: CardRefund) -> list[JsonObject]:
    """The refunds that Stripe made of the payment."""
    return [
        one for one in control.objects("refund") if one["payment_intent"] == order.payment_intent
    ]


def test_a_refund_that_succeeds_says_so_and_names_us(
    cards: CardGateway, control: StripeSandboxControl, order: CardRefund
) -> None:
    report = cards.refund(order)

    [refund] = made(control, order)
    assert report == RefundReport(
        refund=refund["id"],
        status=RefundStatus.SUCCEEDED,
        metadata=order.metadata,
        amount=500,
        currency="usd",
    )
    assert (refund["amount"], refund["metadata"]) == (500, order.metadata)
    assert cards.retrieve_refund(report.refund, DEPLOYMENT) == cards.look_up_refund(order) == report


def test_the_same_key_gives_back_once(
    cards: CardGateway, control: StripeSandboxControl, order: CardRefund
) -> None:
    assert cards.refund(order) == cards.refund(order)
    assert len(made(control, order)) == 1


@pytest.mark.parametrize(
    ("currency", "ours", "theirs"), [("jpy", 400, 400), ("isk", 400, 40000), ("usd", 400, 400)]
)
def test_amounts_go_out_in_each_currency_s_units(
    cards: CardGateway, control: StripeSandboxControl, currency: str, ours: int, theirs: int
) -> None:
    order = of(paid(control, cards, amount=900, currency=currency), ours, currency)
    cards.refund(order)

    assert [one["amount"] for one in made(control, order)] == [theirs]


def test_one_that_takes_its_time_is_processing_until_it_ends(
    cards: CardGateway, control: StripeSandboxControl
) -> None:
    order = of(paid(control, cards, "pm_card_pendingRefund"))
    report = cards.refund(order)
    assert report.status == RefundStatus.PROCESSING

    control.settle_refund(report.refund, "failed")

    assert cards.retrieve_refund(report.refund, DEPLOYMENT) == replace(
        report, status=RefundStatus.FAILED, message="expired_or_canceled_card"
    )


def test_more_than_is_left_is_refused_and_moves_nothing(
    cards: CardGateway, control: StripeSandboxControl, order: CardRefund
) -> None:
    cards.refund(replace(order, amount=12_34))

    for wrong, code in (
        (of(order.payment_intent, 1), "charge_already_refunded"),
        (of("pi_nothing"), "resource_missing"),
        (of(order.payment_intent, 1, "omr"), "invalid_amount"),
    ):
        with pytest.raises(ChargeRefused) as refusal:
            cards.refund(wrong)
        assert refusal.value.code == code
    assert len(made(control, order)) == 1
    with pytest.raises(ValueError, match="idempotency key"):
        cards.refund(replace(order, idempotency_key=""))


def test_an_answer_lost_once_is_asked_for_again_and_the_money_goes_once(
    cards: CardGateway, control: StripeSandboxControl, order: CardRefund
) -> None:
    control.add_fault("lost_answer", path=REFUNDS)

    assert cards.refund(order).status == RefundStatus.SUCCEEDED
    assert len(made(control, order)) == 1


@pytest.mark.parametrize("fault", ["lost_answer", "server_error_after"])
def test_what_is_not_heard_is_unknown_and_looking_up_tells_the_truth(
    cards: CardGateway, control: StripeSandboxControl, order: CardRefund, fault: FaultKind
) -> None:
    control.add_fault(fault, times=None, path=REFUNDS)
    with pytest.raises(ChargeOutcomeUnknown):
        cards.refund(order)
    control.clear_faults()

    found = cards.look_up_refund(order)

    assert found is not None
    assert found.status == RefundStatus.SUCCEEDED
    assert len(made(control, order)) == 1


def test_one_never_made_is_not_found_among_others(cards: CardGateway, order: CardRefund) -> None:
    assert cards.look_up_refund(order) is None
    cards.refund(order)
    assert cards.look_up_refund(of(order.payment_intent)) is None


def test_of_two_refunds_of_one_name_the_one_that_moved_money_is_found(
    cards: CardGateway, control: StripeSandboxControl
) -> None:
    order = of(paid(control, cards))
    first = cards.refund(order)
    control.settle_refund(first.refund, "failed")
    # A key that Stripe forgot.
    second = cards.refund(replace(order, idempotency_key="another"))

    assert cards.look_up_refund(order) == second


def test_too_much_at_once_moves_nothing_and_says_when_to_come_back(
    cards: CardGateway, control: StripeSandboxControl, order: CardRefund
) -> None:
    control.add_fault("rate_limit", path=REFUNDS, retry_after=7)

    with pytest.raises(CardsUnavailable) as refusal:
        cards.refund(order)

    assert refusal.value.retry_after is not None
    assert refusal.value.retry_after.total_seconds() == 7
    assert made(control, order) == []


def test_a_question_that_fails_can_be_asked_again(
    cards: CardGateway, control: StripeSandboxControl, order: CardRefund
) -> None:
    report = cards.refund(order)
    control.add_fault("reset", times=None, method="GET", path=f"{REFUNDS}*")
    with pytest.raises(CardsUnavailable):
        cards.look_up_refund(order)
    with pytest.raises(CardsUnavailable):
        cards.retrieve_refund(report.refund, DEPLOYMENT)


def test_a_state_that_nobody_knows_is_no_answer() -> None:
    refund = {"id": "re_1", "object": "refund", "status": "teleported", "metadata": {}}
    assert refund_report(refund) is None
    assert refund_report({**refund, "status": "canceled", "failure_reason": "lost"}) == (
        RefundReport(refund="re_1", status=RefundStatus.FAILED, message="lost")
    )
    assert refund_report({**refund, "status": "requires_action"}) == RefundReport(
        refund="re_1", status=RefundStatus.PROCESSING
    )


def event(kind: str, **refund: object) -> JsonObject:
    about = {"id": "re_1", "object": "refund", "status": "failed", "metadata": {"refund": "7"}}
    return {
        "id": "evt_1",
        "object": "event",
        "type": kind,
        "created": 1_795_000_000,
        "data": {"object": {**about, **refund}},
    }


def test_events_of_refunds_report_how_they_stood() -> None:
    told = RefundReport(refund="re_1", status=RefundStatus.FAILED, metadata={"refund": "7"})
    for kind in REFUNDS_TOLD:
        read = event_from(event(kind))
        assert (read.refund, read.report) == (told, None), kind
    charge = {"object": "charge", "currency": "usd", "amount_refunded": 300}
    assert event_from(event("charge.refunded", **charge)).refund is None
    assert event_from(event("refund.updated", status="teleported")).refund is None
    with pytest.raises(MalformedEvents):
        event_from(event("refund.updated", object="charge"))


def test_the_requests_agree_with_stripe_s_description(
    cards: CardGateway, control: StripeSandboxControl, order: CardRefund
) -> None:
    path = SPECS / "stripe-requests.openapi.json"
    if not path.exists():
        pytest.skip(ABSENT)
    described = json.loads(path.read_text())["paths"]
    before = len(control.requests())
    report = cards.refund(order)
    cards.look_up_refund(order)
    cards.retrieve_refund(report.refund, DEPLOYMENT)
    sent = set()
    for request in control.requests()[before:]:
        place = request.path.replace(report.refund, "{refund}")
        operation = (request.method, place)
        values = check(nested(request.parameters.items()), OPERATIONS[operation])
        of_form = described[place][request.method.lower()]
        query = {
            parameter["name"]: parameter["schema"]
            for parameter in of_form.get("parameters", ())
            if parameter["in"] == "query"
        }
        schema = of_form["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
        jsonschema_rs.validate(
            schema | {"properties": schema.get("properties", {}) | query}, values
        )
        sent.add(operation)
    assert sent == {("POST", REFUNDS), ("GET", REFUNDS), ("GET", f"{REFUNDS}/{{refund}}")}
