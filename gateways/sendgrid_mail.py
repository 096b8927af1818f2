"""SendGrid, behind the MailGateway protocol."""

import base64
import json
import ssl
from types import TracebackType
from typing import Any, Self

import urllib3
from sendgrid.helpers import (  # type: ignore[import-untyped]  # The SDK has no types.
    mail as sdk,
)

from billing.errors import TransientFailure
from gateways.mail import Accepted, Attachment, Mail, Mailbox, OutcomeUnknown, Refused

HOST = "https://api.sendgrid.com"
CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
CONNECTIONS = 32

# The mail is at fault, and will be the next time.
_REFUSALS = frozenset({400, 413})
# A key that was revoked, a sender not verified yet, a wrong address, too much at once, nobody there
# to take it: the mail was not taken, and is as soon as that is put right. Other errors (500, 502,
# 504) may come after it was.
_NOT_TAKEN = frozenset({401, 403, 404, 405, 415, 429, 503})


class SendGridMail:
    """Sends through SendGrid's v3 API, with payloads from its SDK over connections that are kept.

    The SDK's own client opens a connection and loads all certificates for each mail, and has no
    timeout unless told.

    Args:
        api_key: Starts with "SG.".
        host: Where SendGrid is; the EU has its own, and so has a sandbox.
        connect_seconds: How long reaching it may take.
        read_seconds: How long it may take to answer. The two together stay below the time that a
            job may run.
        connections: How many mails may be sent at a time; more threads wait for each other.
    """

    def __init__(
        self,
        api_key: str,
        *,
        host: str = HOST,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        connections: int = CONNECTIONS,
    ) -> None:
        self._url = f"{host.rstrip('/')}/v3/mail/send"
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Content-Type": "application/json",
        }
        # No retries: whether one would be safe is decided here, failure by failure.
        self._pool = urllib3.PoolManager(
            retries=False,
            timeout=urllib3.Timeout(connect=connect_seconds, read=read_seconds),
            maxsize=connections,
            block=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def send(self, mail: Mail) -> Accepted | Refused:
        """Hand over one mail; see ``MailGateway``."""
        if not all(mailbox.email for mailbox in (mail.sender, *mail.to, *mail.cc)):
            return Refused("an email address is missing")
        body = json.dumps(_payload(mail)).encode()
        try:
            response = self._pool.request("POST", self._url, body=body, headers=self._headers)
        except (
            urllib3.exceptions.NewConnectionError,
            urllib3.exceptions.ConnectTimeoutError,
        ) as error:
            raise TransientFailure(f"sendgrid: not reached: {error}") from error
        except urllib3.exceptions.SSLError as error:
            if isinstance(error.args[0], ssl.SSLCertVerificationError):
                raise TransientFailure(f"sendgrid: not trusted: {error}") from error
            raise OutcomeUnknown(f"sendgrid: no answer: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            raise OutcomeUnknown(f"sendgrid: no answer: {error}") from error
        return _outcome(response)


def _outcome(response: urllib3.BaseHTTPResponse) -> Accepted | Refused:
    message_id = response.headers.get("X-Message-Id")
    if response.status == 202 and message_id:
        return Accepted(message_id)
    answer = f"{response.status} {_reason(response)}".strip()
    if response.status in _REFUSALS:
        return Refused(answer)
    if response.status in _NOT_TAKEN:
        raise TransientFailure(f"sendgrid: {answer}")
    raise OutcomeUnknown(f"sendgrid: unexpected answer: {answer}")


def _reason(response: urllib3.BaseHTTPResponse) -> str:
    """What SendGrid says is wrong, in one line; the answer's beginning when it says it oddly."""
    try:
        return "; ".join(
            f"{error['field']}: {error['message']}" if error.get("field") else error["message"]
            for error in response.json()["errors"]
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return " ".join(response.data[:200].decode(errors="replace").split())


def _payload(mail: Mail) -> Any:  # noqa: ANN401 - JSON, as the untyped SDK writes it.
    message = sdk.Mail(from_email=_mailbox(sdk.From, mail.sender), subject=mail.subject)
    envelope = sdk.Personalization()
    seen = set()
    # SendGrid refuses a mail that names anyone twice.
    for kind, mailboxes in ((sdk.To, mail.to), (sdk.Cc, mail.cc)):
        for mailbox in mailboxes:
            if mailbox.email.lower() not in seen:
                envelope.add_email(_mailbox(kind, mailbox))
                seen.add(mailbox.email.lower())
    message.add_personalization(envelope)
    if mail.reply_to is not None:
        message.reply_to = _mailbox(sdk.ReplyTo, mail.reply_to)
    message.add_content(sdk.Content("text/plain", mail.text))
    if mail.html is not None:
        message.add_content(sdk.Content("text/html", mail.html))
    # The SDK puts each before those it has.
    for attachment in reversed(mail.attachments):
        message.add_attachment(_attachment(attachment))
    for name, value in mail.custom_args.items():
        message.add_custom_arg(sdk.CustomArg(name, value))
    if mail.category is not None:
        message.add_category(sdk.Category(mail.category))
    # Links to pay stay our own: a tracker between us and the client would see the secret in them.
    message.tracking_settings = sdk.TrackingSettings(
        click_tracking=sdk.ClickTracking(enable=False, enable_text=False)
    )
    return message.get()


def _mailbox(kind: Any, mailbox: Mailbox) -> Any:  # noqa: ANN401 - the SDK's untyped classes.
    # Not as arguments: out of an address without a name the SDK would read another one.
    entry = kind()
    entry.email = mailbox.email
    entry.name = mailbox.name or None
    return entry


def _attachment(attachment: Attachment) -> Any:  # noqa: ANN401 - the SDK's untyped class.
    return sdk.Attachment(
        file_content=base64.b64encode(attachment.content).decode(),
        file_name=attachment.filename,
        file_type=attachment.content_type,
        disposition="attachment",
    )
