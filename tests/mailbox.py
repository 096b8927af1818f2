"""Mails sent through the local SendGrid: what their tests need made, moved on and read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from io import BytesIO
from typing import Any
from uuid import UUID

from pypdf import PdfReader
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from gateways.documents import DocumentRenderer
from gateways.mail import Accepted, MailGateway, Refused
from gateways.mail import Mail as Letter
from gateways.sandbox.sendgrid.client import SendGridControl
from models import Account, Client, Mail
from tasks.calls import Gateways
from tests.worlds import NOW, a_charge, a_client, change, tick, work

MAY_1 = datetime(2026, 5, 1, tzinfo=UTC)
MAY_5 = date(2026, 5, 5)
HALF_AN_HOUR = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Read:
    """A mail as its recipient's program shows it; ``attached`` maps names to PDFs."""

    sender: str
    recipient: str
    subject: str
    text: str
    html: str
    attached: Mapping[str, bytes]

    def says(self, *words: str) -> bool:
        """Whether its text has all of these, wherever its lines break."""
        said = " ".join(self.text.split())
        return all(one in said for one in words)


def inbox(control: SendGridControl) -> list[Read]:
    """All that SendGrid took, oldest first."""
    return [_read(mail.eml) for mail in control.mails()]


def _read(eml: bytes) -> Read:
    message = message_from_bytes(eml, policy=policy.default)
    assert isinstance(message, EmailMessage)
    plain, marked_up = message.get_body(["plain"]), message.get_body(["html"])
    assert plain is not None
    assert marked_up is not None
    return Read(
        sender=str(message["from"]),
        recipient=str(message["to"]),
        subject=str(message["subject"]),
        text=plain.get_content(),
        html=marked_up.get_content(),
        attached={
            str(part.get_filename()): part.get_content() for part in message.iter_attachments()
        },
    )


def pdf_text(pdf: bytes) -> str:
    """What a reader can copy out of a PDF, without spaces and line breaks."""
    return "".join("".join(page.extract_text().split()) for page in PdfReader(BytesIO(pdf)).pages)


def monthly(engine: Engine, account: Account, *prices: str, **fields: Any) -> Client:
    """A client on a cycle since May, with an address, and charges of May at these prices."""
    given: dict[str, Any] = {
        "billing_cycle": "monthly",
        "billing_starts_on": date(2026, 5, 1),
        "email": "ada@maple.example",
        "now": MAY_1,
        **fields,
    }
    client = a_client(engine, account, **given)
    for price in prices:
        a_charge(engine, client, MAY_5, price)
    return client


def a_queued_mail(engine: Engine, account: Account, **fields: Any) -> Mail:
    """The ready mail of a client's only invoice, which waits to be sent."""
    client = monthly(engine, account, "10.00", **fields)
    tick(engine, now=NOW)
    [mail] = mails_of(engine, client)
    assert mail.state == "queued"
    return mail


def mails_of(engine: Engine, owner: Client | Account) -> list[Mail]:
    """A client's or an account's mails, oldest first."""
    mine = Mail.client_id if isinstance(owner, Client) else Mail.account_id
    with Session(engine) as session:
        return list(session.scalars(select(Mail).where(mine == owner.id).order_by(Mail.id)))


def mail_of(engine: Engine, mail_id: UUID) -> Mail:
    """A mail as it stands now."""
    with Session(engine) as session:
        return session.get_one(Mail, mail_id)


def send(engine: Engine, vendors: Gateways, *, now: datetime = NOW) -> None:
    """Send what waits."""
    work(engine, now=now, gateways=vendors, queues=["mail"])


def send_later(engine: Engine, vendors: Gateways, *, now: datetime) -> None:
    """Let the time that jobs wait for have come, and send what waits."""
    wake(engine)
    send(engine, vendors, now=now)


def wake(engine: Engine) -> None:
    """Let the time that jobs wait for have come."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET run_at = now()"
                " WHERE state IN ('scheduled', 'failed') AND children_pending = 0"
            )
        )


def switch(engine: Engine, owner: Client | Account, **mails: bool) -> None:
    """Switch an account's or a client's mails on and off, by kind."""
    if isinstance(owner, Client):
        change(engine, owner, notifications=mails)
        return
    with Session(engine) as session, session.begin():
        session.get_one(Account, owner.id).notifications = mails


class WatchedMail:
    """The real mail gateway, with something done right before a mail or right after it."""

    def __init__(
        self,
        mail: MailGateway,
        *,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        self._mail = mail
        self._before = before
        self._after = after

    def send(self, mail: Letter) -> Accepted | Refused:
        if self._before:
            self._before()
        answer = self._mail.send(mail)
        if self._after:
            self._after()
        return answer


def watched(
    vendors: Gateways, *, documents: DocumentRenderer | None = None, **when: Callable[[], None]
) -> Gateways:
    """The same vendors with ``before`` or ``after`` done at every mail, or other documents."""
    return Gateways(
        links=vendors.links,
        mail=WatchedMail(vendors.mail, **when),
        mail_sender=vendors.mail_sender,
        documents=documents or vendors.documents,
    )
