import json
from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from sendgrid.helpers.eventwebhook import (  # type: ignore[import-untyped]  # No types.
    EventWebhook,
    EventWebhookHeader,
)

from gateways.sandbox.sendgrid.client import ControlRefused, SendGridControl, SentMail
from gateways.sandbox.sendgrid.events import EventKind
from tests.gateways.conftest import Listener, Posted
from tests.waiting import wait_for

Payload = dict[str, Any]
Post = Callable[..., urllib3.BaseHTTPResponse]


@pytest.fixture
def mail(sendgrid_control: SendGridControl, post: Post, payload: Payload) -> SentMail:
    post(payload)
    (mail,) = sendgrid_control.mails(**payload["custom_args"])
    return mail


def verified(posted: Posted, control: SendGridControl) -> bool:
    return bool(
        EventWebhook(control.public_key()).verify_signature(
            posted.body.decode(),
            posted.headers[EventWebhookHeader.SIGNATURE],
            posted.headers[EventWebhookHeader.TIMESTAMP],
        )
    )


@pytest.mark.parametrize("kind", list(EventKind))
def test_an_event_is_posted_with_a_signature_that_the_sdk_verifies(
    sendgrid_control: SendGridControl, listener: Listener, mail: SentMail, kind: EventKind
) -> None:
    sendgrid_control.set_webhook(listener.url)
    delivery = sendgrid_control.deliver(mail, kind)
    assert delivery.delivered
    (posted,) = listener.posted
    assert verified(posted, sendgrid_control)
    (event,) = json.loads(posted.body)
    assert event["event"] == kind
    assert event["email"] == "ap@maple.example"
    assert event["sg_message_id"].startswith(mail.message_id + ".")
    assert event["mail"] == mail.custom_args["mail"]


def test_every_recipient_has_an_event_of_their_own(
    sendgrid_control: SendGridControl, listener: Listener, post: Post, payload: Payload
) -> None:
    payload["personalizations"][0]["cc"] = [{"email": "copy@maple.example"}]
    post(payload)
    (mail,) = sendgrid_control.mails(**payload["custom_args"])
    sendgrid_control.set_webhook(listener.url)
    sendgrid_control.deliver(mail, EventKind.BOUNCE, reason="mailbox full")
    first, second = json.loads(listener.posted[0].body)
    assert [first["email"], second["email"]] == ["ap@maple.example", "copy@maple.example"]
    assert first["sg_event_id"] != second["sg_event_id"]
    assert first["reason"] == "mailbox full"


def test_duplicates_and_redeliveries_are_the_same_bytes_signed_anew(
    sendgrid_control: SendGridControl, listener: Listener, mail: SentMail
) -> None:
    sendgrid_control.set_webhook(listener.url)
    delivery = sendgrid_control.deliver(mail, EventKind.DELIVERED, copies=2)
    again = sendgrid_control.redeliver(delivery)
    assert again.attempts == 3
    assert len({posted.body for posted in listener.posted}) == 1
    assert len(listener.posted) == 3
    signatures = {posted.headers[EventWebhookHeader.SIGNATURE] for posted in listener.posted}
    assert len(signatures) == 3


def test_a_forged_or_an_old_signature_can_be_asked_for(
    sendgrid_control: SendGridControl, listener: Listener, mail: SentMail
) -> None:
    sendgrid_control.set_webhook(listener.url)
    sendgrid_control.deliver(mail, EventKind.OPEN, forged=True)
    sendgrid_control.deliver(mail, EventKind.OPEN, age_seconds=90_000)
    forged, old = listener.posted
    assert not verified(forged, sendgrid_control)
    assert verified(old, sendgrid_control)
    newer = int(forged.headers[EventWebhookHeader.TIMESTAMP])
    assert newer - int(old.headers[EventWebhookHeader.TIMESTAMP]) >= 89_999


def test_what_the_receiver_answered_is_reported(
    sendgrid_control: SendGridControl, listener: Listener, mail: SentMail
) -> None:
    listener.statuses = [500]
    sendgrid_control.set_webhook(listener.url)
    refused = sendgrid_control.deliver(mail, EventKind.PROCESSED)
    assert (refused.status, refused.delivered, refused.next_at) == (500, False, None)
    sendgrid_control.set_webhook("http://127.0.0.1:9/nobody")
    unheard = sendgrid_control.redeliver(refused)
    assert unheard.status is None
    assert "NewConnectionError" in (unheard.error or "")


def test_automatic_events_are_repeated_until_they_are_taken(
    sendgrid_control: SendGridControl, listener: Listener, post: Post, payload: Payload
) -> None:
    listener.statuses = [503]
    sendgrid_control.set_webhook(
        listener.url, automatic=[EventKind.PROCESSED, EventKind.DELIVERED], retry_seconds=0.05
    )
    message_id = post(payload).headers["X-Message-Id"]
    wait_for(lambda: len(listener.posted) == 3)
    kinds = [json.loads(posted.body)[0]["event"] for posted in listener.posted]
    assert sorted(kinds) == ["delivered", "processed", "processed"]
    wait_for(
        lambda: (
            [
                delivery.delivered
                for delivery in sendgrid_control.deliveries()
                if delivery.events[0]["sg_message_id"].startswith(message_id)
            ]
            == [True, True]
        )
    )
    sendgrid_control.set_webhook(listener.url)


def test_events_of_an_unknown_kind_or_mail_are_refused(
    sendgrid_control: SendGridControl,
) -> None:
    with pytest.raises(ControlRefused, match="'kind'"):
        sendgrid_control._call("POST", "/events", {})
    with pytest.raises(ControlRefused, match="no mail 0"):
        sendgrid_control._call(
            "POST", "/events", {"kind": "open", "mail": 0, "at": 0, "reason": None}
        )
    with pytest.raises(ControlRefused, match="404"):
        sendgrid_control._call("POST", "/deliveries/x/again")
