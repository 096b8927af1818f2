import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import permutations
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from typing_extensions import override

from billing.errors import NotFound
from billing.mails import MailState
from gateways.mail_events import MailEvent
from gateways.sandbox.sendgrid.client import SendGridControl, SentMail
from gateways.sandbox.sendgrid.events import EventKind
from gateways.sandbox.sendgrid.faults import Fault, FaultKind
from gateways.sendgrid_events import SendGridEvents
from models import Account, Mail, WebhookEvent
from tasks.calls import Gateways
from tasks.webhooks import handle_mail_event, store_mail_events
from tests.mailbox import (
    HALF_AN_HOUR,
    a_queued_mail,
    inbox,
    mail_of,
    send,
    send_later,
    watched,
)
from tests.worlds import NOW, perform, together, work

NOW_ISH = timedelta(minutes=10)


@dataclass(slots=True)
class Webhook:
    """Where SendGrid posts its events: they are read and stored, and handled when told to be."""

    engine: Engine
    control: SendGridControl

    def tell(self, kind: EventKind, *, copies: int = 1, reason: str | None = None) -> None:
        """Have SendGrid tell this of the mail that it took last, and handle it."""
        self.store(self.control.mails()[-1], kind, copies=copies, reason=reason)
        self.handle()

    def store(
        self, mail: SentMail, kind: EventKind, *, copies: int = 1, reason: str | None = None
    ) -> None:
        delivery = self.control.deliver(mail, kind, copies=copies, reason=reason)
        assert delivery.delivered

    def handle(self) -> None:
        work(self.engine, now=NOW, gateways=Gateways(), queues=["mail"])

    @property
    def events(self) -> list[WebhookEvent]:
        with Session(self.engine) as session:
            return list(session.scalars(select(WebhookEvent).order_by(WebhookEvent.id)))


@pytest.fixture
def webhook(engine: Engine, sendgrid_control: SendGridControl) -> Iterator[Webhook]:
    reader = SendGridEvents(sendgrid_control.public_key())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            events = reader.read(body, dict(self.headers), now=datetime.now(UTC))
            with Session(engine) as session, session.begin():
                store_mail_events(session, events, requested_by="sendgrid")
            self.send_response(204)
            self.end_headers()

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sendgrid_control.set_webhook(f"http://127.0.0.1:{server.server_port}/webhooks/sendgrid")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Webhook(engine, sendgrid_control)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def sent(engine: Engine, account: Account, vendors: Gateways) -> Mail:
    """A mail that SendGrid took."""
    mail = a_queued_mail(engine, account)
    send(engine, vendors)
    return mail_of(engine, mail.id)


def test_a_delivered_mail_says_so_and_when(engine: Engine, sent: Mail, webhook: Webhook) -> None:
    webhook.tell(EventKind.PROCESSED)
    assert mail_of(engine, sent.id).state == "accepted"
    webhook.tell(EventKind.DELIVERED)

    after = mail_of(engine, sent.id)
    assert (after.state, after.reason, after.message_id) == ("delivered", None, sent.message_id)
    assert after.delivered_at is not None
    # As SendGrid says, whose clock is the real one.
    assert abs(after.delivered_at - datetime.now(UTC)) < NOW_ISH
    assert after.sent_at == sent.sent_at
    [processed, delivered] = webhook.events
    assert (processed.outcome, delivered.outcome) == ("accepted", "delivered")
    assert delivered.handled_at == NOW
    assert delivered.account_id == sent.account_id


@pytest.mark.parametrize(
    ("kind", "state"), [(EventKind.BOUNCE, "bounced"), (EventKind.DROPPED, "suppressed")]
)
def test_a_mail_that_was_not_delivered_says_why(
    engine: Engine, sent: Mail, webhook: Webhook, kind: EventKind, state: str
) -> None:
    webhook.tell(kind, reason="550 5.1.1 nobody here")

    after = mail_of(engine, sent.id)
    assert (after.state, after.reason) == (state, "550 5.1.1 nobody here")
    assert after.delivered_at is None


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        (("processed", "deferred", "delivered"), "delivered"),
        (("processed", "delivered", "bounce"), "bounced"),
        (("processed", "dropped", "open"), "suppressed"),
    ],
)
@pytest.mark.parametrize("start", ["accepted", "claimed", "unknown", "queued"])
def test_events_in_any_order_and_twice_lead_to_the_same_state(
    engine: Engine, account: Account, kinds: tuple[str, ...], state: str, start: str
) -> None:
    mail = a_queued_mail(engine, account)
    for order in permutations(kinds):
        with Session(engine) as session, session.begin():
            row = session.get_one(Mail, mail.id)
            row.state, row.reason, row.delivered_at = start, None, None
        for kind in order:
            event = an_event(kind, mail)
            for _ in range(2):
                with Session(engine) as session, session.begin():
                    store_mail_events(session, [event], requested_by="sendgrid")
        work(engine, now=NOW, gateways=Gateways(), queues=["mail"])
        after = mail_of(engine, mail.id)
        assert after.state == state, order
        assert after.reason == (None if state == "delivered" else "as it was")


def an_event(kind: str, mail: Mail) -> MailEvent:
    return MailEvent(
        id=str(uuid4()),
        kind=kind,
        message_id="m1",
        recipient=mail.recipient,
        at=NOW,
        reason="as it was",
        custom_args={"mail": str(mail.id), "account": str(mail.account_id)},
    )


def test_an_event_that_comes_often_is_stored_and_handled_once(sent: Mail, webhook: Webhook) -> None:
    webhook.tell(EventKind.DELIVERED, copies=3)
    [delivery] = webhook.control.deliveries()
    webhook.control.redeliver(delivery)
    webhook.handle()

    [event] = webhook.events
    assert (event.provider, event.type, event.outcome) == ("sendgrid", "delivered", "delivered")
    assert event.payload["mail"] == str(sent.id)


def test_an_event_may_be_faster_than_the_reply(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    sendgrid_control: SendGridControl,
    webhook: Webhook,
) -> None:
    mail = a_queued_mail(engine, account)
    send(engine, watched(vendors, after=lambda: webhook.tell(EventKind.DELIVERED)))

    after = mail_of(engine, mail.id)
    assert after.state == "delivered"
    assert after.message_id == sendgrid_control.mails()[0].message_id
    assert after.sent_at is not None
    assert after.delivered_at is not None


@pytest.mark.parametrize("late", [False, True])
def test_an_event_tells_of_a_mail_whose_reply_was_lost(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    sendgrid_control: SendGridControl,
    webhook: Webhook,
    late: bool,
) -> None:
    mail = a_queued_mail(engine, account)
    sendgrid_control.fail(Fault(kind=FaultKind.LOST_REPLY))
    send(engine, vendors)
    if late:
        send_later(engine, vendors, now=NOW + HALF_AN_HOUR)
        assert mail_of(engine, mail.id).state == "unknown"
    webhook.tell(EventKind.DELIVERED)
    send_later(engine, vendors, now=NOW + HALF_AN_HOUR)

    after = mail_of(engine, mail.id)
    assert (after.state, after.reason) == ("delivered", None)
    assert after.message_id == sendgrid_control.mails()[0].message_id
    assert after.sent_at is not None
    assert len(inbox(sendgrid_control)) == 1


def test_a_lost_reply_does_not_take_back_what_an_event_told(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    sendgrid_control: SendGridControl,
    webhook: Webhook,
) -> None:
    mail = a_queued_mail(engine, account)
    sendgrid_control.fail(Fault(kind=FaultKind.LOST_REPLY))

    class ToldFirst:
        """SendGrid, whose event comes before we see that its reply does not."""

        def send(self, letter: object) -> object:
            try:
                return vendors.mail.send(letter)  # type: ignore[arg-type]  # Passed on as it is.
            finally:
                webhook.tell(EventKind.DELIVERED)

    told = Gateways(
        links=vendors.links,
        mail=ToldFirst(),  # type: ignore[arg-type]  # So is the answer.
        mail_sender=vendors.mail_sender,
        documents=vendors.documents,
    )
    send(engine, told)

    after = mail_of(engine, mail.id)
    assert (after.state, after.reason) == ("delivered", None)


def test_an_event_of_a_mail_that_was_thought_not_taken_keeps_it_from_being_sent_again(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    sendgrid_control: SendGridControl,
) -> None:
    mail = a_queued_mail(engine, account)
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS, status=503))
    send(engine, vendors)
    assert mail_of(engine, mail.id).state == "queued"
    # A gateway in between answered for a SendGrid that had taken it.
    with Session(engine) as session, session.begin():
        store_mail_events(session, [an_event("processed", mail)], requested_by="sendgrid")
    send(engine, vendors)
    send_later(engine, vendors, now=NOW + HALF_AN_HOUR)

    assert mail_of(engine, mail.id).state == "accepted"
    assert len(sendgrid_control.requests()) == 1


def test_events_handled_at_once_leave_the_last_word_to_the_last_news(
    engine: Engine, sent: Mail, webhook: Webhook
) -> None:
    [taken] = webhook.control.mails()
    for kind in (EventKind.PROCESSED, EventKind.DELIVERED, EventKind.BOUNCE):
        webhook.store(taken, kind)

    assert together(*[webhook.handle] * 4) == [None] * 4

    assert mail_of(engine, sent.id).state == MailState.BOUNCED
    assert all(event.handled_at for event in webhook.events)


def test_events_of_no_mail_of_ours_are_kept_and_change_nothing(
    engine: Engine, sent: Mail, webhook: Webhook
) -> None:
    nobody = an_event("delivered", sent)
    with Session(engine) as session, session.begin():
        store_mail_events(
            session,
            [
                replace(nobody, custom_args={}),
                replace(nobody, id="2", custom_args={"mail": str(uuid4())}),
                replace(nobody, id="3", custom_args={"mail": "7"}),
                replace(an_event("open", sent), id="4"),
            ],
            requested_by="sendgrid",
        )
    webhook.handle()

    assert [event.outcome for event in webhook.events] == ["not_ours"] * 3 + ["not_needed"]
    assert mail_of(engine, sent.id).state == "accepted"


def test_what_no_database_can_hold_is_left_out_of_events_and_costs_none_of_the_others(
    engine: Engine, sent: Mail, webhook: Webhook
) -> None:
    told = replace(an_event("bounce", sent), reason="550 no\x00bo\ud83ddy \U0001f986")
    with Session(engine) as session, session.begin():
        new = store_mail_events(
            session,
            [
                an_event("processed", sent),
                told,
                replace(told, id="\x003\udc00", kind="dr\x00opped"),
            ],
            requested_by="sendgrid",
        )
    assert new == 3
    webhook.handle()

    assert [(event.type, event.outcome) for event in webhook.events] == [
        ("processed", "accepted"),
        ("bounce", "bounced"),
        ("dropped", "bounced"),
    ]
    assert webhook.events[-1].event_id == "3"
    after = mail_of(engine, sent.id)
    assert (after.state, after.reason) == ("bounced", "550 nobody \U0001f986")


def test_an_event_that_was_handled_is_not_handled_again(
    engine: Engine, sent: Mail, webhook: Webhook
) -> None:
    webhook.tell(EventKind.DELIVERED)
    [event] = webhook.events
    again = perform(engine, handle_mail_event, None, event_id=event.id)

    assert getattr(again, "reason", None) == "event_handled"
    assert mail_of(engine, sent.id).state == "delivered"
    with pytest.raises(NotFound):
        perform(engine, handle_mail_event, None, event_id=uuid4())
