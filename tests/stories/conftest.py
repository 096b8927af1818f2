"""What a story needs: a business with history, and ways to look at how it ends."""

from collections.abc import Iterator, MutableMapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from billing.cycles import BillingCycle, Cadence
from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.stripe_events import event_from
from models import (
    Account,
    BillingMethod,
    BillingPeriod,
    BillingRun,
    Client,
    CreditBalance,
    Invoice,
    Job,
    Mail,
    Payment,
    PaymentAttempt,
)
from models.database import database_now
from scheduler.firing import write_schedules
from scheduler.schedules import SCHEDULES
from tasks.audits import Difference, audit
from tasks.billing_methods import set_billing_method
from tasks.billing_runs import request_run
from tasks.calls import Gateways
from tasks.crediting import deposit_credit
from tasks.due_collections import collect_due
from tasks.enqueueing import enqueue
from tasks.kinds import JobKind
from tasks.webhooks import store_payment_event
from tests.conftest import STRIPE_KEY
from tests.processes import Stack
from tests.stripe import cards_at_stripe
from tests.worlds import a_client, charges, tick, work

MAY, JUNE = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
"""The month of the stories that are told by their own calendar, and the day it is billed."""


class Business:
    """A business whose clients went on a monthly cycle some months ago, and what it sees now."""

    def __init__(self, engine: Engine, account: Account) -> None:
        self.engine = engine
        self.account = account
        # The stories run on the real clock, so their months are counted back from today.
        self.now = datetime.now(UTC)

    def month_start(self, months_ago: int, time_zone: str = "UTC") -> date:
        """The first day of the month that lies ``months_ago`` before this one."""
        start = self.now.astimezone(ZoneInfo(time_zone)).date().replace(day=1)
        for _ in range(months_ago):
            start = (start - timedelta(days=1)).replace(day=1)
        return start

    def monthly_client(
        self,
        name: str,
        *,
        months_ago: int,
        charges_per_month: int = 2,
        prices: Sequence[str] | None = None,
        currencies: Sequence[str] = ("usd",),
        time_zone: str = "UTC",
        **fields: Any,
    ) -> Client:
        """A client on the cycle since ``months_ago``, with charges in every full month.

        They are of 10.00, or as ``prices`` says, in each of the ``currencies``.
        """
        start = self.month_start(months_ago, time_zone)
        client = a_client(
            self.engine,
            self.account,
            now=datetime.combine(start, datetime.min.time(), ZoneInfo(time_zone)),
            name=name,
            time_zone=time_zone,
            billing_cycle="monthly",
            billing_starts_on=start,
            **fields,
        )
        prices = ["10.00"] * charges_per_month if prices is None else prices
        month, today = start, self.now.astimezone(ZoneInfo(time_zone)).date()
        while (end := Cadence(BillingCycle.MONTHLY).boundary_after(month)) <= today:
            dated = [(month + timedelta(days=day), price) for day, price in enumerate(prices)]
            for currency in currencies:
                charges(self.engine, client, dated, currency=currency)
            month = end
        return client

    def request_run(self) -> None:
        """Ask for all that is due to be billed."""
        with Session(self.engine) as session, session.begin():
            request_run(session, self.account.id, now=database_now(session), requested_by="test")

    def scheduler_was_down_since(self, months_ago: int) -> None:
        """Let the schedules' next fire lie in the past, so that a scheduler fires at once."""
        self._let_fires_be_missed(
            datetime.combine(self.month_start(months_ago), datetime.min.time(), UTC)
        )

    def scheduler_is_about_to_fire(self) -> None:
        """The same without a long time to make up for: its first look fires all there is."""
        self._let_fires_be_missed(self.now - timedelta(days=1))

    def _let_fires_be_missed(self, since: datetime) -> None:
        with Session(self.engine) as session, session.begin():
            write_schedules(session, SCHEDULES, now=since)

    def invoices(self) -> list[Invoice]:
        """All invoices, by number."""
        with Session(self.engine) as session:
            return list(session.scalars(select(Invoice).order_by(Invoice.number)))

    def months_by_number(self) -> list[tuple[str | None, date]]:
        """Each invoice's number and the start of its period, by number."""
        with Session(self.engine) as session:
            rows = session.execute(
                select(Invoice.number, BillingPeriod.period_start)
                .join(BillingPeriod, BillingPeriod.id == Invoice.period_id)
                .order_by(Invoice.number)
            )
            return [(number, start) for number, start in rows]

    def periods(self, client: Client) -> list[tuple[date, str]]:
        """When each of a client's periods starts, and what became of it."""
        with Session(self.engine) as session:
            return [
                (period.period_start, period.state)
                for period in session.scalars(
                    select(BillingPeriod)
                    .where(BillingPeriod.client_id == client.id)
                    .order_by(BillingPeriod.period_start)
                )
            ]

    def jobs(self, *conditions: object) -> int:
        """How many jobs meet the conditions."""
        with Session(self.engine) as session:
            counted = select(func.count()).select_from(Job).where(*conditions)  # type: ignore[arg-type]  # SQL expressions.
            return session.scalar(counted) or 0

    def all_is_billed(self) -> bool:
        """Whether nothing is due any more and every run has ended."""
        with Session(self.engine) as session:
            due = session.scalar(
                select(BillingPeriod.id)
                .where(
                    BillingPeriod.state == "open",
                    BillingPeriod.reason.is_(None),
                    BillingPeriod.ends_at <= func.now(),
                )
                .limit(1)
            )
            unfinished = session.scalar(
                select(BillingRun.id).where(BillingRun.finished_at.is_(None)).limit(1)
            )
            return due is None and unfinished is None

    def all_is_done(self) -> bool:
        """Whether every job has ended."""
        return self.jobs(Job.finished_at.is_(None)) == 0

    def audit_is_clean(self) -> bool:
        """Whether every rule of the books holds."""
        return self.differences() == []

    def differences(self) -> list[Difference]:
        """Where the books do not agree."""
        with Session(self.engine) as session:
            return audit(session, self.account.id)


class Till:
    """Clients with cards at the test's own Stripe, and what became of their money.

    ``gateways`` is what a story that is told by its calendar, without processes, calls.
    """

    def __init__(
        self, engine: Engine, account: Account, stripe: StripeSandbox, gateways: Gateways
    ) -> None:
        self.engine = engine
        self.account = account
        self.stripe = stripe.control
        self.gateways = gateways

    def client(
        self, name: str, card: str | None = "pm_card_visa", *, price: str = "10.00", **fields: Any
    ) -> Client:
        """A client on the cycle since May, with one charge in it."""
        client = a_client(
            self.engine,
            self.account,
            now=MAY,
            name=name,
            billing_cycle="monthly",
            billing_starts_on=MAY.date(),
            **fields,
        )
        charges(self.engine, client, [(date(2026, 5, 5), price)])
        if card is not None:
            self.put_on_card(client, card, now=MAY)
        return client

    def put_on_card(self, client: Client, card: str, *, now: datetime | None = None) -> str:
        """Let a client be charged on one of Stripe's test cards; returns its customer there."""
        holder = make_cardholder(self.stripe.url, payment_method=card, name=client.name)
        with Session(self.engine) as session, session.begin():
            set_billing_method(
                session,
                self.account.id,
                client.id,
                stripe_customer=holder.customer,
                payment_method=holder.payment_method,
                now=now or database_now(session),
                requested_by="test",
            )
        return holder.customer

    def top_up(self, client: Client) -> None:
        """The client's card has money on it from now on.

        Stripe's test cards never change, so behind its back the client gets one that pays.
        """
        holder = make_cardholder(self.stripe.url, name=client.name)
        with Session(self.engine) as session, session.begin():
            method = session.get_one(BillingMethod, client.id)
            method.stripe_customer = holder.customer
            method.payment_method = holder.payment_method

    def ask(self, kind: JobKind, **arguments: Any) -> UUID:
        """Enqueue what staff ask for; the job's id."""
        with Session(self.engine) as session, session.begin():
            return enqueue(
                session, kind, account_id=self.account.id, requested_by="test", **arguments
            ).id

    def deposit(self, client: Client, amount: int) -> UUID:
        """Enqueue a deposit of US cents; the job's id."""
        return self.ask(deposit_credit, client_id=client.id, amount=amount, currency="usd")

    def bill_may(self, *, now: datetime = JUNE) -> None:
        """Bill May, and charge whom it charges."""
        tick(self.engine, now=now)
        self.work(now)

    def sweep(self, now: datetime, *, gateways: Gateways | None = None) -> None:
        """What the scheduler does every minute about cards, done at ``now``."""
        with Session(self.engine) as session, session.begin():
            enqueue(session, collect_due, account_id=None, requested_by="test")
        self.work(now, gateways=gateways)

    def work(self, now: datetime, *, gateways: Gateways | None = None) -> None:
        """Run what is ready; mails only with ``gateways`` that can send them."""
        queues = () if gateways else ("billing", "ops", "payments")
        work(self.engine, now=now, gateways=gateways or self.gateways, queues=queues)

    def delay(self, client: Client, seconds: float, *, after_effect: bool) -> None:
        """Let Stripe take its time with the next charge of a client, once made or before."""
        self.stripe.add_fault(
            "delay",
            parameters={"metadata[client]": str(client.id)},
            seconds=seconds,
            after_effect=after_effect,
        )

    def skip_waits(self) -> None:
        """Let jobs that wait for their time have it now."""
        with Session(self.engine) as session, session.begin():
            waits = update(Job).where(Job.state == "scheduled", Job.children_pending == 0)
            session.execute(waits.values(run_at=func.now()))

    def hear(self, event_type: str) -> int:
        """Stripe's events of a type come in, as its webhook tells them; how many are news."""
        events = [event_from(event) for event in self.stripe.events(event_type)]
        with Session(self.engine) as session, session.begin():
            return sum(store_payment_event(session, one, requested_by="stripe") for one in events)

    def ended(self, job_id: UUID) -> tuple[str, str | None]:
        """How a job ended: its state, and why."""
        with Session(self.engine) as session:
            job = session.get_one(Job, job_id)
            return job.state, job.reason

    def invoice(self, client: Client) -> Invoice:
        """A client's only invoice."""
        [invoice] = self.invoices(client)
        return invoice

    def invoices(self, client: Client) -> list[Invoice]:
        """A client's invoices, oldest first."""
        with Session(self.engine) as session:
            mine = Invoice.client_id == client.id
            return list(session.scalars(select(Invoice).where(mine).order_by(Invoice.id)))

    def attempts(self, client: Client) -> list[PaymentAttempt]:
        """A client's attempts, oldest first."""
        with Session(self.engine) as session:
            mine = PaymentAttempt.client_id == client.id
            return list(
                session.scalars(select(PaymentAttempt).where(mine).order_by(PaymentAttempt.id))
            )

    def payments(self, client: Client) -> list[Payment]:
        """A client's payments, oldest first."""
        with Session(self.engine) as session:
            mine = Payment.client_id == client.id
            return list(session.scalars(select(Payment).where(mine).order_by(Payment.id)))

    def mails(self, client: Client) -> list[Mail]:
        """A client's mails, oldest first."""
        with Session(self.engine) as session:
            mine = Mail.client_id == client.id
            return list(session.scalars(select(Mail).where(mine).order_by(Mail.id)))

    def balance(self, client: Client) -> int:
        """A client's credit, in US cents."""
        with Session(self.engine) as session:
            row = session.get(CreditBalance, (client.id, "usd"))
            return 0 if row is None else row.balance

    def charged(self, client: Client) -> list[int]:
        """What Stripe has really taken from a client's card, charge by charge."""
        with Session(self.engine) as session:
            method = session.get_one(BillingMethod, client.id)
        return [
            charge["amount"]
            for charge in self.stripe.charges()
            if charge["status"] == "succeeded" and charge["customer"] == method.stripe_customer
        ]

    def requests(self, client: Client) -> list[int | None]:
        """How Stripe answered each request to charge a client; ``None``: not, or not yet."""
        asked = self.stripe.requests(method="POST", path="/v1/payment_intents")
        return [
            request.status
            for request in asked
            if request.parameters["metadata[client]"] == str(client.id)
        ]


def hold(session: Session, client: Client) -> None:
    """Lock a client's row: whoever moves its money or bills it stops in the middle."""
    session.execute(select(Client).where(Client.id == client.id).with_for_update())


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged, kept as it is: drawing a traceback for a terminal takes seconds."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def business(engine: Engine, account: Account) -> Business:
    """An empty business on the test's database."""
    return Business(engine, account)


@pytest.fixture
def till(engine: Engine, account: Account, stripe_sandbox: StripeSandbox) -> Iterator[Till]:
    """The same business's cards."""
    with cards_at_stripe(STRIPE_KEY, base_url=stripe_sandbox.url) as cards:
        yield Till(engine, account, stripe_sandbox, Gateways(cards=cards))


@pytest.fixture
def trading(stack: Stack, vendor_settings: dict[str, str]) -> Stack:
    """Real processes that call the test's own Stripe and SendGrid."""
    stack.know(vendor_settings)
    return stack
