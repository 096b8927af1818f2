"""Cards charged at the local Stripe: what tests of payments need made, moved on and looked at."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session
from stripe import RequestsClient, StripeClient

from billing.card_amounts import from_stripe
from billing.invoice_states import InvoiceStatus
from gateways.cards import (
    CardCharge,
    CardGateway,
    CardRefund,
    CardReport,
    ChargeRefused,
    RefundReport,
)
from gateways.merchants import Merchant
from gateways.sandbox.stripe.application import DATABASE
from gateways.sandbox.stripe.cardholders import Cardholder, make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_events import event_from
from models import (
    Account,
    AutoTopUpSetting,
    BackupMethod,
    BillingMethod,
    Client,
    CreditBalance,
    Invoice,
    Job,
    Mail,
    Payment,
    PaymentAttempt,
)
from tasks.billing_methods import (
    remove_backup_method,
    remove_billing_method,
    set_backup_method,
    set_billing_method,
)
from tasks.calls import Gateways
from tasks.clients import change_client
from tasks.drafting import draft_invoice
from tasks.due_collections import collect_due
from tasks.enqueueing import enqueue
from tasks.finalizing import finalize_invoice
from tasks.kinds import JobKind, Run
from tasks.top_ups import top_up_due, wake_top_ups
from tasks.webhooks import store_payment_event
from tests.jobs import rescue
from tests.worlds import NOW, a_charge, a_client, audited, charges, invoices_of, perform, work

SOFT = "pm_card_chargeDeclinedInsufficientFunds"
HARD = "pm_card_chargeDeclinedLostCard"
EXPIRED = "pm_card_chargeDeclinedExpiredCard"
AUTHENTICATED = "pm_card_authenticationRequired"
BANK = "pm_usBankAccount_processing"

MAY = date(2026, 5, 1)
QUEUES = ("billing", "payments")


class Killed(BaseException):
    """The process ends here."""


class WatchedCards:
    """The real card gateway, with something done right before a charge or refund, or right after it."""

    def __init__(
        self,
        cards: CardGateway,
        *,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        self._cards = cards
        self._before = before
        self._after = after

    def charge(self, order: CardCharge) -> CardReport:
        if self._before:
            self._before()
        report = self._cards.charge(order)
        if self._after:
            self._after()
        return report

    def look_up(self, order: CardCharge) -> CardReport | None:
        return self._cards.look_up(order)

    def retrieve(self, payment_intent: str, merchant: Merchant) -> CardReport | None:
        return self._cards.retrieve(payment_intent, merchant)

    def cancel(self, payment_intent: str, merchant: Merchant) -> CardReport:
        return self._cards.cancel(payment_intent, merchant)

    def refund(self, order: CardRefund) -> RefundReport:
        if self._before:
            self._before()
        report = self._cards.refund(order)
        if self._after:
            self._after()
        return report

    def look_up_refund(self, order: CardRefund) -> RefundReport | None:
        return self._cards.look_up_refund(order)

    def retrieve_refund(self, refund: str, merchant: Merchant) -> RefundReport:
        return self._cards.retrieve_refund(refund, merchant)


def watched(vendors: Gateways, **when: Callable[[], None]) -> Gateways:
    """The same vendors with ``before`` or ``after`` done at every charge."""
    return Gateways(
        cards=WatchedCards(vendors.cards, **when),
        checkout=vendors.checkout,
        saved_cards=vendors.saved_cards,
    )


def die() -> None:
    """End the worker that is running."""
    raise Killed


def refuse(code: str, *, times: int | None = None) -> Callable[[], None]:
    """To be done ``before`` a charge: Stripe refuses it, every one unless told how many."""
    refused: list[str] = []

    def say_no() -> None:
        if times is None or len(refused) < times:
            refused.append(code)
            raise ChargeRefused(code, "Stripe takes no such request.")

    return say_no


def give_card(
    engine: Engine,
    stripe: StripeSandbox,
    client: Client,
    card: str = "pm_card_visa",
    *,
    now: datetime = NOW,
) -> Cardholder:
    """Put a client on a new card of that kind, committed."""
    holder = make_cardholder(stripe.url, payment_method=card)
    put_on(engine, client, holder, now=now)
    return holder


def put_on(engine: Engine, client: Client, holder: Cardholder, *, now: datetime = NOW) -> None:
    """Put a client on a card that is there, committed."""
    with Session(engine) as session, session.begin():
        set_billing_method(
            session,
            client.account_id,
            client.id,
            stripe_customer=holder.customer,
            payment_method=holder.payment_method,
            now=now,
            requested_by="test",
        )


def give_backup(
    engine: Engine,
    stripe: StripeSandbox,
    client: Client,
    card: str = "pm_card_mastercard",
    *,
    now: datetime = NOW,
) -> Cardholder:
    """Give a client a second card of that kind, to be used after hard declines, committed."""
    holder = make_cardholder(stripe.url, payment_method=card)
    with Session(engine) as session, session.begin():
        set_backup_method(
            session,
            client.account_id,
            client.id,
            stripe_customer=holder.customer,
            payment_method=holder.payment_method,
            now=now,
            requested_by="test",
        )
        account = session.get_one(Account, client.account_id)
        change_client(session, account, client.id, {"use_backup_card": True}, now=now)
    return holder


def name_unknown_card(engine: Engine, client: Client, *, now: datetime = NOW) -> None:
    """Put a client on a card that Stripe has never heard of."""
    put_on(engine, client, Cardholder("cus_nobody", "pm_nothing"), now=now)


def give_unknown_card(engine: Engine, client: Client, *, now: datetime = NOW) -> None:
    """The same, but nobody looks it up before it is charged."""
    name_unknown_card(engine, client, now=now)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET state = 'cancelled', finished_at = now(), unique_key = NULL"
                " WHERE kind = 'refresh_card' AND finished_at IS NULL"
            )
        )


def give_money(stripe: StripeSandbox) -> None:
    """Every card that Stripe knows is good from now on."""
    with closing(sqlite3.connect(stripe.directory / DATABASE, timeout=30)) as books, books:
        books.execute(
            "UPDATE objects SET hidden = json_set(hidden, '$.behaves_as', 'pm_card_visa')"
            " WHERE kind = 'payment_method'"
        )


def take_backup(engine: Engine, client: Client) -> None:
    """Take a client's second card away, committed."""
    with Session(engine) as session, session.begin():
        remove_backup_method(session, client.account_id, client.id, requested_by="test")


def take_card(engine: Engine, client: Client) -> None:
    """Take a client off its card, committed."""
    with Session(engine) as session, session.begin():
        remove_billing_method(session, client.account_id, client.id, now=NOW, requested_by="test")


def pay_waiting_intents(stripe: StripeSandbox) -> None:
    """The clients authenticate what waits for them, at Stripe: only its events tell of it."""
    with _as_clients(stripe) as client:
        for intent in _waiting(stripe):
            if intent["last_payment_error"]["code"] == "card_declined":
                # Nobody is asked to authenticate that.
                continue
            method = intent["last_payment_error"]["payment_method"]["id"]
            client.v1.payment_intents.confirm(intent["id"], {"payment_method": method})
            stripe.control.authenticate(intent["id"])


def pay_waiting_intents_by_bank(stripe: StripeSandbox) -> None:
    """The clients pay what waits for them from a bank account instead, which takes days."""
    stripe.control.set(settle_after=None)
    with _as_clients(stripe) as client:
        for intent in _waiting(stripe):
            bank = client.v1.payment_methods.attach(
                "pm_usBankAccount_success", {"customer": intent["customer"]}
            )
            client.v1.payment_intents.confirm(intent["id"], {"payment_method": bank.id})


def tell_all(engine: Engine, stripe: StripeSandbox) -> None:
    """All that happened at Stripe so far is told by its events, stored as they come."""
    with Session(engine) as session, session.begin():
        for event in stripe.control.events():
            store_payment_event(session, event_from(event), requested_by="webhook:stripe")


def begin_to_pay_returned_debits(stripe: StripeSandbox) -> None:
    """The clients want to pay what came back by a card, and are asked to authenticate."""
    with _as_clients(stripe) as client:
        for intent in _waiting(stripe):
            card = client.v1.payment_methods.attach(AUTHENTICATED, {"customer": intent["customer"]})
            asked = client.v1.payment_intents.confirm(intent["id"], {"payment_method": card.id})
            assert asked.status == "requires_action"


def _waiting(stripe: StripeSandbox) -> list[dict[str, Any]]:
    intents = stripe.control.payment_intents()
    return [intent for intent in intents if intent["status"] == "requires_payment_method"]


@contextmanager
def _as_clients(stripe: StripeSandbox) -> Iterator[StripeClient]:
    connections = RequestsClient(timeout=10)
    try:
        yield StripeClient(
            "sk_test_clients", base_addresses={"api": stripe.url}, http_client=connections
        )
    finally:
        connections.close()  # type: ignore[no-untyped-call]  # The SDK's own has no types.


def a_client_with(
    engine: Engine, account: Account, stripe: StripeSandbox, card: str = "pm_card_visa", **more: Any
) -> Client:
    """A client of ``account`` on a card of that kind."""
    client = a_client(engine, account, **more)
    give_card(engine, stripe, client, card)
    return client


def an_open_invoice(
    engine: Engine,
    account: Account,
    client: Client,
    price: str = "10.00",
    *,
    collect: bool = True,
    now: datetime = NOW,
    **charge: Any,
) -> UUID:
    """A finalized invoice; unless told otherwise one that is charged by itself, at once."""
    charge_id = a_charge(engine, client, MAY, price, **charge)
    perform(engine, draft_invoice, account, client_id=client.id, charge_ids=[charge_id], now=now)
    invoice = invoices_of(engine, client)[-1]
    perform(engine, finalize_invoice, account, invoice_id=invoice.id, collect=collect, now=now)
    return invoice.id


def a_pending_attempt(
    engine: Engine, account: Account, vendors: Gateways, stripe: StripeSandbox
) -> PaymentAttempt:
    """An automatic attempt for 10 dollars that was written down and never sent."""
    client = a_client_with(engine, account, stripe)
    an_open_invoice(engine, account, client)
    with pytest.raises(Killed):
        work(engine, now=NOW, gateways=watched(vendors, before=die), queues=QUEUES)
    [attempt] = attempts_of(engine)
    return attempt


def many_open_invoices(
    engine: Engine,
    account: Account,
    client: Client,
    count: int,
    price: str,
    *,
    currency: str = "usd",
) -> list[UUID]:
    """So many invoices of one price that are charged by themselves, made in one transaction."""
    run = Run(job_id=uuid4(), account_id=account.id, attempt=1, now=NOW, requested_by="test")
    charge_ids = charges(engine, client, [(MAY, price)] * count, currency=currency)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        for one in charge_ids:
            draft_invoice.body(run, session, client_id=client.id, charge_ids=[one])
        drafts = select(Invoice.id).where(
            Invoice.client_id == client.id, Invoice.status == InvoiceStatus.DRAFT
        )
        ids = list(session.scalars(drafts.order_by(Invoice.id)))
        for invoice_id in ids:
            finalize_invoice.body(run, session, invoice_id=invoice_id, collect=True)
    return ids


def do(
    engine: Engine,
    vendors: Gateways,
    kind: JobKind,
    account: Account,
    *,
    now: datetime = NOW,
    **arguments: Any,
) -> Job:
    """A job enqueued and worked, with all that follows; how it ended."""
    job_id = ask(engine, kind, account, **arguments)
    work(engine, now=now, gateways=vendors, queues=QUEUES)
    with Session(engine) as session:
        return session.get_one(Job, job_id)


def ask(engine: Engine, kind: JobKind, account: Account | None, **arguments: Any) -> UUID:
    """A job enqueued; its id."""
    owner = None if account is None else account.id
    with Session(engine) as session, session.begin():
        return enqueue(session, kind, account_id=owner, requested_by="test", **arguments).id


def sweep(engine: Engine, vendors: Gateways, *, now: datetime = NOW) -> None:
    """What the every-minute schedule starts at ``now``, worked to its end."""
    ask(engine, collect_due, None)
    work(engine, now=now, gateways=vendors, queues=QUEUES)


def sweep_top_ups(engine: Engine, vendors: Gateways, *, now: datetime = NOW) -> None:
    """What the schedule of top-ups starts at ``now``, worked to its end."""
    ask(engine, top_up_due, None)
    work(engine, now=now, gateways=vendors, queues=QUEUES)


def hurry(engine: Engine, vendors: Gateways, *, now: datetime) -> None:
    """Let the time that jobs wait for have come, and work."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET run_at = now()"
                " WHERE state IN ('scheduled', 'failed') AND children_pending = 0"
            )
        )
    work(engine, now=now, gateways=vendors, queues=QUEUES)


def restart(engine: Engine) -> None:
    """After a worker died: its jobs, and those it had not begun, are there to be run again."""
    expire_leases(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET state = 'ready' WHERE state = 'dispatched'"))


def expire_leases(engine: Engine) -> None:
    """Take every running job from its worker."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET lease_expires_at = now() - interval '1 second'"
                " WHERE state = 'running'"
            )
        )
    rescue(engine)


def invoice_of(engine: Engine, invoice_id: UUID) -> Invoice:
    """An invoice as it stands now."""
    with Session(engine) as session:
        return session.get_one(Invoice, invoice_id)


def attempts_of(engine: Engine, *invoice_ids: UUID) -> list[PaymentAttempt]:
    """The attempts at invoices, or at all of them, in the order they were made."""
    found = select(PaymentAttempt).order_by(PaymentAttempt.id)
    if invoice_ids:
        found = found.where(PaymentAttempt.invoice_id.in_(invoice_ids))
    with Session(engine) as session:
        return list(session.scalars(found))


def attempt_states(engine: Engine, *invoice_ids: UUID) -> list[str]:
    """Where the attempts stand, in the order they were made."""
    return [attempt.state for attempt in attempts_of(engine, *invoice_ids)]


def payments(engine: Engine) -> list[Payment]:
    """Every payment, in the order they came."""
    with Session(engine) as session:
        return list(session.scalars(select(Payment).order_by(Payment.id)))


def card_of(engine: Engine, client: Client) -> BillingMethod | None:
    """The card that a client is on."""
    with Session(engine) as session:
        return session.get(BillingMethod, client.id)


def backup_of(engine: Engine, client: Client) -> BackupMethod | None:
    """The card behind that which a client is on."""
    with Session(engine) as session:
        return session.get(BackupMethod, client.id)


def set_top_up(
    engine: Engine, client: Client, threshold: int = 5_000, target: int = 20_000
) -> None:
    """Have a client's credit topped up below ``threshold`` US cents, committed."""
    with Session(engine) as session, session.begin():
        setting = {"threshold": threshold, "target": target, "currency": "usd"}
        account = session.get_one(Account, client.account_id)
        change_client(session, account, client.id, {"auto_top_up": setting}, now=NOW)
        wake_top_ups(session, [client.id], requested_by="test")


def top_up_of(engine: Engine, client: Client) -> AutoTopUpSetting:
    """A client's setting, and how its top-ups went."""
    with Session(engine) as session:
        return session.get_one(AutoTopUpSetting, client.id)


def credit_of(engine: Engine, client: Client, currency: str = "usd") -> int:
    """A client's balance, in minor units."""
    with Session(engine) as session:
        balance = session.get(CreditBalance, (client.id, currency))
        return 0 if balance is None else balance.balance


def mails(engine: Engine) -> list[str]:
    """The kinds of mail that were written down, in order; those of new invoices apart."""
    with Session(engine) as session:
        return list(
            session.scalars(select(Mail.kind).where(Mail.kind != "invoice_ready").order_by(Mail.id))
        )


def jobs_of(engine: Engine, kind: JobKind) -> list[Job]:
    """The jobs of a kind, oldest first."""
    with Session(engine) as session:
        return list(session.scalars(select(Job).where(Job.kind == kind.name).order_by(Job.id)))


def charged(stripe: StripeSandbox) -> list[int]:
    """What Stripe took, in its units, in the order it did."""
    return [one["amount"] for one in stripe.control.charges() if one["status"] == "succeeded"]


def keys_sent(stripe: StripeSandbox) -> list[str | None]:
    """The idempotency key of each request for a payment, in order; retries within a call too."""
    sent = stripe.control.requests(method="POST", path="/v1/payment_intents")
    return [request.idempotency_key for request in sent]


def assert_books_agree(
    engine: Engine, account: Account, stripe: StripeSandbox, *, charges: Sequence[int]
) -> None:
    """Stripe took exactly ``charges``; our payments and our books say the same."""
    assert charged(stripe) == list(charges)
    theirs = sorted(
        (one["metadata"]["attempt"], from_stripe(one["amount_received"], one["currency"]))
        for one in stripe.control.payment_intents()
        if one["status"] == "succeeded"
    )
    ours = sorted(
        (str(payment.attempt_id), payment.amount)
        for payment in payments(engine)
        if payment.source == "card"
    )
    assert ours == theirs
    assert audited(engine, account) == []
