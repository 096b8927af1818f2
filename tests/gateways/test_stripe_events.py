import json
import secrets
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import stripe

from gateways.cards import CardCharge, CardReport, CardStatus
from gateways.checkout import CheckoutOrder, CheckoutStatus
from gateways.merchants import DEPLOYMENT
from gateways.payment_events import PaymentEvent
from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sandbox.stripe.webhooks import signature
from gateways.saved_cards import SavedCard
from gateways.stripe_api import StripeApi
from gateways.stripe_checkout import StripeCheckout
from gateways.stripe_events import (
    CARDS_TOLD,
    CHECKOUTS_TOLD,
    CUSTOMER_DELETED,
    StripeEvents,
    event_from,
)
from gateways.stripe_saved_cards import StripeSavedCards
from gateways.webhooks import MalformedEvents, UntrustedEvents
from tests.gateways.sandbox.stripe.paying import Receiver, client_of
from tests.stripe import cards_at_stripe, known_payment

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECRET = "whsec_unguessable"
LIMIT_SECONDS = 20.0
INTENT: Mapping[str, Any] = {
    "id": "pi_1",
    "object": "payment_intent",
    "amount_received": 12_34,
    "currency": "usd",
    "last_payment_error": None,
    "metadata": {"attempt": "7"},
    "status": "succeeded",
}


def event(kind: str = "payment_intent.succeeded", **intent: object) -> dict[str, Any]:
    return {
        "id": "evt_1",
        "object": "event",
        "type": kind,
        "created": 1_795_000_000,
        "data": {"object": {**INTENT, **intent}},
    }


SESSION: Mapping[str, Any] = {
    "id": "cs_1",
    "object": "checkout.session",
    "amount_total": 12_34,
    "currency": "usd",
    "customer": "cus_1",
    "metadata": {},
    "payment_intent": None,
    "payment_status": "unpaid",
    "setup_intent": None,
    "status": "complete",
    "url": None,
}


def event_about(about: object, kind: str) -> dict[str, Any]:
    return {**event(kind), "data": {"object": about}}


BODY = json.dumps(event()).encode()


@pytest.fixture
def events() -> StripeEvents:
    return StripeEvents(SECRET)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def sandbox() -> Iterator[StripeSandbox]:
    with (
        tempfile.TemporaryDirectory(prefix="due course ") as directory,
        StripeSandbox(Path(directory)) as sandbox,
    ):
        yield sandbox


@pytest.fixture
def control(sandbox: StripeSandbox) -> StripeSandboxControl:
    sandbox.control.set(settle_after=None)
    return sandbox.control


def signed(body: bytes, at: datetime = NOW, secret: str = SECRET) -> Mapping[str, str]:
    return {"Stripe-Signature": signature(body, secret, int(at.timestamp()))}


def test_events_of_charges_report_what_the_gateway_reported(
    sandbox: StripeSandbox, control: StripeSandboxControl, receiver: Receiver
) -> None:
    reader = StripeEvents(control.set_webhook(receiver.url))
    reports = list[CardReport]()
    with cards_at_stripe("sk_test_local", base_url=sandbox.url) as cards:
        for name in (
            "pm_card_visa",
            "pm_card_chargeDeclinedInsufficientFunds",
            "pm_card_authenticationRequired",
            "pm_usBankAccount_success",
        ):
            holder = make_cardholder(sandbox.url, payment_method=name)
            attempt = secrets.token_hex(8)
            order = CardCharge(
                amount=12_34,
                currency="usd",
                customer=holder.customer,
                payment_method=holder.payment_method,
                idempotency_key=attempt,
                description="INV-1",
                metadata={"attempt": attempt},
                sent_since=datetime.now(UTC),
            )
            reports.append(cards.charge(order))
        reports.append(cards.cancel(reports[2].payment_intent, DEPLOYMENT))
        waiting = client_of(sandbox.url).v1.payment_intents.create(
            {
                "amount": 500,
                "currency": "usd",
                "payment_method": "pm_card_authenticationRequired",
                "confirm": True,
                "return_url": "https://pay.example",
            }
        )
        reports.append(known_payment(cards, waiting.id))
        control.settle(reports[3].payment_intent)
        reports.append(known_payment(cards, reports[3].payment_intent))
    made = control.events()
    deadline = monotonic() + LIMIT_SECONDS
    while len(receiver.taken) < len(made):
        assert monotonic() < deadline
        sleep(0.01)
    read = [
        reader.read(body, {"stripe-signature": header}, now=datetime.now(UTC))
        for body, header in receiver.taken
    ]
    assert {found.id for found in read} == {event["id"] for event in made}
    reported = [found for found in read if found.report is not None]
    assert {found.type.removeprefix("payment_intent.") for found in reported} == {
        "succeeded",
        "payment_failed",
        "processing",
        "requires_action",
        "canceled",
    }
    assert {report.status for report in reports} == set(CardStatus)
    for report in reports:
        assert report in [found.report for found in reported]
    assert len(reported) == len(reports)
    assert [event_from(found.payload) for found in read] == read


def told_by(
    control: StripeSandboxControl, about: str, kinds: Collection[str]
) -> list[tuple[str, PaymentEvent]]:
    """The events of those types about an object, each by the last part of its type."""
    return [
        (event["type"].rpartition(".")[2], event_from(event))
        for event in control.events()
        if event["type"] in kinds and event["data"]["object"]["id"] == about
    ]


def test_events_of_pages_tell_how_the_page_stands(
    sandbox: StripeSandbox, control: StripeSandboxControl
) -> None:
    customer = make_cardholder(sandbox.url).customer
    order = CheckoutOrder(
        amount=12_34,
        currency="usd",
        customer=customer,
        idempotency_key="paid",
        description="INV-1",
        metadata={"attempt": "7"},
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        success_url="https://pay.example/paid",
        cancel_url="https://pay.example",
    )
    with StripeApi("sk_test_local", base_url=sandbox.url) as api:
        checkout = StripeCheckout(api)
        paid, debited, expired = (
            checkout.open(replace(order, idempotency_key=key)).session for key in "abc"
        )
        left = checkout.open(replace(order, amount=None, idempotency_key="d")).session
        control.pay_session(paid)
        debit = control.pay_session(debited, "pm_usBankAccount_success")["payment_intent"]
        control.settle(debit, "insufficient_funds")
        control.expire_session(expired)
        control.save_card(left)
        asked = {one: checkout.retrieve(one, DEPLOYMENT) for one in (paid, expired)}
    ((ending, told),) = told_by(control, paid, CHECKOUTS_TOLD)
    assert (ending, told.checkout) == ("completed", asked[paid])
    ((ending, told),) = told_by(control, expired, CHECKOUTS_TOLD)
    assert (ending, told.checkout) == ("expired", asked[expired])
    ((first, done), (then, failed)) = told_by(control, debited, CHECKOUTS_TOLD)
    assert (first, then) == ("completed", "async_payment_failed")
    for told in (done, failed):
        assert told.checkout is not None
        assert (told.checkout.status, told.checkout.payment) == (CheckoutStatus.COMPLETE, None)
        assert told.checkout.metadata == {"attempt": "7"}
    ((ending, told),) = told_by(control, left, CHECKOUTS_TOLD)
    assert ending == "completed"
    assert told.checkout is not None
    assert (told.checkout.customer, told.checkout.payment_method) == (customer, None)
    # The payment on a page is told by its own events, as any other.
    ((_, told),) = told_by(control, debit, {"payment_intent.payment_failed"})
    assert told.report is not None
    assert (told.report.status, told.report.metadata) == (CardStatus.DECLINED, {"attempt": "7"})


def test_a_bank_debit_of_a_page_is_told_once_it_is_paid() -> None:
    page = {
        **SESSION,
        "payment_status": "paid",
        "payment_intent": "pi_1",
        "metadata": {"attempt": "7"},
    }
    told = event_from(event_about(page, "checkout.session.async_payment_succeeded")).checkout
    assert told is not None
    assert told.payment == CardReport(
        payment_intent="pi_1",
        status=CardStatus.SUCCEEDED,
        amount_received=12_34,
        currency="usd",
        metadata={"attempt": "7"},
    )


def test_events_of_cards_tell_what_the_card_has_become(
    sandbox: StripeSandbox, control: StripeSandboxControl
) -> None:
    holder = make_cardholder(sandbox.url)
    stripe_itself = client_of(sandbox.url).v1
    with StripeApi("sk_test_local", base_url=sandbox.url) as api:
        asked = list[SavedCard]()
        saved_cards = StripeSavedCards(api)
        stripe_itself.payment_methods.update(holder.payment_method, {"card": {"exp_month": 7}})
        asked.append(saved_cards.retrieve(holder.payment_method, DEPLOYMENT))
        control.update_card(holder.payment_method, exp_year=2040, last4="1881")
        asked.append(saved_cards.retrieve(holder.payment_method, DEPLOYMENT))
        saved_cards.detach(holder.payment_method, DEPLOYMENT)
        asked.append(saved_cards.retrieve(holder.payment_method, DEPLOYMENT))
    told = told_by(control, holder.payment_method, CARDS_TOLD)
    assert [ending for ending, _ in told] == ["updated", "automatically_updated", "detached"]
    assert [one.card for _, one in told] == asked
    assert [card.customer for card in asked] == [holder.customer, holder.customer, None]


def test_the_deleting_of_a_customer_is_told_with_its_cards(
    sandbox: StripeSandbox, control: StripeSandboxControl
) -> None:
    holder = make_cardholder(sandbox.url)
    control.delete_customer(holder.customer)
    ((_, told),) = told_by(control, holder.customer, {CUSTOMER_DELETED})
    assert told.deleted_customer == holder.customer
    ((_, told),) = told_by(control, holder.payment_method, CARDS_TOLD)
    assert told.card is not None
    assert (told.card.payment_method, told.card.customer) == (holder.payment_method, None)


def test_an_event_is_read_with_its_parts(events: StripeEvents) -> None:
    read = events.read(BODY, signed(BODY), now=NOW)
    assert (read.id, read.type) == ("evt_1", "payment_intent.succeeded")
    assert read.created_at == datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC)
    assert read.report == CardReport(
        payment_intent="pi_1",
        status=CardStatus.SUCCEEDED,
        amount_received=12_34,
        currency="usd",
        metadata={"attempt": "7"},
    )
    assert read.payload == event()
    assert event_from(read.payload) == read


def test_amounts_are_in_our_minor_units() -> None:
    report = event_from(event(currency="isk", amount_received=50_000)).report
    assert report is not None
    assert report.amount_received == 500


@pytest.mark.parametrize(
    "payload",
    [
        event("payment_intent.created", status="requires_confirmation"),
        event("charge.succeeded"),
        event("charge.updated"),
        event("payment_intent.payment_failed", status="requires_payment_method"),
        event("payment_intent.succeeded", status="a new one"),
        event(currency="isk", amount_received=5),
        event_about({**SESSION, "status": "a new one"}, "checkout.session.completed"),
        event_about({**SESSION, "status": None}, "checkout.session.expired"),
        event_about({"id": "pm_1"}, "payment_method.attached"),
        event_about({"id": "cus_1"}, "customer.updated"),
    ],
)
def test_an_event_that_tells_no_status_of_ours_has_no_report(payload: dict[str, Any]) -> None:
    read = event_from(payload)
    assert read.report is None
    assert (read.checkout, read.card, read.deleted_customer) == (None, None, None)
    assert read.payload == payload


def test_headers_are_found_in_any_case(events: StripeEvents) -> None:
    header = signed(BODY)["Stripe-Signature"]
    for name in ("stripe-signature", "STRIPE-SIGNATURE"):
        assert events.read(BODY, {name: header}, now=NOW).id == "evt_1"


def test_while_a_secret_is_replaced_either_signature_will_do(events: StripeEvents) -> None:
    old = signed(BODY, secret="whsec_old")["Stripe-Signature"]
    new = signed(BODY)["Stripe-Signature"].split(",")[1]
    assert events.read(BODY, {"Stripe-Signature": f"{old},{new}"}, now=NOW).id == "evt_1"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "t=1,v1=",
        "what?",
        "v1=00",
        "t=,v1=00",
        f"t={int(NOW.timestamp())}",
        f"t={int(NOW.timestamp())},v1=\u00e9\u00e9",
        f"t={'9' * 5000},v1=00",
    ],
)
def test_an_event_without_a_right_signature_is_not_trusted(
    events: StripeEvents, header: str | None
) -> None:
    with pytest.raises(UntrustedEvents):
        events.read(BODY, {} if header is None else {"Stripe-Signature": header}, now=NOW)


def test_changed_events_and_other_secrets_are_not_trusted(events: StripeEvents) -> None:
    with pytest.raises(UntrustedEvents):
        events.read(BODY.replace(b"1234", b"9999"), signed(BODY), now=NOW)
    with pytest.raises(UntrustedEvents):
        events.read(BODY, signed(BODY, secret="whsec_other"), now=NOW)
    with pytest.raises(UntrustedEvents):
        events.read(b"\xff\xfe", signed(b"\xff\xfe"), now=NOW)
    later = signed(BODY)["Stripe-Signature"].replace("t=", "t=1")
    with pytest.raises(UntrustedEvents):
        events.read(BODY, {"Stripe-Signature": later}, now=NOW)


@pytest.mark.parametrize("at", [10**11, 10**18])
def test_a_signature_from_beyond_the_calendar_is_not_trusted(events: StripeEvents, at: int) -> None:
    with pytest.raises(UntrustedEvents):
        events.read(BODY, {"Stripe-Signature": signature(BODY, SECRET, at)}, now=NOW)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_signature_is_good_for_five_minutes_by_the_given_clock(
    events: StripeEvents, sign: int
) -> None:
    near, far = timedelta(minutes=5), timedelta(minutes=5, seconds=1)
    assert events.read(BODY, signed(BODY, NOW + sign * near), now=NOW).id == "evt_1"
    with pytest.raises(UntrustedEvents, match="ago"):
        events.read(BODY, signed(BODY, NOW + sign * far), now=NOW)
    patient = StripeEvents(SECRET, tolerance=timedelta(hours=1))
    assert patient.read(BODY, signed(BODY, NOW + sign * far), now=NOW).id == "evt_1"


MALFORMED: Mapping[str, Any] = {
    "a list": [],
    "nothing": None,
    "text": "event",
    "empty": {},
    "no id": {name: value for name, value in event().items() if name != "id"},
    "created in words": {**event(), "created": "2026-11-22T12:00:00Z"},
    "created beyond the calendar": {**event(), "created": 10**18},
    "no object": {**event(), "data": {}},
    "an object that is none": {**event(), "data": {"object": []}},
    "no status": {**event(), "data": {"object": {"id": "pi_1"}}},
    "an amount in words": event(amount_received="much"),
    "metadata in a list": event(metadata=["attempt"]),
    "a page that is none": event_about({"id": "cs_1"}, "checkout.session.completed"),
    "a page of a payment in words": event_about(
        {**SESSION, "payment_intent": "pi_1", "payment_status": "paid", "amount_total": "much"},
        "checkout.session.completed",
    ),
    "a card that is none": event_about({**INTENT}, "payment_method.updated"),
    "a card in a list": event_about([], "payment_method.detached"),
    "a customer without an id": event_about({}, "customer.deleted"),
    "an error in words": event(last_payment_error="declined", status="requires_payment_method"),
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED)
def test_what_is_signed_and_no_event_is_malformed(
    events: StripeEvents,
    payload: Any,  # noqa: ANN401 - JSON of any shape.
) -> None:
    body = json.dumps(payload).encode()
    with pytest.raises(MalformedEvents):
        events.read(body, signed(body), now=NOW)
    with pytest.raises(MalformedEvents):
        event_from(payload)


def test_what_is_signed_and_no_json_is_malformed(events: StripeEvents) -> None:
    for body in (b"", b"{", b"event"):
        with pytest.raises(MalformedEvents):
            events.read(body, signed(body), now=NOW)


def test_the_secret_and_the_unproven_body_are_in_no_error(events: StripeEvents) -> None:
    with pytest.raises(UntrustedEvents) as untrusted:
        events.read(BODY, signed(b"other"), now=NOW)
    shown = str(untrusted.getrepr(chain=True)) + repr(events)
    assert SECRET not in shown
    assert untrusted.value.__cause__ is None


@pytest.mark.parametrize("secret", ["", " \n"])
def test_no_secret_is_told_at_once(secret: str) -> None:
    with pytest.raises(ValueError, match="secret is empty"):
        StripeEvents(secret)


def test_it_agrees_with_the_sdk_s_own_reading(events: StripeEvents) -> None:
    now = datetime.now(UTC)
    headers = signed(BODY, now)
    theirs = stripe.Webhook.construct_event(BODY, headers["Stripe-Signature"], SECRET)
    ours = events.read(BODY, headers, now=now)
    assert ours.payload == theirs.to_dict()


def test_any_of_several_secrets_will_do(events: StripeEvents) -> None:
    now = datetime.now(UTC)
    both = StripeEvents("whsec_of_connected_ones", SECRET)
    for secret in ("whsec_of_connected_ones", SECRET):
        headers = {"Stripe-Signature": signature(BODY, secret, int(now.timestamp()))}
        assert both.read(BODY, headers, now=now).id == "evt_1"
    headers = {"Stripe-Signature": signature(BODY, "whsec_nobodys", int(now.timestamp()))}
    for reader in (both, events):
        with pytest.raises(UntrustedEvents):
            reader.read(BODY, headers, now=now)


def test_an_event_of_a_connected_account_names_it() -> None:
    assert event_from({**event(), "account": "acct_ada"}).stripe_account == "acct_ada"
    assert event_from(event()).stripe_account is None
