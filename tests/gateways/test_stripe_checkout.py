import json
import secrets
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import stripe

from gateways.cards import (
    CardReport,
    CardStatus,
    CardsUnavailable,
    ChargeOutcomeUnknown,
    ChargeRefused,
)
from gateways.checkout import CheckoutGateway, CheckoutOrder, CheckoutReport, CheckoutStatus
from gateways.merchants import DEPLOYMENT, Merchant
from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.errors import JsonObject
from gateways.sandbox.stripe.faults import FaultKind
from gateways.sandbox.stripe.forms import nested
from gateways.sandbox.stripe.parameters import OPERATIONS, check
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sandbox.stripe.settings import Settings
from gateways.stripe_api import StripeApi
from gateways.stripe_checkout import StripeCheckout, checkout_report
from tests.gateways.sandbox.stripe.test_spec import ABSENT, SPECS, YOUNGER
from tests.gateways.test_stripe_cards import http, request_schema, server_that_answers

SECRET = "sk_test_8Kq2unguessable"
SESSIONS = "/v1/checkout/sessions"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[StripeSandbox]:
    with (
        tempfile.TemporaryDirectory(prefix="due course ") as directory,
        StripeSandbox(Path(directory)) as sandbox,
    ):
        yield sandbox


@pytest.fixture
def control(sandbox: StripeSandbox) -> StripeSandboxControl:
    """The module's Stripe with nothing switched on; other tests' pages may be in it."""
    sandbox.control.clear_faults()
    sandbox.control.set(**Settings(settle_after=None).as_json())
    return sandbox.control


@pytest.fixture(autouse=True)
def _retries_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(stripe.HTTPClient, "MAX_DELAY", 0.001)


@pytest.fixture
def checkout(control: StripeSandboxControl) -> Iterator[CheckoutGateway]:
    with StripeApi(SECRET, base_url=control.url) as api:
        yield StripeCheckout(api)


@pytest.fixture
def order(control: StripeSandboxControl) -> CheckoutOrder:
    """A page for 12.34 dollars with a key and an attempt of its own."""
    return order_for(make_cardholder(control.url).customer)


def order_for(customer: str, *, amount: int = 12_34, currency: str = "usd") -> CheckoutOrder:
    attempt = secrets.token_hex(8)
    return CheckoutOrder(
        amount=amount,
        currency=currency,
        customer=customer,
        idempotency_key=f"attempt-{attempt}",
        description="INV-1 of Bluebird",
        metadata={"account": "1", "invoice": "3", "attempt": attempt},
        expires_at=datetime.now(UTC) + timedelta(hours=1),
        success_url="https://pay.example/i/token?paid=1",
        cancel_url="https://pay.example/i/token",
    )


def card_order(order: CheckoutOrder) -> CheckoutOrder:
    """The same for a page that only takes a card."""
    return replace(order, amount=None, description="", metadata={"card_setup": "8"})


Sessions = Callable[[CheckoutOrder], list[JsonObject]]


@pytest.fixture
def sessions_of(control: StripeSandboxControl) -> Sessions:
    """The sessions that Stripe made for the customer."""

    def found(order: CheckoutOrder) -> list[JsonObject]:
        made = control.objects("checkout.session")
        return [session for session in made if session["customer"] == order.customer]

    return found


def test_a_page_that_is_opened_says_where_it_is(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    report = checkout.open(order)
    assert report == CheckoutReport(
        session=report.session,
        status=CheckoutStatus.OPEN,
        url=f"{control.url}/c/pay/{report.session}",
        customer=order.customer,
        metadata=order.metadata,
    )
    assert checkout.retrieve(report.session, DEPLOYMENT) == report


def test_the_request_holds_what_is_needed_and_no_more(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    checkout.open(order)
    (logged,) = control.requests(idempotency_key=order.idempotency_key)
    attempt = order.metadata["attempt"]
    assert (logged.method, logged.path) == ("POST", SESSIONS)
    assert logged.parameters == {
        "mode": "payment",
        "customer": order.customer,
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][product_data][name]": "INV-1 of Bluebird",
        "line_items[0][price_data][unit_amount]": "1234",
        "line_items[0][quantity]": "1",
        "payment_intent_data[description]": "INV-1 of Bluebird",
        "payment_intent_data[metadata][account]": "1",
        "payment_intent_data[metadata][invoice]": "3",
        "payment_intent_data[metadata][attempt]": attempt,
        "metadata[account]": "1",
        "metadata[invoice]": "3",
        "metadata[attempt]": attempt,
        "expires_at": str(int(order.expires_at.timestamp())),
        "success_url": order.success_url,
        "cancel_url": order.cancel_url,
        "adaptive_pricing[enabled]": "false",
    }


def test_the_request_for_a_card_says_no_amount(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    checkout.open(card_order(order))
    (logged,) = control.requests(idempotency_key=order.idempotency_key)
    assert logged.parameters == {
        "mode": "setup",
        "customer": order.customer,
        "currency": "usd",
        "setup_intent_data[metadata][card_setup]": "8",
        "metadata[card_setup]": "8",
        "expires_at": str(int(order.expires_at.timestamp())),
        "success_url": order.success_url,
        "cancel_url": order.cancel_url,
    }


def test_a_page_that_was_paid_tells_of_the_payment(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    opened = checkout.open(order)
    paid = control.pay_session(opened.session)
    assert checkout.retrieve(opened.session, DEPLOYMENT) == replace(
        opened,
        status=CheckoutStatus.COMPLETE,
        url=None,
        payment=CardReport(
            payment_intent=paid["payment_intent"],
            status=CardStatus.SUCCEEDED,
            amount_received=12_34,
            currency="usd",
            metadata=order.metadata,
        ),
    )


def test_a_decline_is_told_of_a_page_that_stays_open(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    opened = checkout.open(order)
    control.pay_session(opened.session, "pm_card_chargeDeclinedInsufficientFunds")
    report = checkout.retrieve(opened.session, DEPLOYMENT)
    assert (report.status, report.url) == (CheckoutStatus.OPEN, opened.url)
    assert report.payment is not None
    assert (report.payment.status, report.payment.decline_code) == (
        CardStatus.DECLINED,
        "insufficient_funds",
    )


def test_a_client_whom_the_bank_asks_is_told_of(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    opened = checkout.open(order)
    control.pay_session(opened.session, "pm_card_authenticationRequired", authenticates=None)
    report = checkout.retrieve(opened.session, DEPLOYMENT)
    assert report.status is CheckoutStatus.OPEN
    assert report.payment is not None
    assert report.payment.status is CardStatus.NEEDS_ACTION


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("succeeded", CardStatus.SUCCEEDED), ("insufficient_funds", CardStatus.DECLINED)],
)
def test_a_bank_debit_completes_the_page_before_it_is_paid(
    checkout: CheckoutGateway,
    control: StripeSandboxControl,
    order: CheckoutOrder,
    outcome: str,
    status: CardStatus,
) -> None:
    opened = checkout.open(order)
    control.pay_session(opened.session, "pm_usBankAccount_success")
    report = checkout.retrieve(opened.session, DEPLOYMENT)
    assert report.status is CheckoutStatus.COMPLETE
    assert report.payment is not None
    assert report.payment.status is CardStatus.PROCESSING
    control.settle(report.payment.payment_intent, outcome)
    settled = checkout.retrieve(opened.session, DEPLOYMENT).payment
    assert settled is not None
    assert settled.status is status


def test_a_card_that_was_left_is_told_of_once_it_is_kept(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    opened = checkout.open(card_order(order))
    name = "pm_card_authenticationRequired"
    control.save_card(opened.session, name, authenticates=None)
    assert checkout.retrieve(opened.session, DEPLOYMENT) == opened
    control.save_card(opened.session, name)
    report = checkout.retrieve(opened.session, DEPLOYMENT)
    (setup,) = [
        setup for setup in control.objects("setup_intent") if setup["customer"] == order.customer
    ]
    assert report == replace(
        opened,
        status=CheckoutStatus.COMPLETE,
        url=None,
        payment_method=setup["payment_method"],
    )


@pytest.mark.parametrize(
    ("amount", "sent"),
    [((500, "jpy"), "500"), ((12_340, "kwd"), "12340"), ((500, "isk"), "50000")],
)
def test_amounts_go_out_and_come_back_in_each_currency_s_units(
    checkout: CheckoutGateway,
    control: StripeSandboxControl,
    order: CheckoutOrder,
    amount: tuple[int, str],
    sent: str,
) -> None:
    foreign = replace(order, amount=amount[0], currency=amount[1])
    opened = checkout.open(foreign)
    (logged,) = control.requests(idempotency_key=order.idempotency_key)
    assert logged.parameters["line_items[0][price_data][unit_amount]"] == sent
    control.pay_session(opened.session)
    paid = checkout.retrieve(opened.session, DEPLOYMENT).payment
    assert paid is not None
    assert (paid.amount_received, paid.currency) == amount


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"customer": "cus_nobody"}, "resource_missing"),
        ({"amount": 10}, "amount_too_small"),
        ({"expires_at": datetime(2026, 1, 1, tzinfo=UTC)}, "invalid"),
    ],
)
def test_what_stripe_will_never_take_is_refused(
    checkout: CheckoutGateway,
    sessions_of: Sessions,
    order: CheckoutOrder,
    change: dict[str, Any],
    code: str,
) -> None:
    with pytest.raises(ChargeRefused, match="400") as refusal:
        checkout.open(replace(order, **change))
    assert refusal.value.code == code
    assert sessions_of(order) == []


@pytest.mark.parametrize(
    ("amount", "code"),
    [((12_345, "kwd"), "invalid_amount"), ((500, "all"), "invalid_currency")],
)
def test_an_amount_that_stripe_cannot_be_told_is_refused_unsent(
    checkout: CheckoutGateway,
    control: StripeSandboxControl,
    order: CheckoutOrder,
    amount: tuple[int, str],
    code: str,
) -> None:
    with pytest.raises(ChargeRefused) as refusal:
        checkout.open(replace(order, amount=amount[0], currency=amount[1]))
    assert refusal.value.code == code
    assert control.requests(idempotency_key=order.idempotency_key) == []


def test_a_page_without_a_key_is_not_opened(
    checkout: CheckoutGateway, sessions_of: Sessions, order: CheckoutOrder
) -> None:
    with pytest.raises(ValueError, match="idempotency key"):
        checkout.open(replace(order, idempotency_key=""))
    assert sessions_of(order) == []


def test_an_answer_lost_once_is_asked_for_again_and_one_page_is_open(
    checkout: CheckoutGateway,
    control: StripeSandboxControl,
    sessions_of: Sessions,
    order: CheckoutOrder,
) -> None:
    control.add_fault("lost_answer", path=SESSIONS)
    report = checkout.open(order)
    assert [session["id"] for session in sessions_of(order)] == [report.session]


def test_answers_that_stay_lost_are_asked_for_later_under_the_same_key(
    checkout: CheckoutGateway,
    control: StripeSandboxControl,
    sessions_of: Sessions,
    order: CheckoutOrder,
) -> None:
    control.add_fault("lost_answer", path=SESSIONS, times=3)
    with pytest.raises(CardsUnavailable, match="no answer"):
        checkout.open(order)
    report = checkout.open(order)
    assert [session["id"] for session in sessions_of(order)] == [report.session]


@pytest.mark.parametrize("kind", ["server_error", "rate_limit", "reset", "conflict"])
def test_a_call_that_fails_can_be_made_again(
    checkout: CheckoutGateway,
    control: StripeSandboxControl,
    sessions_of: Sessions,
    order: CheckoutOrder,
    kind: FaultKind,
) -> None:
    def failing(call: Callable[[], CheckoutReport]) -> CheckoutReport:
        control.add_fault(kind, method=None, path=f"{SESSIONS}*", times=None)
        with pytest.raises(CardsUnavailable):
            call()
        control.clear_faults()
        return call()

    opened = failing(lambda: checkout.open(order))
    assert failing(lambda: checkout.retrieve(opened.session, DEPLOYMENT)) == opened
    expired = failing(lambda: checkout.expire(opened.session, DEPLOYMENT))
    assert expired.status is CheckoutStatus.EXPIRED
    assert len(sessions_of(order)) == 1


def test_too_much_at_once_says_when_to_come_back(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    control.add_fault("rate_limit", path=SESSIONS, retry_after=7)
    with pytest.raises(CardsUnavailable, match="429") as unavailable:
        checkout.open(order)
    assert unavailable.value.retry_after == timedelta(seconds=7)


def test_an_answer_that_takes_too_long_is_asked_for_later(
    sandbox: StripeSandbox,
    control: StripeSandboxControl,
    sessions_of: Sessions,
    order: CheckoutOrder,
) -> None:
    control.add_fault("delay", path=SESSIONS, seconds=0.6, after_effect=True)
    with StripeApi(SECRET, base_url=sandbox.url, read_seconds=0.2) as api:
        checkout = StripeCheckout(api)
        with pytest.raises(CardsUnavailable, match="timed out"):
            checkout.open(order)
        (session,) = sessions_of(order)
        assert checkout.retrieve(session["id"], DEPLOYMENT).status is CheckoutStatus.OPEN


def test_another_page_under_the_same_key_is_never_opened(
    checkout: CheckoutGateway, sessions_of: Sessions, order: CheckoutOrder
) -> None:
    checkout.open(order)
    with pytest.raises(CardsUnavailable, match="same parameters"):
        checkout.open(replace(order, amount=1))
    assert len(sessions_of(order)) == 1


def test_an_expired_page_can_no_longer_be_paid(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    opened = checkout.open(order)
    after = checkout.expire(opened.session, DEPLOYMENT)
    assert after == replace(opened, status=CheckoutStatus.EXPIRED, url=None)
    assert checkout.expire(opened.session, DEPLOYMENT) == after
    control.expire_session(checkout.open(replace(order, idempotency_key="other")).session)


def test_expiring_while_the_bank_asks_cancels_the_payment(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    opened = checkout.open(order)
    control.pay_session(opened.session, "pm_card_authenticationRequired", authenticates=None)
    report = checkout.expire(opened.session, DEPLOYMENT)
    assert report.status is CheckoutStatus.EXPIRED
    assert report.payment is not None
    assert report.payment.status is CardStatus.CANCELED


@pytest.mark.parametrize(
    ("card", "status"),
    [
        ("pm_card_visa", CardStatus.SUCCEEDED),
        ("pm_usBankAccount_success", CardStatus.PROCESSING),
    ],
)
def test_a_page_that_was_paid_is_not_expired_and_says_so(
    checkout: CheckoutGateway,
    control: StripeSandboxControl,
    order: CheckoutOrder,
    card: str,
    status: CardStatus,
) -> None:
    opened = checkout.open(order)
    control.pay_session(opened.session, card)
    report = checkout.expire(opened.session, DEPLOYMENT)
    assert report.status is CheckoutStatus.COMPLETE
    assert report.payment is not None
    assert report.payment.status is status
    assert report == checkout.retrieve(opened.session, DEPLOYMENT)


def test_a_page_that_is_expired_with_its_answer_lost_is_expired(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    opened = checkout.open(order)
    control.add_fault("lost_answer", path=f"{SESSIONS}/*", times=3)
    with pytest.raises(CardsUnavailable):
        checkout.expire(opened.session, DEPLOYMENT)
    assert checkout.expire(opened.session, DEPLOYMENT).status is CheckoutStatus.EXPIRED


def test_a_page_that_is_not_there_is_surely_not_there(checkout: CheckoutGateway) -> None:
    for ask in (checkout.retrieve, checkout.expire):
        with pytest.raises(ChargeRefused, match="404 No such") as refused:
            ask("cs_test_nothing", DEPLOYMENT)
        assert refused.value.code == "resource_missing"


def test_a_refusal_to_expire_a_page_that_stays_open_is_no_answer() -> None:
    session = _session(payment_intent=None)
    with (
        server_that_answers(
            http(400, {"error": {"type": "invalid_request_error", "message": "No."}}),
            http(200, session),
        ) as url,
        StripeApi(SECRET, base_url=url) as api,
        pytest.raises(CardsUnavailable, match="400 No"),
    ):
        StripeCheckout(api).expire("cs_1", DEPLOYMENT)


def _session(**changes: object) -> JsonObject:
    return {
        "id": "cs_1",
        "object": "checkout.session",
        "status": "open",
        "url": "https://checkout.example/cs_1",
        "customer": "cus_1",
        "metadata": {},
        "mode": "payment",
        "currency": "usd",
        "amount_total": 12_34,
        "payment_status": "unpaid",
        "payment_intent": None,
        "setup_intent": None,
        **changes,
    }


INTENT = {"id": "pi_1", "object": "payment_intent", "currency": "usd", "amount_received": 0}


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, _session(status="thinking"), _session(object="event")],
    ids=["nothing", "list", "no session", "new status", "no session either"],
)
def test_a_strange_answer_is_no_answer(order: CheckoutOrder, answer: object) -> None:
    calls: tuple[Callable[[CheckoutGateway], object], ...] = (
        lambda checkout: checkout.open(order),
        lambda checkout: checkout.retrieve("cs_1", DEPLOYMENT),
        lambda checkout: checkout.expire("cs_1", DEPLOYMENT),
    )
    for call in calls:
        with (
            server_that_answers(http(200, answer)) as url,
            StripeApi(SECRET, base_url=url) as api,
            pytest.raises(CardsUnavailable),
        ):
            call(StripeCheckout(api))


def test_a_payment_in_no_known_state_is_unknown() -> None:
    session = _session(payment_intent=INTENT | {"status": "requires_capture"})
    with (
        server_that_answers(http(200, session)) as url,
        StripeApi(SECRET, base_url=url) as api,
        pytest.raises(ChargeOutcomeUnknown, match="pi_1 is requires_capture"),
    ):
        StripeCheckout(api).retrieve("cs_1", DEPLOYMENT)


def test_a_payment_that_nothing_was_tried_for_is_none() -> None:
    session = _session(payment_intent=INTENT | {"status": "requires_payment_method"})
    report = checkout_report(session)
    assert report is not None
    assert report.payment is None


def test_an_amount_of_parts_that_we_do_not_have_is_no_payment() -> None:
    session = _session(payment_intent="pi_1", payment_status="paid", currency="isk", amount_total=5)
    report = checkout_report(session)
    assert report is not None
    assert report.payment is None


def test_a_server_that_is_not_there_can_be_asked_later(order: CheckoutOrder) -> None:
    with (
        StripeApi(SECRET, base_url="http://nowhere.invalid") as api,
        pytest.raises(CardsUnavailable, match="not reached"),
    ):
        StripeCheckout(api).open(order)


def test_another_account_is_not_asked_with_this_one_s_key(
    checkout: CheckoutGateway, sessions_of: Sessions, order: CheckoutOrder
) -> None:
    with pytest.raises(CardsUnavailable):
        checkout.open(replace(order, merchant=Merchant(sealed_key="sealed")))
    assert sessions_of(order) == []


def test_many_threads_with_one_key_open_one_page(
    checkout: CheckoutGateway,
    control: StripeSandboxControl,
    sessions_of: Sessions,
    order: CheckoutOrder,
) -> None:
    control.add_fault("delay", path=SESSIONS, seconds=0.2)

    def opened(_: int) -> CheckoutReport | None:
        try:
            return checkout.open(order)
        except CardsUnavailable:
            return None

    with ThreadPoolExecutor(4) as threads:
        reports = list(threads.map(opened, range(4)))
    assert checkout.open(order) in reports
    assert len(sessions_of(order)) == 1


def test_the_requests_agree_with_stripe_s_description(
    checkout: CheckoutGateway, control: StripeSandboxControl, order: CheckoutOrder
) -> None:
    path = SPECS / "stripe-requests.openapi.json"
    if not path.exists():
        pytest.skip(ABSENT)
    described = json.loads(path.read_text())["paths"]
    before = len(control.requests())
    opened = checkout.open(order)
    checkout.open(replace(card_order(order), idempotency_key=f"setup-{order.idempotency_key}"))
    checkout.expire(opened.session, DEPLOYMENT)
    sent = set()
    for request in control.requests()[before:]:
        operation = (request.method, request.path.replace(opened.session, "{session}"))
        values = check(nested(request.parameters.items()), OPERATIONS[operation])
        known = {
            name: value for name, value in values.items() if name not in YOUNGER.get(operation, ())
        }
        place = described[operation[1]][request.method.lower()]
        jsonschema_rs.validate(request_schema(place), known)
        sent.add(operation)
    assert sent == {("POST", SESSIONS), ("POST", f"{SESSIONS}/{{session}}/expire")}
