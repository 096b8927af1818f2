import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateways.mail import Accepted, Mail, Mailbox
from gateways.sandbox.sendgrid.client import SendGridControl, SentMail
from gateways.sandbox.sendgrid.events import EventKind
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
from gateways.sandbox.sendgrid.signing import SigningKey
from gateways.sendgrid_events import SendGridEvents
from gateways.sendgrid_mail import SendGridMail
from gateways.webhooks import MalformedEvents, UntrustedEvents
from tests.gateways.conftest import Listener

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BODY = json.dumps(
    [
        {
            "email": "ap@maple.example",
            "timestamp": 1_795_000_000,
            "event": "delivered",
            "sg_event_id": "e1",
            "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0",
            "response": "250 OK",
            "category": ["invoice_ready"],
            "mail": "7",
        }
    ]
).encode()


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey(tmp_path / "key.pem")


@pytest.fixture
def events(key: SigningKey) -> SendGridEvents:
    return SendGridEvents(key.public_key)


def signed(key: SigningKey, body: bytes, at: datetime = NOW) -> Mapping[str, str]:
    return key.headers(body, timestamp=int(at.timestamp()))


def test_events_of_a_mail_sent_through_the_gateway_lead_back_to_it(
    sendgrid: SendGridSandbox, sendgrid_control: SendGridControl, listener: Listener
) -> None:
    mark = secrets.token_hex(8)
    with SendGridMail("SG.x", host=sendgrid.url) as gateway:
        accepted = gateway.send(
            Mail(
                sender=Mailbox("billing@bluebird.example"),
                to=(Mailbox("ap@maple.example"),),
                subject="Invoice",
                text="x",
                custom_args={"mail": mark},
            )
        )
    sent: SentMail
    (sent,) = sendgrid_control.mails(mail=mark)
    sendgrid_control.set_webhook(listener.url)
    for kind in EventKind:
        sendgrid_control.deliver(sent, kind)
    reader = SendGridEvents(sendgrid_control.public_key())
    read = [
        event
        for posted in listener.posted
        for event in reader.read(posted.body, posted.headers, now=datetime.now(UTC))
    ]
    assert [event.kind for event in read] == list(EventKind)
    assert {event.message_id for event in read} == {sent.message_id}
    assert accepted == Accepted(sent.message_id)
    assert all(event.custom_args == {"mail": mark} for event in read)
    assert len({event.id for event in read}) == len(read)
    reasons = {event.kind: event.reason for event in read}
    assert "does not exist" in (reasons["bounce"] or "")
    assert reasons["processed"] is None


def test_an_event_is_read_with_its_parts(events: SendGridEvents, key: SigningKey) -> None:
    (event,) = events.read(BODY, signed(key, BODY), now=NOW)
    assert (event.id, event.kind, event.recipient) == ("e1", "delivered", "ap@maple.example")
    assert event.message_id == "14c5d75ce93.dfd.64b469"
    assert event.at == datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC)
    assert event.reason == "250 OK"
    assert event.custom_args == {"mail": "7"}


def test_headers_are_found_in_any_case(events: SendGridEvents, key: SigningKey) -> None:
    headers = {name.lower(): value for name, value in signed(key, BODY).items()}
    assert events.read(BODY, headers, now=NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"X-Twilio-Email-Event-Webhook-Signature": ""},
        {"X-Twilio-Email-Event-Webhook-Signature": "not base64"},
        {"X-Twilio-Email-Event-Webhook-Signature": "\u00e9\u00e9\u00e9\u00e9"},
        {"X-Twilio-Email-Event-Webhook-Signature": "MEUCIQ=="},
        {"X-Twilio-Email-Event-Webhook-Timestamp": ""},
        {"X-Twilio-Email-Event-Webhook-Timestamp": "1795348801"},
        {"X-Twilio-Email-Event-Webhook-Timestamp": "now"},
    ],
)
def test_a_changed_signature_or_time_is_not_trusted(
    events: SendGridEvents, key: SigningKey, change: Mapping[str, str]
) -> None:
    with pytest.raises(UntrustedEvents):
        events.read(BODY, {**signed(key, BODY), **change}, now=NOW)


def test_events_without_headers_another_body_or_another_key_are_not_trusted(
    events: SendGridEvents, key: SigningKey, tmp_path: Path
) -> None:
    with pytest.raises(UntrustedEvents):
        events.read(BODY, {}, now=NOW)
    for body in (BODY + b" ", b"", b"\xff"):
        with pytest.raises(UntrustedEvents):
            events.read(body, signed(key, BODY), now=NOW)
    with pytest.raises(UntrustedEvents):
        events.read(BODY, signed(SigningKey(tmp_path / "other.pem"), BODY), now=NOW)


@pytest.mark.parametrize(
    ("age", "trusted"),
    [
        (timedelta(0), True),
        (timedelta(hours=24), True),
        (timedelta(hours=26), False),
        (timedelta(minutes=-4), True),
        (timedelta(minutes=-6), False),
    ],
)
def test_a_signature_is_trusted_for_a_day_and_hardly_ahead_of_time(
    events: SendGridEvents, key: SigningKey, age: timedelta, *, trusted: bool
) -> None:
    headers = signed(key, BODY, NOW - age)
    if trusted:
        assert events.read(BODY, headers, now=NOW)
    else:
        with pytest.raises(UntrustedEvents, match="ago"):
            events.read(BODY, headers, now=NOW)


@pytest.mark.parametrize("body", [b"x", b"5", b"[5]", b"{}x", b'[{"event": "open"}]', b"[[]]"])
def test_a_signed_body_that_is_no_list_of_events_is_malformed(
    events: SendGridEvents, key: SigningKey, body: bytes
) -> None:
    with pytest.raises(MalformedEvents):
        events.read(body, signed(key, body), now=NOW)


def test_a_key_that_is_none_is_refused_at_once() -> None:
    foreign = rsa.generate_private_key(public_exponent=65_537, key_size=2_048).public_key()
    pem = foreign.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for wrong in ("MFkw", "".join(pem.splitlines()[1:-1])):
        with pytest.raises(ValueError):  # noqa: PT011 - in the words of whoever read it.
            SendGridEvents(wrong)
