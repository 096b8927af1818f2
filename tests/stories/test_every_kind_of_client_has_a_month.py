"""A month of a business that has every kind of client, on real processes with real webhooks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.sendgrid.events import EventKind
from gateways.sandbox.server import HOST, free_port
from models import BillingPeriod, Charge, Client, WebhookEvent
from tests.processes import Stack
from tests.stories.conftest import Business, Till
from tests.waiting import wait_for
from tests.worlds import a_charge, a_client, work

NO_MONEY = "pm_card_chargeDeclinedInsufficientFunds"

PAID_BY_CARD = ("paid", 2_000, 0, 2_000, 0)
STILL_DUE = ("open", 2_000, 0, 0, 2_000)

READY, RECEIPT, FAILED = "invoice_ready", "receipt", "payment_failed"
CONFIRM = "authentication_needed"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of client: how it is made, and what its month has to come to.

    Attributes:
        credit: Paid in ahead, in US cents.
        fields: As ``Business.monthly_client`` takes them.
        invoices: Status, total, credit applied, amount paid and amount due of each.
        attempts: How each try at the card ended.
        mails: The kinds of those that are delivered.
        kept_back: Those that are not sent, and why.
    """

    card: str | None = "pm_card_visa"
    credit: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)
    invoices: Sequence[tuple[str, int, int, int, int]] = (PAID_BY_CARD,)
    attempts: Sequence[str] = ("succeeded",)
    mails: Sequence[str] = (READY, RECEIPT)
    kept_back: Sequence[tuple[str, str]] = ()


DECLINED = Kind(card=NO_MONEY, invoices=[STILL_DUE], attempts=["declined"], mails=[READY, FAILED])

KINDS: Mapping[str, Kind] = {
    "Card": Kind(),
    "Credit": Kind(
        credit=5_000,
        invoices=[("paid", 2_000, 2_000, 0, 0)],
        attempts=[],
        # For the deposit, and for the invoice that it paid.
        mails=[RECEIPT, RECEIPT],
    ),
    "Credit and card": Kind(
        credit=500,
        invoices=[("paid", 2_000, 500, 1_500, 0)],
        mails=[RECEIPT, READY, RECEIPT],
    ),
    "Declined": DECLINED,
    "Declined in Los Angeles": Kind(
        card=NO_MONEY,
        fields={"time_zone": "America/Los_Angeles"},
        invoices=[STILL_DUE],
        attempts=["declined"],
        mails=[READY, FAILED],
    ),
    "Tokyo": Kind(fields={"time_zone": "Asia/Tokyo"}),
    "Stolen": Kind(
        card="pm_card_chargeDeclinedStolenCard",
        invoices=[STILL_DUE],
        attempts=["declined"],
        mails=[READY, FAILED],
    ),
    "Authentication": Kind(
        card="pm_card_authenticationRequired",
        invoices=[STILL_DUE],
        attempts=["needs_action"],
        mails=[READY, CONFIRM],
    ),
    "Bank debit": Kind(card="pm_usBankAccount_success"),
    "No card": Kind(card=None, invoices=[STILL_DUE], attempts=[], mails=[READY]),
    "Mails off": Kind(
        fields={"notifications": {READY: False, RECEIPT: False}},
        mails=[],
        kept_back=[(READY, "switched_off"), (RECEIPT, "switched_off")],
    ),
    "No email": Kind(
        fields={"email": None},
        mails=[],
        kept_back=[(READY, "no_email"), (RECEIPT, "no_email")],
    ),
    "Two currencies": Kind(
        fields={"currencies": ["usd", "eur"]},
        invoices=[PAID_BY_CARD, PAID_BY_CARD],
        attempts=["succeeded", "succeeded"],
        # What is ready is told once, what was paid each time.
        mails=[READY, RECEIPT, RECEIPT],
    ),
    "Zero": Kind(
        fields={"prices": ["10.00", "-10.00"]},
        invoices=[("paid", 0, 0, 0, 0)],
        attempts=[],
        mails=[],
    ),
    "Negative": Kind(
        fields={"prices": ["10.00", "-25.00"]},
        invoices=[("paid", -1_500, -1_500, 0, 0)],
        attempts=[],
        mails=[],
    ),
}


def test_every_kind_of_client_has_its_month(
    business: Business, till: Till, trading: Stack, sendgrid_control: SendGridControl
) -> None:
    clients = {name: _client(business, till, name, kind) for name, kind in KINDS.items()}
    manual = a_client(business.engine, business.account, name="Manual", email="m@example.com")
    a_charge(business.engine, manual, business.month_start(1))
    work(business.engine)
    business.scheduler_is_about_to_fire()
    web = _send_webhooks_to_our_own(till, sendgrid_control)

    trading.start("web", PORT=web)
    for process in ("scheduler", "dispatcher", "worker", "payments", "mail"):
        trading.start(process)
    bank = clients["Bank debit"]
    wait_for(lambda: [attempt.state for attempt in till.attempts(bank)] == ["processing"])
    assert till.invoice(bank).status == "open"
    till.stripe.settle(str(till.attempts(bank)[0].payment_intent))
    wait_for(lambda: till.invoice(bank).status == "paid")
    wait_for(lambda: business.all_is_billed() and business.all_is_done())
    wait_for(lambda: _all_is_told(till, sendgrid_control))
    wait_for(business.all_is_done)

    for name, kind in KINDS.items():
        _came_to(till, clients[name], kind)
    assert till.balance(clients["Credit"]) == 3_000
    assert till.balance(clients["Negative"]) == 1_500
    with Session(business.engine) as session:
        [waiting] = session.scalars(select(Charge).where(Charge.client_id == manual.id))
        assert waiting.invoice_id is None
        events = session.scalars(select(WebhookEvent)).all()
    # Stripe told everything twice; all of it was written down once, and handled.
    told = Counter(delivery["event"] for delivery in till.stripe.deliveries())
    assert set(told.values()) == {2}
    assert sorted(e.event_id for e in events if e.provider == "stripe") == sorted(told)
    assert all(event.handled_at for event in events)
    _mails_are_what_sendgrid_delivered(till, clients, sendgrid_control)
    for name in ("Declined", "Declined in Los Angeles"):
        _is_tried_again_at_ten(till, clients[name])
    for client in clients.values():
        _month_ended_at_its_midnight(business, client)
    assert business.differences() == []


def _client(business: Business, till: Till, name: str, kind: Kind) -> Client:
    fields = {"email": f"{name.lower().replace(' ', '-')}@example.com", **kind.fields}
    client = business.monthly_client(name, months_ago=1, **fields)
    if kind.card is not None:
        till.put_on_card(client, kind.card)
    if kind.credit:
        till.deposit(client, kind.credit)
    return client


def _send_webhooks_to_our_own(till: Till, sendgrid: SendGridControl) -> str:
    """Have both vendors post to a port that our API will listen at; the port."""
    port = free_port()
    till.stripe.set(settle_after=None, webhook_copies=2, webhook_retry=0.2)
    till.stripe.set(webhook_url=f"http://{HOST}:{port}/webhooks/stripe")
    sendgrid.set_webhook(
        f"http://{HOST}:{port}/webhooks/sendgrid",
        automatic=[EventKind.PROCESSED, EventKind.DELIVERED],
        retry_seconds=0.2,
    )
    return str(port)


def _all_is_told(till: Till, sendgrid: SendGridControl) -> bool:
    """Whether every event of both vendors was taken."""
    return all(delivery["state"] == "delivered" for delivery in till.stripe.deliveries()) and all(
        delivery.delivered for delivery in sendgrid.deliveries()
    )


def _came_to(till: Till, client: Client, kind: Kind) -> None:
    invoices = [
        (one.status, one.total, one.credit_applied, one.amount_paid, one.amount_due)
        for one in till.invoices(client)
    ]
    assert invoices == list(kind.invoices), client.name
    assert [attempt.state for attempt in till.attempts(client)] == list(kind.attempts), client.name
    # One request for each attempt, and one payment for each charge that Stripe made.
    assert len(till.requests(client)) == len(kind.attempts), client.name
    paid = [one.amount for one in till.payments(client) if one.source == "card"]
    assert paid == [one.amount_paid for one in till.invoices(client) if one.amount_paid]
    if kind.card is not None:
        assert till.charged(client) == paid, client.name


def _mails_are_what_sendgrid_delivered(
    till: Till, clients: Mapping[str, Client], sendgrid: SendGridControl
) -> None:
    taken = Counter(mail.custom_args["mail"] for mail in sendgrid.mails())
    for name, kind in KINDS.items():
        mails = till.mails(clients[name])
        delivered = [mail for mail in mails if mail.state == "delivered"]
        kept_back = [(mail.kind, mail.reason) for mail in mails if mail.state == "suppressed"]
        assert sorted(mail.kind for mail in delivered) == sorted(kind.mails), name
        assert sorted(kept_back) == sorted(kind.kept_back), name
        assert len(mails) == len(delivered) + len(kept_back)
        assert [taken.pop(str(mail.id)) for mail in delivered] == [1] * len(delivered)
    assert not taken


def _is_tried_again_at_ten(till: Till, client: Client) -> None:
    zone = ZoneInfo(client.time_zone or "UTC")
    [declined] = till.attempts(client)
    assert declined.settled_at is not None
    third_day = declined.settled_at.astimezone(zone).date() + timedelta(days=3)
    at_ten = datetime.combine(third_day, time(10), zone).astimezone(UTC)
    assert till.invoice(client).next_attempt_at == at_ten


def _month_ended_at_its_midnight(business: Business, client: Client) -> None:
    zone = ZoneInfo(client.time_zone or "UTC")
    with Session(business.engine) as session:
        billed = session.scalars(
            select(BillingPeriod).where(
                BillingPeriod.client_id == client.id, BillingPeriod.state == "billed"
            )
        ).one()
    ended_on = business.month_start(0, zone.key)
    assert billed.ends_at == datetime.combine(ended_on, time(), zone).astimezone(UTC)
