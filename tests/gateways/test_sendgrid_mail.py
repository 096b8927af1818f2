import secrets
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from billing.errors import TransientFailure
from gateways.mail import (
    Accepted,
    Attachment,
    Mail,
    Mailbox,
    MailGateway,
    OutcomeUnknown,
    Refused,
)
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.sendgrid.faults import Fault, FaultKind
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
from gateways.sendgrid_mail import SendGridMail


@pytest.fixture
def gateway(sendgrid: SendGridSandbox) -> Iterator[MailGateway]:
    with SendGridMail("SG.test.key", host=sendgrid.url, read_seconds=0.5) as gateway:
        yield gateway


@pytest.fixture
def mail() -> Mail:
    return Mail(
        sender=Mailbox("billing@bluebird.example", "Bluebird, Inc."),
        to=(Mailbox("ap@maple.example", "Maple & Oak"),),
        subject="Invoice Ready For Payment",
        text="You owe $5.",
        html="<p>You owe $5.</p>",
        custom_args={"mail": secrets.token_hex(8)},
        category="invoice_ready",
    )


@contextmanager
def server_that_answers(answer: bytes) -> Iterator[str]:
    """A server that reads one request's beginning and answers these bytes."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_an_accepted_mail_has_its_message_id(
    gateway: MailGateway, sendgrid_control: SendGridControl, mail: Mail
) -> None:
    outcome = gateway.send(mail)
    (sent,) = sendgrid_control.mails(**mail.custom_args)
    assert outcome == Accepted(sent.message_id)


def test_everything_of_a_mail_arrives(
    gateway: MailGateway, sendgrid_control: SendGridControl, mail: Mail
) -> None:
    gateway.send(
        replace(
            mail,
            cc=(Mailbox("copy@maple.example"),),
            reply_to=Mailbox("answers@bluebird.example"),
            attachments=(
                Attachment("INV-1.pdf", "application/pdf", b"%PDF-1.7\x00"),
                Attachment("INV-2.pdf", "application/pdf", b"%PDF-1.7\x01"),
            ),
        )
    )
    (sent,) = sendgrid_control.mails(**mail.custom_args)
    assert sent.recipients == ["ap@maple.example", "copy@maple.example"]
    assert (sent.folder / "INV-1.pdf").read_bytes() == b"%PDF-1.7\x00"
    assert sent.eml.index(b"INV-1.pdf") < sent.eml.index(b"INV-2.pdf")
    for line in (
        'From: "Bluebird, Inc." <billing@bluebird.example>',
        "Reply-To: answers@bluebird.example",
        "X-Category: invoice_ready",
        "You owe $5.",
        "<p>You owe $5.</p>",
    ):
        assert line in sent.eml.decode()


def test_who_is_named_twice_gets_it_once(
    gateway: MailGateway, sendgrid_control: SendGridControl, mail: Mail
) -> None:
    copies = (Mailbox("AP@maple.example"), Mailbox("copy@maple.example"))
    assert isinstance(gateway.send(replace(mail, cc=copies)), Accepted)
    (sent,) = sendgrid_control.mails(**mail.custom_args)
    assert sent.recipients == ["ap@maple.example", "copy@maple.example"]


def test_a_mail_that_is_wrong_is_refused_with_the_reason(gateway: MailGateway, mail: Mail) -> None:
    outcome = gateway.send(replace(mail, to=(Mailbox("nobody"),)))
    assert outcome == Refused(
        "400 personalizations.0.to.0.email: Does not contain a valid address."
    )


def test_an_address_is_taken_as_it_is_and_never_as_a_name_with_another(
    gateway: MailGateway, mail: Mail
) -> None:
    sly = Mailbox("Ap <someone@else.example>")
    assert isinstance(gateway.send(replace(mail, to=(sly,))), Refused)
    assert gateway.send(replace(mail, cc=(Mailbox(""),))) == Refused("an email address is missing")


def test_a_mail_that_is_too_large_is_refused(gateway: MailGateway, mail: Mail) -> None:
    large = Attachment("large.pdf", "application/pdf", bytes(23_000_000))
    assert gateway.send(replace(mail, attachments=(large,))) == Refused("413 content too large")


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_a_mail_not_taken_now_may_be_sent_again(
    gateway: MailGateway, sendgrid_control: SendGridControl, mail: Mail, status: int
) -> None:
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS, status=status))
    with pytest.raises(TransientFailure, match=str(status)):
        gateway.send(mail)
    assert isinstance(gateway.send(mail), Accepted)
    assert len(sendgrid_control.mails(**mail.custom_args)) == 1


@pytest.mark.parametrize("status", [408, 500, 502, 504])
def test_an_error_that_may_come_after_the_mail_was_taken_leaves_the_outcome_unknown(
    gateway: MailGateway, sendgrid_control: SendGridControl, mail: Mail, status: int
) -> None:
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS, status=status))
    with pytest.raises(OutcomeUnknown, match=str(status)):
        gateway.send(mail)


def test_a_server_that_is_not_there_is_a_transient_failure(mail: Mail) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        SendGridMail("SG.x", host=f"http://127.0.0.1:{port}") as gateway,
        pytest.raises(TransientFailure, match="not reached"),
    ):
        gateway.send(mail)
    with (
        SendGridMail("SG.x", host="http://nowhere.invalid") as gateway,
        pytest.raises(TransientFailure, match="not reached"),
    ):
        gateway.send(mail)


def test_a_server_that_takes_no_connection_is_a_transient_failure(mail: Mail) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
            with (
                SendGridMail("SG.x", host=url, connect_seconds=0.1) as gateway,
                pytest.raises(TransientFailure, match="not reached"),
            ):
                gateway.send(mail)


@pytest.mark.parametrize(
    ("fault", "accepted"),
    [
        (Fault(kind=FaultKind.LOST_REPLY), 1),
        (Fault(kind=FaultKind.LATE_REPLY, seconds=2.0), 1),
        (Fault(kind=FaultKind.HANG), 0),
        (Fault(kind=FaultKind.RESET), 0),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else None,
)
def test_without_an_answer_the_outcome_is_unknown(
    gateway: MailGateway,
    sendgrid_control: SendGridControl,
    mail: Mail,
    fault: Fault,
    accepted: int,
) -> None:
    sendgrid_control.fail(fault)
    with pytest.raises(OutcomeUnknown, match="no answer") as unknown:
        gateway.send(mail)
    assert not isinstance(unknown.value, TransientFailure)
    assert len(sendgrid_control.mails(**mail.custom_args)) == accepted
    assert sendgrid_control.requests()[-1].fault == fault.kind


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 202 Acc",
        b"what?\r\n\r\n",
    ],
)
def test_an_answer_that_is_not_sendgrid_s_leaves_the_outcome_unknown(
    mail: Mail, answer: bytes
) -> None:
    with (
        server_that_answers(answer) as url,
        SendGridMail("SG.x", host=url) as gateway,
        pytest.raises(OutcomeUnknown),
    ):
        gateway.send(mail)


def test_a_server_that_cannot_be_trusted_never_sees_the_mail(mail: Mail) -> None:
    with (
        server_that_answers(b"no TLS here\r\n") as url,
        SendGridMail("SG.x", host=url.replace("http:", "https:")) as gateway,
        pytest.raises((OutcomeUnknown, TransientFailure)),
    ):
        gateway.send(mail)


def test_connections_are_used_again_and_are_no_more_than_allowed(
    sendgrid: SendGridSandbox, sendgrid_control: SendGridControl, mail: Mail
) -> None:
    before = len(sendgrid_control.requests())
    with (
        SendGridMail("SG.x", host=sendgrid.url, connections=3) as gateway,
        ThreadPoolExecutor(8) as threads,
    ):
        outcomes = list(threads.map(gateway.send, [mail] * 40))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    used = {request.connection for request in sendgrid_control.requests()[before:]}
    assert len(used) <= 3


def test_a_restarted_server_is_reached_again_without_a_failure(
    mail: Mail, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("sendgrid")
    with (
        SendGridSandbox(directory) as sandbox,
        SendGridMail("SG.x", host=sandbox.url) as gateway,
    ):
        assert isinstance(gateway.send(mail), Accepted)
        sandbox.kill()
        with pytest.raises(TransientFailure):
            gateway.send(mail)
        sandbox.start()
        assert isinstance(gateway.send(mail), Accepted)
