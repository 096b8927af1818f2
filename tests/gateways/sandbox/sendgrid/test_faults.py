from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
import urllib3

from gateways.sandbox.sendgrid.client import ControlRefused, SendGridControl
from gateways.sandbox.sendgrid.faults import Fault, FaultKind

Payload = dict[str, Any]
Post = Callable[..., urllib3.BaseHTTPResponse]


def test_a_lost_reply_leaves_the_mail_accepted(
    sendgrid_control: SendGridControl, post: Post, payload: Payload
) -> None:
    sendgrid_control.fail(Fault(kind=FaultKind.LOST_REPLY))
    with pytest.raises(urllib3.exceptions.ProtocolError):
        post(payload)
    (mail,) = sendgrid_control.mails(**payload["custom_args"])
    request = sendgrid_control.requests()[-1]
    assert (request.status, request.fault) == (None, "lost_reply")
    assert request.message_id == mail.message_id
    assert mail.eml


def test_a_late_reply_leaves_the_mail_accepted_from_the_start(
    sendgrid_control: SendGridControl, post: Post, payload: Payload
) -> None:
    sendgrid_control.fail(Fault(kind=FaultKind.LATE_REPLY, seconds=0.3))
    started = monotonic()
    assert post(payload).status == 202
    assert monotonic() - started >= 0.3


@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.HANG])
def test_a_reset_or_a_hanging_send_accepts_nothing(
    sendgrid_control: SendGridControl, post: Post, payload: Payload, kind: FaultKind
) -> None:
    sendgrid_control.fail(Fault(kind=kind, seconds=0.1))
    with pytest.raises(urllib3.exceptions.ProtocolError) as error:
        post(payload)
    assert ("reset by peer" in str(error.value)) == (kind is FaultKind.RESET)
    assert sendgrid_control.mails(**payload["custom_args"]) == []
    assert sendgrid_control.requests()[-1].fault == kind


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_an_error_status_accepts_nothing(
    sendgrid_control: SendGridControl, post: Post, payload: Payload, status: int
) -> None:
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS, status=status))
    answer = post(payload)
    assert answer.status == status
    assert answer.json()["errors"][0]["message"]
    assert ("X-RateLimit-Reset" in answer.headers) == (status == 429)
    assert sendgrid_control.mails(**payload["custom_args"]) == []


def test_faults_wait_in_line_and_are_used_up(
    sendgrid_control: SendGridControl, post: Post, payload: Payload
) -> None:
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS, status=500, times=2))
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS, status=429))
    assert sendgrid_control.faults_in_line() == 3
    assert [post(payload).status for _ in range(4)] == [500, 500, 429, 202]
    assert sendgrid_control.faults_in_line() == 0


def test_a_send_without_a_key_uses_up_no_fault(
    sendgrid_control: SendGridControl, post: Post, payload: Payload
) -> None:
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS))
    assert post(payload, key=None).status == 401
    assert sendgrid_control.faults_in_line() == 1


@pytest.mark.parametrize(
    "fault",
    [{}, {"kind": "flood"}, {"kind": "hang", "times": 0}, {"kind": "status", "status": 200}, []],
)
def test_a_fault_that_makes_no_sense_is_refused(
    sendgrid_control: SendGridControl, fault: object
) -> None:
    with pytest.raises(ControlRefused):
        sendgrid_control._call("POST", "/faults", fault)
