import base64
import email
import email.policy
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pytest
import urllib3
from python_http_client.exceptions import (  # type: ignore[import-untyped]  # No types.
    BadRequestsError,
    UnauthorizedError,
)
from sendgrid import SendGridAPIClient  # type: ignore[import-untyped]  # No types.
from sendgrid.helpers import mail as sdk  # type: ignore[import-untyped]  # No types.

from gateways.sandbox.sendgrid.client import SendGridControl, SentMail
from gateways.sandbox.sendgrid.rules import MAX_BODY_BYTES
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox

Payload = dict[str, Any]
Post = Callable[..., urllib3.BaseHTTPResponse]

PDF = b"%PDF-1.7 \x00\xff not a page"


def sdk_client(sendgrid: SendGridSandbox, key: str = "SG.test.key") -> Any:  # noqa: ANN401 - untyped.
    client = SendGridAPIClient(key, host=sendgrid.url)
    client.client.timeout = 5
    return client


def sdk_mail(mark: str) -> Any:  # noqa: ANN401 - untyped.
    message = sdk.Mail(
        from_email=("billing@bluebird.example", "Bluebird, Inc."),
        to_emails=[("ap@maple.example", "Ölmühle")],
        subject="Rechnung für Oktober",
        plain_text_content="Zu zahlen: 5 €",
        html_content="<p>Zu zahlen: <b>5 €</b></p>",
    )
    message.add_custom_arg(sdk.CustomArg("mark", mark))
    message.add_category(sdk.Category("invoice_ready"))
    message.add_attachment(
        sdk.Attachment(base64.b64encode(PDF).decode(), "INV-1.pdf", "application/pdf", "attachment")
    )
    return message


def parsed(mail: SentMail) -> EmailMessage:
    return email.message_from_bytes(mail.eml, policy=email.policy.default)


def test_the_sdk_sends_a_mail_that_becomes_files_to_open(
    sendgrid: SendGridSandbox, sendgrid_control: SendGridControl
) -> None:
    answer = sdk_client(sendgrid).send(sdk_mail("files"))
    assert (answer.status_code, answer.body) == (202, b"")
    (mail,) = sendgrid_control.mails(mark="files")
    assert mail.message_id == answer.headers["X-Message-Id"]
    assert {path.name for path in mail.folder.iterdir()} == {"mail.eml", "mail.html", "INV-1.pdf"}
    assert (mail.folder / "INV-1.pdf").read_bytes() == PDF
    assert (mail.folder / "mail.html").read_text() == "<p>Zu zahlen: <b>5 €</b></p>"
    message = parsed(mail)
    assert message["From"] == '"Bluebird, Inc." <billing@bluebird.example>'
    assert message["To"] == "Ölmühle <ap@maple.example>"
    assert message["Subject"] == "Rechnung für Oktober"
    assert message["X-Category"] == "invoice_ready"
    plain = message.get_body(["plain"])
    assert plain is not None
    assert plain.get_content().strip() == "Zu zahlen: 5 €"
    (attachment,) = message.iter_attachments()
    assert attachment.get_filename() == "INV-1.pdf"
    assert attachment.get_content() == PDF


def test_the_sdk_sees_a_wrong_key_and_a_wrong_mail_as_its_own_errors(
    sendgrid: SendGridSandbox,
) -> None:
    with pytest.raises(UnauthorizedError):
        sdk_client(sendgrid, key="not a key").send(sdk_mail("wrong key"))
    nobody = sdk.Mail(from_email="a@bluebird.example", subject="x", plain_text_content="x")
    with pytest.raises(BadRequestsError) as refusal:
        sdk_client(sendgrid).send(nobody)
    assert refusal.value.to_dict["errors"][0]["field"] == "personalizations"


def test_without_a_key_nothing_is_looked_at(post: Post) -> None:
    answer = post(b"not json", key=None)
    assert answer.status == 401
    assert answer.json() == {
        "errors": [{"message": "authorization required", "field": None, "help": None}]
    }


def test_each_problem_is_named_with_its_field_and_where_to_read_on(
    post: Post, payload: Payload
) -> None:
    payload["personalizations"][0]["to"][0]["email"] = "nobody"
    del payload["subject"]
    answer = post(payload)
    assert answer.status == 400
    errors = answer.json()["errors"]
    assert [error["field"] for error in errors] == ["personalizations.0.to.0.email", "subject"]
    assert errors[0]["message"] == "Does not contain a valid address."
    assert errors[0]["help"].endswith("#message.personalizations.to.email")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_is_a_bad_request(post: Post, body: bytes) -> None:
    assert post(body).status == 400


def test_another_content_type_and_another_method_are_refused(
    sendgrid: SendGridSandbox, pool: urllib3.PoolManager, post: Post, payload: Payload
) -> None:
    assert post(payload, content_type="text/plain").status == 415
    assert pool.request("GET", f"{sendgrid.url}/v3/mail/send").status == 405
    assert pool.request("POST", f"{sendgrid.url}/v3/mail/sent").status == 404


def test_a_mail_too_large_is_refused_and_the_connection_lives(
    sendgrid_control: SendGridControl, post: Post, payload: Payload
) -> None:
    assert post(payload).status == 202
    too_large = {**payload, "content": [{"type": "text/plain", "value": "x" * MAX_BODY_BYTES}]}
    answer = post(too_large)
    assert answer.status == 413
    assert answer.json()["errors"][0]["message"] == "content too large"
    assert post(payload).status == 202
    *_, first, large, last = sendgrid_control.requests()
    assert large.bytes > MAX_BODY_BYTES
    assert first.connection == large.connection == last.connection


def test_in_sandbox_mode_a_mail_is_checked_and_not_sent(
    sendgrid_control: SendGridControl, post: Post, payload: Payload
) -> None:
    payload["mail_settings"] = {"sandbox_mode": {"enable": True}}
    answer = post(payload)
    assert (answer.status, answer.data) == (200, b"")
    assert "X-Message-Id" not in answer.headers
    assert sendgrid_control.mails(**payload["custom_args"]) == []
    del payload["subject"]
    assert post(payload).status == 400


def test_each_personalization_is_a_mail_with_arguments_of_its_own(
    sendgrid_control: SendGridControl, post: Post, payload: Payload
) -> None:
    payload["personalizations"] = [
        {
            "to": [{"email": "one@maple.example"}],
            "cc": [{"email": "copy@maple.example"}],
            "subject": "Invoice for -name-",
            "substitutions": {"-name-": "One"},
            "custom_args": {"client": "1"},
        },
        {"to": [{"email": "two@maple.example"}], "custom_args": {"client": "2"}},
    ]
    message_id = post(payload).headers["X-Message-Id"]
    first, second = sendgrid_control.mails(message_id=message_id)
    assert first.subject == "Invoice for One"
    assert first.recipients == ["one@maple.example", "copy@maple.example"]
    assert parsed(first)["Cc"] == "copy@maple.example"
    assert second.custom_args == {**payload["custom_args"], "client": "2"}
    assert sendgrid_control.mails(client="2", **payload["custom_args"]) == [second]
    assert sendgrid_control.mails(client="3", **payload["custom_args"]) == []


def test_a_file_name_never_leaves_its_folder(
    sendgrid_control: SendGridControl, post: Post, payload: Payload
) -> None:
    payload["subject"] = "../../etc/passwd"
    names = [
        "../../evil.sh",
        "/etc/passwd",
        ".hidden",
        "mail.eml",
        "",
        "\x00/..",
        "a" * 300 + ".pdf",
    ]
    payload["attachments"] = [
        {"content": base64.b64encode(b"x").decode(), "filename": name or "?", "type": "text/plain"}
        for name in names
    ]
    message_id = post(payload).headers["X-Message-Id"]
    (mail,) = sendgrid_control.mails(message_id=message_id)
    assert mail.folder.parent.name == "mails"
    files = {path.name for path in mail.folder.iterdir()}
    assert files == {
        "mail.eml",
        "mail.html",
        "evil.sh",
        "etc-passwd",
        "hidden",
        "4-mail.eml",
        "attachment",
        "6-attachment",
        "a" * 76 + ".pdf",
    }
    assert parsed(mail)["Subject"] == "../../etc/passwd"
