import json
import logging
import secrets
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import stripe
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from billing.declines import DeclineClass, decline_class
from billing.errors import TransientFailure
from gateways import stripe_api, stripe_cards
from gateways.cards import (
    CardCharge,
    CardGateway,
    CardReport,
    CardStatus,
    CardsUnavailable,
    ChargeOutcomeUnknown,
    ChargeRefused,
    TooManyRequests,
)
from gateways.merchants import DEPLOYMENT
from gateways.sandbox.stripe.behaviours import TEST_PAYMENT_METHODS, Failure
from gateways.sandbox.stripe.cardholders import Cardholder, make_cardholder
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.errors import JsonObject
from gateways.sandbox.stripe.faults import FaultKind, LimitCode
from gateways.sandbox.stripe.forms import nested
from gateways.sandbox.stripe.parameters import OPERATIONS, check
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sandbox.stripe.settings import Settings
from gateways.stripe_api import StripeApi
from gateways.stripe_cards import card_report
from tests.gateways.sandbox.stripe.paying import client_of
from tests.gateways.sandbox.stripe.test_spec import ABSENT, SPECS
from tests.stripe import cards_at_stripe, known_payment

SECRET = "sk_test_8Kq2unguessable"
INTENTS = "/v1/payment_intents"
DECLINING = {
    name: behaviour.failure
    for name, behaviour in TEST_PAYMENT_METHODS.items()
    if behaviour.type == "card" and behaviour.failure is not None
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[StripeSandbox]:
    with (
        tempfile.TemporaryDirectory(prefix="due course ") as directory,
        StripeSandbox(Path(directory)) as sandbox,
    ):
        yield sandbox


@pytest.fixture
def control(sandbox: StripeSandbox) -> StripeSandboxControl:
    """The module's Stripe with nothing switched on; other tests' payments may be in it."""
    sandbox.control.clear_faults()
    sandbox.control.set(**Settings(settle_after=None).as_json())
    return sandbox.control


@pytest.fixture(autouse=True)
def _retries_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.001)
    monkeypatch.setattr(stripe.HTTPClient, "MAX_DELAY", 0.001)


@pytest.fixture
def cards(control: StripeSandboxControl) -> Iterator[CardGateway]:
    with cards_at_stripe(SECRET, base_url=control.url) as cards:
        yield cards


@pytest.fixture
def holder(control: StripeSandboxControl) -> Cardholder:
    return make_cardholder(control.url)


def charge_of(holder: Cardholder, *, amount: int = 12_34, currency: str = "usd") -> CardCharge:
    """A charge with a key and an attempt of its own."""
    attempt = secrets.token_hex(8)
    return CardCharge(
        amount=amount,
        currency=currency,
        customer=holder.customer,
        payment_method=holder.payment_method,
        idempotency_key=f"attempt-{attempt}",
        description="INV-1 of Bluebird",
        metadata={"account": "1", "client": "2", "invoice": "3", "attempt": attempt},
        sent_since=datetime.now(UTC),
    )


@pytest.fixture
def order(holder: Cardholder) -> CardCharge:
    return charge_of(holder)


@pytest.fixture
def charges_of(control: StripeSandboxControl) -> Callable[[CardCharge], list[JsonObject]]:
    """The charges that Stripe made of the customer."""

    def found(order: CardCharge) -> list[JsonObject]:
        return [made for made in control.charges() if made["customer"] == order.customer]

    return found


ChargesOf = Callable[[CardCharge], list[JsonObject]]


@contextmanager
def server_that_answers(*answers: bytes) -> Iterator[str]:
    """A server that answers a request on each of so many connections, then takes no more."""

    def serve() -> None:
        with listener:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join()


def http(status: int, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + content


def test_a_charge_that_succeeds_says_what_was_received(
    cards: CardGateway, control: StripeSandboxControl, order: CardCharge
) -> None:
    report = cards.charge(order)
    (logged,) = control.requests(idempotency_key=order.idempotency_key)
    assert report == CardReport(
        payment_intent=str(logged.object_id),
        status=CardStatus.SUCCEEDED,
        amount_received=12_34,
        currency="usd",
        metadata=order.metadata,
    )


def test_the_request_holds_what_is_needed_and_no_more(
    cards: CardGateway, control: StripeSandboxControl, order: CardCharge
) -> None:
    cards.charge(order)
    (logged,) = control.requests(idempotency_key=order.idempotency_key)
    assert (logged.method, logged.path) == ("POST", INTENTS)
    assert logged.parameters == {
        "amount": "1234",
        "currency": "usd",
        "customer": order.customer,
        "payment_method": order.payment_method,
        "off_session": "true",
        "confirm": "true",
        "automatic_payment_methods[enabled]": "true",
        "automatic_payment_methods[allow_redirects]": "never",
        "description": "INV-1 of Bluebird",
        "metadata[account]": "1",
        "metadata[client]": "2",
        "metadata[invoice]": "3",
        "metadata[attempt]": order.metadata["attempt"],
    }


@pytest.mark.parametrize(("name", "failure"), DECLINING.items(), ids=DECLINING)
def test_a_declined_card_is_a_report_with_its_code(
    cards: CardGateway,
    sandbox: StripeSandbox,
    control: StripeSandboxControl,
    name: str,
    failure: Failure,
) -> None:
    order = charge_of(make_cardholder(sandbox.url, payment_method=name))
    report = cards.charge(order)
    assert report.status is CardStatus.DECLINED
    assert report.decline_code == (failure.decline_code or failure.code)
    assert report.message == failure.message
    assert report.amount_received == 0
    assert report.metadata == order.metadata
    assert decline_class(report.decline_code) is decline_class(failure.decline_code, failure.code)
    assert cards.retrieve(report.payment_intent, DEPLOYMENT) == report
    assert len(control.requests(idempotency_key=order.idempotency_key)) == 1


def test_every_class_of_decline_but_authentication_is_among_them() -> None:
    classes = {decline_class(failure.decline_code, failure.code) for failure in DECLINING.values()}
    assert classes == set(DeclineClass) - {DeclineClass.NEEDS_AUTHENTICATION}


def test_a_card_that_wants_its_holder_present_needs_action(
    cards: CardGateway, sandbox: StripeSandbox
) -> None:
    order = charge_of(make_cardholder(sandbox.url, payment_method="pm_card_authenticationRequired"))
    report = cards.charge(order)
    assert report.status is CardStatus.NEEDS_ACTION
    assert report.decline_code == "authentication_required"
    assert cards.look_up(order) == report


def test_a_payment_that_waits_for_its_holder_needs_action_also_after_a_failed_try(
    cards: CardGateway, sandbox: StripeSandbox, control: StripeSandboxControl
) -> None:
    waiting = _waiting_for_its_holder(sandbox)
    report = known_payment(cards, waiting)
    assert (report.status, report.decline_code) == (CardStatus.NEEDS_ACTION, None)
    control.authenticate(waiting, successful=False)
    report = known_payment(cards, waiting)
    assert report.status is CardStatus.NEEDS_ACTION
    assert report.decline_code == "payment_intent_authentication_failure"


def test_a_returned_bank_debit_that_is_told_without_its_charge_is_unexplained() -> None:
    intent = {
        "id": "pi_1",
        "status": "requires_payment_method",
        "currency": "usd",
        "latest_charge": "py_1",
        "last_payment_error": {"code": "payment_intent_payment_attempt_failed"},
    }
    charge = {"id": "py_1", "failure_code": "account_closed"}

    told, asked = card_report(intent), card_report({**intent, "latest_charge": charge})

    assert told is not None
    assert told.is_unexplained
    assert asked is not None
    assert (asked.is_unexplained, asked.decline_code) == (False, "account_closed")


def test_a_declined_card_explains_itself() -> None:
    report = card_report(
        {
            "id": "pi_1",
            "status": "requires_payment_method",
            "currency": "usd",
            "latest_charge": "ch_1",
            "last_payment_error": {"code": "card_declined", "decline_code": "lost_card"},
        }
    )

    assert report is not None
    assert (report.is_unexplained, report.decline_code) == (False, "lost_card")


@pytest.mark.parametrize("outcome", ["succeeded", "insufficient_funds"])
def test_a_bank_debit_is_processing_until_it_settles(
    cards: CardGateway, sandbox: StripeSandbox, control: StripeSandboxControl, outcome: str
) -> None:
    order = charge_of(make_cardholder(sandbox.url, payment_method="pm_usBankAccount_success"))
    report = cards.charge(order)
    assert (report.status, report.amount_received) == (CardStatus.PROCESSING, 0)
    control.settle(report.payment_intent, outcome)
    settled = known_payment(cards, report.payment_intent)
    if outcome == "succeeded":
        assert (settled.status, settled.amount_received) == (CardStatus.SUCCEEDED, 12_34)
    else:
        assert settled.status is CardStatus.DECLINED
        # Which only the charge says.
        assert settled.decline_code == "insufficient_funds"
        assert not settled.is_unexplained


@pytest.mark.parametrize(
    ("amount", "sent"),
    [
        ((500, "jpy"), "500"),
        ((12_340, "kwd"), "12340"),
        ((500, "isk"), "50000"),
        ((9_000, "ugx"), "900000"),
    ],
)
def test_amounts_go_out_and_come_back_in_each_currency_s_units(
    cards: CardGateway,
    control: StripeSandboxControl,
    holder: Cardholder,
    amount: tuple[int, str],
    sent: str,
) -> None:
    order = charge_of(holder, amount=amount[0], currency=amount[1])
    report = cards.charge(order)
    assert (report.amount_received, report.currency) == amount
    (logged,) = control.requests(idempotency_key=order.idempotency_key)
    assert logged.parameters["amount"] == sent


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"customer": "cus_nobody"}, "resource_missing"),
        ({"payment_method": "pm_nothing"}, "resource_missing"),
        ({"amount": 10}, "amount_too_small"),
        ({"payment_method": "pm_usBankAccount_success", "currency": "eur"}, None),
        ({"idempotency_key": "x" * 300}, "invalid"),
    ],
)
def test_what_stripe_will_never_take_is_refused(
    cards: CardGateway,
    charges_of: ChargesOf,
    order: CardCharge,
    change: dict[str, Any],
    code: str | None,
) -> None:
    with pytest.raises(ChargeRefused) as refusal:
        cards.charge(replace(order, **change))
    assert refusal.value.code == (code or "payment_intent_invalid_parameter")
    assert "400" in refusal.value.message
    assert charges_of(order) == []


@pytest.mark.parametrize(
    ("amount", "code"),
    [((12_345, "kwd"), "invalid_amount"), ((500, "all"), "invalid_currency")],
)
def test_an_amount_that_stripe_cannot_be_told_is_refused_unsent(
    cards: CardGateway,
    control: StripeSandboxControl,
    holder: Cardholder,
    amount: tuple[int, str],
    code: str,
) -> None:
    order = charge_of(holder, amount=amount[0], currency=amount[1])
    with pytest.raises(ChargeRefused) as refusal:
        cards.charge(order)
    assert refusal.value.code == code
    assert control.requests(idempotency_key=order.idempotency_key) == []


def test_a_charge_without_a_key_is_not_sent(
    cards: CardGateway, charges_of: ChargesOf, order: CardCharge
) -> None:
    with pytest.raises(ValueError, match="idempotency key"):
        cards.charge(replace(order, idempotency_key=""))
    assert charges_of(order) == []


def test_an_answer_lost_once_is_asked_for_again_and_the_card_charged_once(
    cards: CardGateway, control: StripeSandboxControl, charges_of: ChargesOf, order: CardCharge
) -> None:
    control.add_fault("lost_answer", path=INTENTS)
    assert cards.charge(order).status is CardStatus.SUCCEEDED
    tries = control.requests(idempotency_key=order.idempotency_key)
    assert [entry.replayed for entry in tries] == [False, True]
    assert len(charges_of(order)) == 1


def test_answers_that_stay_lost_leave_the_outcome_unknown_and_the_same_key_tells_it(
    cards: CardGateway, control: StripeSandboxControl, charges_of: ChargesOf, order: CardCharge
) -> None:
    control.add_fault("lost_answer", path=INTENTS, times=3)
    with pytest.raises(ChargeOutcomeUnknown, match="no answer") as unknown:
        cards.charge(order)
    assert not isinstance(unknown.value, TransientFailure)
    assert len(control.requests(idempotency_key=order.idempotency_key)) == 3
    found = cards.look_up(order)
    assert found is not None
    assert cards.charge(order) == found
    assert found.status is CardStatus.SUCCEEDED
    assert len(charges_of(order)) == 1


def test_an_error_kept_under_the_key_stays_unknown_and_looking_up_tells_the_truth(
    cards: CardGateway, control: StripeSandboxControl, charges_of: ChargesOf, order: CardCharge
) -> None:
    control.add_fault("server_error_after", path=INTENTS)
    for _ in range(2):
        with pytest.raises(ChargeOutcomeUnknown, match="500"):
            cards.charge(order)
    tries = control.requests(idempotency_key=order.idempotency_key)
    assert [entry.replayed for entry in tries] == [False, True]
    found = cards.look_up(order)
    assert found is not None
    assert found.status is CardStatus.SUCCEEDED
    assert len(charges_of(order)) == 1


def test_an_error_before_any_effect_is_unknown_too_and_nothing_is_found(
    cards: CardGateway, control: StripeSandboxControl, charges_of: ChargesOf, order: CardCharge
) -> None:
    control.add_fault("server_error", path=INTENTS, is_saved=True)
    with pytest.raises(ChargeOutcomeUnknown, match="500"):
        cards.charge(order)
    assert cards.look_up(order) is None
    assert charges_of(order) == []


def test_an_error_that_passes_is_not_noticed(
    cards: CardGateway, control: StripeSandboxControl, order: CardCharge
) -> None:
    control.add_fault("server_error", path=INTENTS, times=2)
    assert cards.charge(order).status is CardStatus.SUCCEEDED


def test_connections_that_are_reset_leave_the_outcome_unknown(
    cards: CardGateway, control: StripeSandboxControl, charges_of: ChargesOf, order: CardCharge
) -> None:
    control.add_fault("reset", path=INTENTS, times=3)
    with pytest.raises(ChargeOutcomeUnknown):
        cards.charge(order)
    assert charges_of(order) == []
    assert cards.charge(order).status is CardStatus.SUCCEEDED


def test_an_answer_that_takes_too_long_is_waited_for_once_and_leaves_the_outcome_unknown(
    sandbox: StripeSandbox,
    control: StripeSandboxControl,
    charges_of: ChargesOf,
    order: CardCharge,
) -> None:
    control.add_fault("delay", path=INTENTS, seconds=0.6, after_effect=True)
    with cards_at_stripe(SECRET, base_url=sandbox.url, read_seconds=0.2) as cards:
        with pytest.raises(ChargeOutcomeUnknown, match="timed out"):
            cards.charge(order)
        assert len(control.requests(idempotency_key=order.idempotency_key)) == 1
        found = cards.look_up(order)
        assert found is not None
        assert found.status is CardStatus.SUCCEEDED
    assert len(charges_of(order)) == 1


@pytest.mark.parametrize("fault", ["lost_answer", "reset", "server_error", "conflict"])
def test_no_try_is_made_that_would_not_end_in_time(
    cards: CardGateway,
    control: StripeSandboxControl,
    order: CardCharge,
    monkeypatch: pytest.MonkeyPatch,
    fault: FaultKind,
) -> None:
    control.add_fault(fault, path=INTENTS, times=None)
    monkeypatch.setattr(stripe_api, "CALL_SECONDS", stripe_api.LEAST_SECONDS)

    with pytest.raises((ChargeOutcomeUnknown, CardsUnavailable)):
        cards.charge(order)

    assert len(control.requests(idempotency_key=order.idempotency_key)) == 1


@pytest.mark.parametrize("first", ["lost_answer", "reset", "server_error"])
@pytest.mark.parametrize("second", ["rate_limit", "conflict"])
def test_a_try_turned_away_after_one_in_doubt_does_not_settle_the_doubt(
    cards: CardGateway,
    control: StripeSandboxControl,
    order: CardCharge,
    first: FaultKind,
    second: FaultKind,
) -> None:
    control.add_fault(first, path=INTENTS)
    control.add_fault(second, path=INTENTS, times=None)
    with pytest.raises(ChargeOutcomeUnknown):
        cards.charge(order)
    control.clear_faults()
    control.add_fault(second, path=INTENTS, times=None)
    with pytest.raises(CardsUnavailable):
        cards.charge(order)


def test_a_refused_connection_after_a_lost_answer_does_not_settle_the_doubt(
    order: CardCharge,
) -> None:
    with (
        server_that_answers(b"") as url,
        cards_at_stripe(SECRET, base_url=url) as cards,
        pytest.raises(ChargeOutcomeUnknown, match="not reached"),
    ):
        cards.charge(order)


@pytest.mark.parametrize("code", ["rate_limit", "lock_timeout"])
def test_too_much_at_once_charges_nothing_and_says_when_to_come_back(
    cards: CardGateway,
    control: StripeSandboxControl,
    charges_of: ChargesOf,
    order: CardCharge,
    code: LimitCode,
) -> None:
    control.add_fault("rate_limit", path=INTENTS, code=code, retry_after=7)
    with pytest.raises(CardsUnavailable, match="429") as unavailable:
        cards.charge(order)
    assert unavailable.value.retry_after == timedelta(seconds=7)
    assert charges_of(order) == []
    control.add_fault("rate_limit", path=INTENTS, code=code)
    with pytest.raises(CardsUnavailable) as unavailable:
        cards.charge(order)
    assert unavailable.value.retry_after is None


def test_a_key_in_use_charges_nothing(
    cards: CardGateway, control: StripeSandboxControl, charges_of: ChargesOf, order: CardCharge
) -> None:
    control.add_fault("conflict", path=INTENTS, times=3)
    with pytest.raises(CardsUnavailable, match="409"):
        cards.charge(order)
    assert charges_of(order) == []
    assert cards.charge(order).status is CardStatus.SUCCEEDED


def test_another_charge_under_the_same_key_is_never_read_as_not_charged(
    cards: CardGateway, charges_of: ChargesOf, order: CardCharge
) -> None:
    cards.charge(order)
    with pytest.raises(ChargeOutcomeUnknown, match="same parameters"):
        cards.charge(replace(order, amount=order.amount + 1))
    assert len(charges_of(order)) == 1


def test_a_server_that_is_not_there_charges_nothing(order: CardCharge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", "http://nowhere.invalid"):
        with cards_at_stripe(SECRET, base_url=url) as cards:
            for call in (cards.charge, cards.look_up):
                with pytest.raises(CardsUnavailable, match="not reached"):
                    call(order)


def test_a_server_that_takes_no_connection_charges_nothing(order: CardCharge) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
            with (
                cards_at_stripe(SECRET, base_url=url, connect_seconds=0.1) as cards,
                pytest.raises(CardsUnavailable, match="not reached"),
            ):
                cards.charge(order)


def test_a_server_that_speaks_no_tls_leaves_the_outcome_unknown(order: CardCharge) -> None:
    with (
        server_that_answers(b"no TLS here\r\n") as url,
        cards_at_stripe(SECRET, base_url=url.replace("http:", "https:")) as cards,
        pytest.raises(ChargeOutcomeUnknown),
    ):
        cards.charge(order)


def test_a_server_that_cannot_be_trusted_never_sees_the_charge(
    order: CardCharge, tmp_path: Path
) -> None:
    heard = list[bytes]()
    with (
        _pretender(tmp_path, heard) as url,
        cards_at_stripe(SECRET, base_url=url) as cards,
        pytest.raises(CardsUnavailable, match="not trusted"),
    ):
        cards.charge(order)
    assert heard == []


@contextmanager
def _pretender(directory: Path, heard: list[bytes]) -> Iterator[str]:
    """A server whose certificate nobody but itself has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = directory / "pretender.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def serve() -> None:
        with suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as peer:
            heard.append(peer.recv(65_536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_not_admitted_charges_nothing(order: CardCharge, status: int) -> None:
    answer = http(status, {"error": {"type": "invalid_request_error", "message": "No."}})
    with (
        server_that_answers(answer) as url,
        cards_at_stripe(SECRET, base_url=url) as cards,
        pytest.raises(CardsUnavailable, match=f"{status} No"),
    ):
        cards.charge(order)


INTENT = {"id": "pi_1", "object": "payment_intent", "currency": "usd", "amount_received": 0}
STRANGE = {
    "redirect": b"HTTP/1.1 302 X\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "no JSON": b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n<>",
    "no UTF-8": b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n\xff\xfe",
    "nothing": http(200, None),
    "list": http(200, []),
    "no intent": http(200, {}),
    "error in words": http(400, {"error": "no"}),
    "error without members": http(400, {"error": None}),
    "error in a list": http(400, {"error": []}),
    "decline of nothing": http(402, {"error": {"payment_intent": {"id": "pi_1"}}}),
    "confirming": http(200, INTENT | {"status": "requires_confirmation"}),
    "capturing": http(200, INTENT | {"status": "requires_capture"}),
    "untried": http(200, INTENT | {"status": "requires_payment_method"}),
    "new status": http(200, INTENT | {"status": "thinking"}),
    "too much": http(
        200, INTENT | {"status": "succeeded", "currency": "isk", "amount_received": 5}
    ),
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
def test_a_strange_answer_leaves_the_outcome_unknown(order: CardCharge, answer: bytes) -> None:
    with (
        server_that_answers(answer) as url,
        cards_at_stripe(SECRET, base_url=url) as cards,
        pytest.raises(ChargeOutcomeUnknown),
    ):
        cards.charge(order)


@pytest.mark.parametrize("kind", ["no JSON", "nothing", "no intent", "error without members"])
def test_a_strange_answer_to_a_question_is_no_answer(order: CardCharge, kind: str) -> None:
    for ask in (CardGateway.look_up, CardGateway.retrieve, CardGateway.cancel):
        arguments: Any = [order] if ask is CardGateway.look_up else ["pi_1", DEPLOYMENT]
        with (
            server_that_answers(STRANGE[kind]) as url,
            cards_at_stripe(SECRET, base_url=url) as cards,
            pytest.raises(CardsUnavailable),
        ):
            getattr(cards, ask.__name__)(*arguments)


def test_a_decline_of_no_payment_is_a_refusal(order: CardCharge) -> None:
    answer = http(402, {"error": {"code": "card_declined", "message": "No."}})
    with (
        server_that_answers(answer) as url,
        cards_at_stripe(SECRET, base_url=url) as cards,
        pytest.raises(ChargeRefused, match="card_declined: stripe: 402 No"),
    ):
        cards.charge(order)


def test_a_charge_never_sent_is_not_found(cards: CardGateway, order: CardCharge) -> None:
    cards.charge(charge_of(Cardholder(order.customer, order.payment_method)))
    assert cards.look_up(order) is None


def test_a_charge_is_found_among_many(
    cards: CardGateway,
    control: StripeSandboxControl,
    holder: Cardholder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stripe_cards, "PAGE", 2)
    orders = [charge_of(holder) for _ in range(5)]
    reports = [cards.charge(order) for order in orders]
    assert [cards.look_up(order) for order in orders] == reports
    listings = control.requests(method="GET", path=INTENTS)
    assert listings[-1].parameters["limit"] == "2"
    assert "starting_after" in listings[-1].parameters


def test_a_charge_is_found_also_when_its_customer_was_deleted(
    cards: CardGateway,
    control: StripeSandboxControl,
    order: CardCharge,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stripe_cards, "PAGE", 2)
    control.add_fault("lost_answer", path=INTENTS, times=3)
    with pytest.raises(ChargeOutcomeUnknown):
        cards.charge(order)
    for _ in range(3):
        cards.charge(charge_of(make_cardholder(control.url)))
    control.delete_customer(order.customer)
    found = cards.look_up(order)
    assert found is not None
    assert (found.status, found.metadata) == (CardStatus.SUCCEEDED, order.metadata)
    late = order.sent_since + timedelta(hours=2)
    assert cards.look_up(replace(order, sent_since=late)) is None
    listings = control.requests(method="GET", path=INTENTS)
    assert {entry.parameters.get("created[gte]") for entry in listings[-2:]} == {
        str(int((late - stripe_cards.LOOK_BACK).timestamp()))
    }


def test_in_an_account_that_never_had_the_customer_nothing_can_be_told(
    cards: CardGateway, order: CardCharge
) -> None:
    with pytest.raises(CardsUnavailable, match="404 No such customer"):
        cards.look_up(replace(order, customer="cus_of_another_account"))


def test_a_charge_of_a_deleted_customer_that_never_arrived_is_not_found(
    cards: CardGateway, control: StripeSandboxControl, order: CardCharge
) -> None:
    control.delete_customer(order.customer)
    assert cards.look_up(order) is None
    with pytest.raises(ChargeRefused) as refused:
        cards.charge(order)
    assert refused.value.code == "resource_missing"


def test_a_charge_is_looked_for_from_an_hour_before_it_was_sent(
    cards: CardGateway, order: CardCharge
) -> None:
    report = cards.charge(order)
    late = order.sent_since + timedelta(minutes=59)
    assert cards.look_up(replace(order, sent_since=late)) == report
    assert cards.look_up(replace(order, sent_since=late + timedelta(minutes=2))) is None


def test_of_two_payments_for_one_attempt_the_paid_one_is_found(
    cards: CardGateway, sandbox: StripeSandbox, order: CardCharge
) -> None:
    broke = client_of(sandbox.url).v1.payment_methods.attach(
        "pm_card_chargeDeclinedInsufficientFunds", {"customer": order.customer}
    )
    paid = cards.charge(order)
    declined = cards.charge(replace(order, payment_method=broke.id, idempotency_key="another"))
    assert declined.status is CardStatus.DECLINED
    assert cards.look_up(order) == paid


@pytest.mark.parametrize("kind", ["server_error", "rate_limit", "reset"])
def test_a_question_that_fails_can_be_asked_again(
    cards: CardGateway, control: StripeSandboxControl, order: CardCharge, kind: FaultKind
) -> None:
    report = cards.charge(order)
    for ask, *arguments in (
        (CardGateway.look_up, order),
        (CardGateway.retrieve, report.payment_intent, DEPLOYMENT),
        (CardGateway.cancel, report.payment_intent, DEPLOYMENT),
    ):
        control.add_fault(kind, method=None, path=f"{INTENTS}*", times=None)
        with pytest.raises(CardsUnavailable):
            getattr(cards, ask.__name__)(*arguments)
        control.clear_faults()
        assert getattr(cards, ask.__name__)(*arguments) == report


def test_a_payment_that_is_not_there_is_none(cards: CardGateway) -> None:
    assert cards.retrieve("pi_nothing", DEPLOYMENT) is None


def test_a_payment_that_is_not_there_is_surely_not_cancelled(cards: CardGateway) -> None:
    with pytest.raises(ChargeRefused, match="404 No such payment_intent") as refused:
        cards.cancel("pi_nothing", DEPLOYMENT)
    assert refused.value.code == "resource_missing"


def _waiting_for_its_holder(sandbox: StripeSandbox) -> str:
    holder = make_cardholder(sandbox.url, payment_method="pm_card_authenticationRequired")
    intent = client_of(sandbox.url).v1.payment_intents.create(
        {
            "amount": 12_34,
            "currency": "usd",
            "customer": holder.customer,
            "payment_method": holder.payment_method,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "confirm": True,
        }
    )
    return intent.id


@pytest.mark.parametrize(
    ("payment_method", "after"),
    [
        ("pm_card_visa", CardStatus.SUCCEEDED),
        ("pm_card_chargeDeclined", CardStatus.CANCELED),
        ("pm_card_authenticationRequired", CardStatus.CANCELED),
        ("pm_usBankAccount_success", CardStatus.PROCESSING),
        ("pm_usBankAccount_processing", CardStatus.CANCELED),
    ],
)
def test_cancelling_says_how_the_payment_stands_after(
    cards: CardGateway,
    sandbox: StripeSandbox,
    payment_method: str,
    after: CardStatus,
) -> None:
    order = charge_of(make_cardholder(sandbox.url, payment_method=payment_method))
    payment = cards.charge(order).payment_intent
    report = cards.cancel(payment, DEPLOYMENT)
    assert (report.payment_intent, report.status) == (payment, after)
    assert (report.decline_code, report.message) == (None, None)
    assert cards.cancel(payment, DEPLOYMENT) == report


def test_a_payment_that_waits_for_its_holder_can_be_cancelled(
    cards: CardGateway, sandbox: StripeSandbox
) -> None:
    assert cards.cancel(_waiting_for_its_holder(sandbox), DEPLOYMENT).status is CardStatus.CANCELED


def test_a_cancelling_whose_answer_is_lost_is_done_once(
    cards: CardGateway, sandbox: StripeSandbox, control: StripeSandboxControl
) -> None:
    payment = _waiting_for_its_holder(sandbox)
    control.add_fault("lost_answer", path=f"{INTENTS}/*")
    assert cards.cancel(payment, DEPLOYMENT).status is CardStatus.CANCELED


def test_many_threads_charge_at_once_and_each_learns_of_its_own(
    sandbox: StripeSandbox, charges_of: ChargesOf, holder: Cardholder
) -> None:
    orders = [charge_of(holder, amount=amount) for amount in range(100, 140)]
    with (
        cards_at_stripe(SECRET, base_url=sandbox.url, connections=3) as cards,
        ThreadPoolExecutor(8) as threads,
    ):
        reports = list(threads.map(cards.charge, orders))
        pool = cards._api._connections._pool.connection_from_url(sandbox.url)
        assert isinstance(pool, urllib3.HTTPConnectionPool)
        assert pool.num_connections <= 3
    assert [report.amount_received for report in reports] == list(range(100, 140))
    assert [report.metadata for report in reports] == [order.metadata for order in orders]
    assert len(charges_of(orders[0])) == len(orders)


def test_many_threads_with_one_key_charge_once(
    cards: CardGateway, control: StripeSandboxControl, charges_of: ChargesOf, order: CardCharge
) -> None:
    control.add_fault("delay", path=INTENTS, seconds=0.2)

    def charged(_: int) -> CardReport | None:
        try:
            return cards.charge(order)
        except CardsUnavailable:
            return None

    with ThreadPoolExecutor(8) as threads:
        reports = list(threads.map(charged, range(8)))
    assert cards.charge(order) in reports
    assert len(set(map(str, filter(None, reports)))) == 1
    assert len(charges_of(order)) == 1


def test_one_thread_s_doubt_is_not_another_s(
    cards: CardGateway, control: StripeSandboxControl, holder: Cardholder
) -> None:
    lost, limited = charge_of(holder), charge_of(holder)
    key = "metadata[attempt]"
    control.add_fault("reset", times=None, parameters={key: lost.metadata["attempt"]})
    control.add_fault("rate_limit", times=None, parameters={key: limited.metadata["attempt"]})

    def fails_with(order: CardCharge) -> type[BaseException]:
        with pytest.raises((CardsUnavailable, ChargeOutcomeUnknown)) as failure:
            cards.charge(order)
        return failure.type

    with ThreadPoolExecutor(4) as threads:
        kinds = list(threads.map(fails_with, [lost, limited] * 10))
    assert kinds == [ChargeOutcomeUnknown, TooManyRequests] * 10


def test_a_restarted_server_is_reached_again_without_a_failure(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with StripeSandbox(tmp_path_factory.mktemp("stripe")) as sandbox:
        holder = make_cardholder(sandbox.url)
        with cards_at_stripe(SECRET, base_url=sandbox.url) as cards:
            cards.charge(charge_of(holder))
            sandbox.kill()
            with pytest.raises(CardsUnavailable, match="not reached"):
                cards.charge(charge_of(holder))
            sandbox.start()
            assert cards.charge(charge_of(holder)).status is CardStatus.SUCCEEDED


def test_the_secret_is_in_nothing_that_people_see(
    cards: CardGateway,
    control: StripeSandboxControl,
    order: CardCharge,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = [repr(cards)]
    faults: tuple[FaultKind, ...] = ("reset", "rate_limit", "server_error", "conflict")
    for fault in faults:
        control.add_fault(fault, path=INTENTS, times=3)
        with pytest.raises((CardsUnavailable, ChargeOutcomeUnknown)) as failure:
            cards.charge(order)
        shown.append(str(failure.getrepr(showlocals=False, chain=True)))
        control.clear_faults()
    cards.charge(order)
    assert caplog.text
    assert all("unguessable" not in text for text in [*shown, caplog.text])


@pytest.mark.parametrize("secret", ["", " ", "sk_test_x\n", "sk_test_\u00e9"])
def test_what_cannot_be_a_key_is_told_at_once_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="secret key") as refusal:
        StripeApi(secret)
    assert "sk_test_" not in str(refusal.value)


def test_without_an_address_it_is_stripe_s_own() -> None:
    with StripeApi(SECRET) as api:
        assert api.v1._requestor.base_addresses["api"] == "https://api.stripe.com"


def test_the_requests_agree_with_stripe_s_description(
    cards: CardGateway, control: StripeSandboxControl, order: CardCharge
) -> None:
    path = SPECS / "stripe-requests.openapi.json"
    if not path.exists():
        pytest.skip(ABSENT)
    described = json.loads(path.read_text())["paths"]
    before = len(control.requests())
    report = cards.charge(order)
    cards.look_up(order)
    cards.retrieve(report.payment_intent, DEPLOYMENT)
    cards.cancel(report.payment_intent, DEPLOYMENT)
    sent = {}
    for request in control.requests()[before:]:
        place = request.path.replace(report.payment_intent, "{intent}")
        operation = (request.method, place)
        values = check(nested(request.parameters.items()), OPERATIONS[operation])
        jsonschema_rs.validate(request_schema(described[place][request.method.lower()]), values)
        sent[operation] = values
    assert set(sent) == {
        ("POST", INTENTS),
        ("GET", INTENTS),
        ("GET", f"{INTENTS}/{{intent}}"),
        ("POST", f"{INTENTS}/{{intent}}/cancel"),
    }
    assert sent["POST", INTENTS]["confirm"] is True


def request_schema(operation: Mapping[str, Any]) -> JsonObject:
    """Of the form's values, or of the query's."""
    content = operation["requestBody"]["content"]["application/x-www-form-urlencoded"]
    schema: JsonObject = content["schema"]
    query = {
        parameter["name"]: parameter["schema"]
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query"
    }
    return schema | {"properties": schema.get("properties", {}) | query}
