"""Every sentence about a broken promise is said where that promise is broken, and nowhere else."""

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from gateways.sandbox.sendgrid.client import SendGridControl, SentMail
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
from gateways.sandbox.sendgrid.store import Delivery
from gateways.sandbox.stripe.books import PLATFORM
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.errors import JsonObject
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sendgrid_mail import SendGridMail
from gateways.stripe_api import StripeApi
from gateways.stripe_cards import StripeCards
from gateways.stripe_checkout import StripeCheckout
from gateways.stripe_events import event_from
from gateways.stripe_records import StripeRecords
from gateways.stripe_saved_cards import StripeSavedCards
from gateways.typst_documents import TypstDocuments
from models import CardRole, job_ledger
from models.database import connect, database_now
from scheduler.firing import fire_due, write_schedules
from scheduler.schedules import SCHEDULES
from tasks.accounts import create_account
from tasks.calls import Gateways
from tasks.card_setups import ask_for_setup
from tasks.links import Links
from tasks.webhooks import store_payment_event
from tests.cards import give_card, payments
from tests.chaos import marks
from tests.chaos.business import Business
from tests.chaos.events import all_told
from tests.chaos.invariants import violations
from tests.chaos.settling import reconcile
from tests.conftest import MAIL_FROM, SENDGRID_KEY, STRIPE_KEY
from tests.disputes import intent_of
from tests.jobs import kinds_of_its_own
from tests.mailbox import monthly
from tests.money import deposit
from tests.processes import SECRET_KEY
from tests.refunds import refund
from tests.worlds import a_charge, work

HERE = "http://duecourse.example/p/its-client"
PAGE = UUID("01a20872-0000-7000-8000-000000000001")


class _Stripe(StripeSandboxControl):
    """What Stripe's log said, and whatever a test makes of that."""

    def __init__(self, control: StripeSandboxControl) -> None:
        super().__init__("http://nowhere.example")
        self.intents = control.payment_intents()
        self.refunds = control.objects("refund")
        self.disputes = control.objects("dispute")
        self.pages = control.objects("checkout.session")
        self.told: list[JsonObject] = [
            {"event": one["id"], "state": "delivered"} for one in control.events()
        ]

    def payment_intents(self, *, account: str | None = None) -> list[JsonObject]:
        return self.intents if account in {None, PLATFORM} else []

    def objects(self, kind: str, *, account: str | None = None) -> list[JsonObject]:
        return {
            "refund": self.refunds,
            "dispute": self.disputes,
            "checkout.session": self.pages,
        }[kind]

    def deliveries(self) -> list[JsonObject]:
        return self.told


class _SendGrid(SendGridControl):
    """The same of SendGrid."""

    def __init__(self, taken: list[SentMail]) -> None:
        super().__init__("http://nowhere.example")
        self.taken = taken
        self.told: list[Delivery] = []

    def mails(self, *, message_id: str | None = None, **custom_args: str) -> list[SentMail]:
        return self.taken

    def deliveries(self) -> list[Delivery]:
        return self.told

    def tell(self, event: str, *, status: int | None) -> None:
        """Tell an event; the receiver answers so, or does not."""
        events = [{"sg_event_id": event}]
        number = len(self.told) + 1
        self.told.append(Delivery(number, 0.0, events, 1, status, None, None))


@dataclass(frozen=True, slots=True)
class _World:
    """A business of one client whose last month was billed, charged, mailed and partly refunded.

    A part of it is disputed; a page is open for another card; all of it was reconciled.

    Attributes:
        names: What sentences call what there is.
        connection: The transaction in which a test breaks something.
    """

    business: Business
    stripe: _Stripe
    sendgrid: _SendGrid
    names: Mapping[str, UUID | str]
    connection: Connection

    def id_of(self, name: str) -> UUID:
        """The id of something that has one."""
        return UUID(str(self.names[name]))

    def said(self) -> list[str]:
        """What is said to be broken."""
        # It makes a session of it, which takes a connection just as well.
        engine = cast("Engine", self.connection)
        return violations(engine, self.business, self.stripe, self.sendgrid)


@pytest.fixture(scope="module")
def true_world(server: str, directory: Path) -> Iterator[_World]:
    """Everything done for real, once: charged at the local Stripe, mailed at the local SendGrid."""
    admin_url = server.rpartition("/")[0] + "/postgres"
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE true_world TEMPLATE duecourse")
    url = server.rpartition("/")[0].replace("postgresql://", "postgresql+psycopg://")
    engine = connect(f"{url}/true_world", process="test", connections=4)
    with (
        tempfile.TemporaryDirectory(dir=directory) as path,
        StripeSandbox(Path(path) / "stripe") as stripe,
        SendGridSandbox(Path(path) / "sendgrid") as sendgrid,
        closing(sendgrid.control()) as post,
    ):
        business = _worked(engine, stripe, sendgrid)
        said = _Stripe(stripe.control), _SendGrid(post.mails())
    with engine.connect() as connection:
        yield _World(business, *said, _names(connection, *said), connection)
    engine.dispose()
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute("DROP DATABASE true_world WITH (FORCE)")


@pytest.fixture
def world(true_world: _World) -> Iterator[_World]:
    """The same, to be broken: the next test has it whole."""
    with true_world.connection.begin() as transaction:
        yield replace(
            true_world,
            business=replace(
                true_world.business,
                stripe_accounts=dict(true_world.business.stripe_accounts),
                rolled_back=[],
                cancelled=[],
                amended={},
                closed={},
            ),
            stripe=deepcopy(true_world.stripe),
            sendgrid=_SendGrid(list(true_world.sendgrid.taken)),
        )
        transaction.rollback()


def _worked(engine: Engine, stripe: StripeSandbox, sendgrid: SendGridSandbox) -> Business:
    """A client's last month billed, and all that follows; what was asked for."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        now = database_now(session)
        account = create_account(session, "Bluebird Prep")
        marks.create_table(session)
    last_month = (now.date().replace(day=1) - timedelta(days=1)).replace(day=1)
    began = datetime.combine(last_month, time(), UTC)
    client = monthly(engine, account, billing_starts_on=last_month, now=began)
    a_charge(engine, client, last_month)
    give_card(engine, stripe, client, now=now)
    business = Business(engine, random.Random(1))  # noqa: S311 - nothing is drawn
    business.accounts.append(account.id)
    business.stripe_accounts[account.id] = PLATFORM
    business.bill()
    with Session(engine) as session, session.begin():
        new = marks.marks_job(0.0)
        business.accepted.append(job_ledger.enqueue(session.connection(), new).id)
        write_schedules(session, SCHEDULES, now=now)
        lines = {line.name: line for line in SCHEDULES if line.name == "prune"}
        fire_due(session, lines, now=now + timedelta(hours=1))
    with (
        StripeApi(STRIPE_KEY, base_url=stripe.url) as api,
        SendGridMail(SENDGRID_KEY, host=sendgrid.url) as mail,
        kinds_of_its_own(),
    ):
        marks.register()
        vendors = Gateways(
            cards=StripeCards(api),
            checkout=StripeCheckout(api),
            saved_cards=StripeSavedCards(api),
            payment_records=StripeRecords(api),
            links=Links("http://duecourse.example", SECRET_KEY),
            mail=mail,
            mail_sender=MAIL_FROM,
            documents=TypstDocuments(),
        )
        work(engine, gateways=vendors)
        [paid] = payments(engine)
        refund(engine, vendors, account, paid, amount=300)
        a_charge(engine, client, now.date(), description="call-1")
        business.recorded.append("call-1")
        deposit(engine, account, client, 700, now=now, note="call-2")
        business.deposited.append("call-2")
        stripe.control.dispute(intent_of(engine, paid), 100)
        with Session(engine) as session, session.begin():
            ask_for_setup(
                session, client.id, CardRole.BACKUP, return_url=HERE, now=now, requested_by="test"
            )
        work(engine, gateways=vendors)
        with Session(engine) as session, session.begin():
            for event in stripe.control.events():
                store_payment_event(session, event_from(event), requested_by="test")
        work(engine, gateways=vendors)
        reconcile(engine, business.accounts, within=0.0)
        work(engine, gateways=vendors)
    return business


def _names(connection: Connection, stripe: _Stripe, sendgrid: _SendGrid) -> dict[str, UUID | str]:
    """What sentences call what there is."""
    rows = {
        name: connection.execute(text(f"SELECT id FROM {what}")).scalar_one()  # noqa: S608 - below
        for name, what in {
            "client": "clients",
            "invoice": "invoices",
            "attempt": "payment_attempts",
            "refund": "refunds",
            "charge": "charges WHERE description = 'call-1'",
            "billed": "charges WHERE invoice_id IS NOT NULL",
            "finalizing": "ledger_entries WHERE event = 'finalize'",
            "period": "billing_periods WHERE state = 'billed'",
            "bill": "jobs WHERE kind = 'bill_due_periods'",
            "fired": "jobs WHERE kind = 'prune'",
            "marked": "jobs WHERE kind = 'leave_marks'",
            "card_page": "card_setups",
            "reconciliation": "reconciliations",
        }.items()
    }
    mail = sendgrid.taken[0].custom_args["mail"]
    about = text("SELECT kind, subject_key FROM mails WHERE id = :mail")
    kind, subject = connection.execute(about, {"mail": mail}).one()
    fire_at = connection.execute(text("SELECT fire_at FROM schedule_fires")).scalar_one()
    issued_on = connection.execute(text("SELECT issued_on FROM invoices")).scalar_one()
    connection.rollback()
    told = {
        "event": stripe.told[0]["event"],
        "fire_at": str(fire_at),
        "stripe_refund": stripe.refunds[0]["id"],
        "issued_on": str(issued_on),
        "intent": stripe.refunds[0]["payment_intent"],
        "dispute": stripe.disputes[0]["id"],
        "page": str(PAGE),
    }
    return rows | told | {"mail": mail, "kind": kind, "subject": subject}


_Harm = Callable[[_World], object]


def _sql(*statements: str) -> _Harm:
    """Statements behind everybody's back: no trigger and no foreign key is in the way."""

    def harm(world: _World) -> None:
        world.connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            world.connection.execute(text(statement), dict(world.names))

    return harm


def _say_of_stripe(**changes: object) -> _Harm:
    """Stripe says something else of its only charge."""
    return lambda world: world.stripe.intents[0].update(changes)


def _say_of_the_refund(**changes: object) -> _Harm:
    """Stripe says something else of its only refund."""
    return lambda world: world.stripe.refunds[0].update(changes)


def _say_of_the_dispute(**changes: object) -> _Harm:
    """Stripe says something else of its only dispute."""
    return lambda world: world.stripe.disputes[0].update(changes)


def _say_of_the_card_page(**changes: object) -> _Harm:
    """Stripe says something else of the page for a card."""
    return lambda world: world.stripe.pages[0].update(changes)


def _page_at_stripe(status: str, amount: int = 1_000) -> _Harm:
    """Another page, on which an invoice can or could be paid."""
    page: JsonObject = {"id": "cs_to_pay", "status": status, "amount_total": amount}
    return lambda world: world.stripe.pages.append(page)


def _page(state: str, status: str, amount: int = 1_000) -> _Harm:
    """A page as it stands here, and at Stripe."""
    return _both(_sql(_OPEN_PAGE.format(state=state)), _page_at_stripe(status, amount))


def _amend(cents: int) -> _Harm:
    """What the charge on the invoice is to come to."""
    return lambda world: world.business.amended.update({world.id_of("billed"): cents})


def _both(*harms: _Harm) -> _Harm:
    def harm(world: _World) -> None:
        for one in harms:
            one(world)

    return harm


def _close_books(world: _World) -> None:
    since = world.connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    [account] = world.business.accounts
    world.business.closed[account] = (since.date(), since)


def _cancel(world: _World) -> None:
    world.business.cancelled.append(world.id_of("fired"))
    _sql("UPDATE jobs SET state = 'cancelled', started_at = NULL WHERE id = :fired")(world)


def _never_send(world: _World) -> None:
    world.sendgrid.taken.pop(0)
    _sql("UPDATE mails SET state = 'queued' WHERE id = :mail")(world)


def _send_two_about_the_same(world: _World) -> None:
    _sql(
        "ALTER TABLE mails DROP CONSTRAINT uq_mails_kind_subject_key_recipient_sending",
        "UPDATE mails SET (kind, subject_key) = (:kind, :subject)",
    )(world)


_RECORD = """
INSERT INTO charges (account_id, client_id, charged_on, description, quantity, amount, currency,
                     metadata)
SELECT account_id, client_id, charged_on, {description}, quantity, amount, currency, metadata
  FROM charges WHERE description = 'call-1'
"""
_DEPOSIT = """
INSERT INTO credit_entries (client_id, currency, kind, amount, note, requested_by)
SELECT client_id, currency, kind, amount, {note}, 'test' FROM credit_entries WHERE note = 'call-2'
"""
_DRAFTED = "UPDATE billing_periods SET state = 'drafted' WHERE id = :period"
_DRAFT = """
INSERT INTO invoices (account_id, client_id, period_id, currency, subtotal, total, review_ends_at)
SELECT account_id, client_id, period_id, 'eur', 0, 0, {review_ends_at} FROM invoices
"""
_CORRECT = """
INSERT INTO charges (account_id, client_id, charged_on, description, quantity, amount, currency,
                     metadata, amends, invoice_id)
SELECT account_id, client_id, charged_on, 'Less', 1, -300, currency, metadata, id, {invoice}
  FROM charges WHERE id = :billed
"""
_OPEN_PAGE = """
INSERT INTO payment_attempts (id, account_id, client_id, invoice_id, job_id, ordinal, origin, state,
                              amount, currency, customer, idempotency_key, told, checkout_session,
                              checkout_url, checkout_expires_at, next_ask_at)
SELECT :page, account_id, client_id, invoice_id, job_id, 9, 'client', '{state}', amount, currency,
       customer, 'of the page', told, 'cs_to_pay', 'https://checkout.example', now(),
       CASE '{state}' WHEN 'needs_action' THEN now() END
  FROM payment_attempts WHERE id = :attempt
"""
_OWE = """
UPDATE invoices SET status = 'open', paid_at = NULL, amount_credited = 0, amount_refunded = 900
"""
_DIFFER = """
INSERT INTO reconciliation_differences (reconciliation_id, difference, stripe_id, currency, ours,
                                        theirs, our_amount, their_amount, repaired, rechecked_at)
SELECT id, 'payment_amount', :intent, 'usd', 'succeeded', 'succeeded', 1000, 900, {repaired}, {at}
  FROM reconciliations
"""
_LEAVE = "INSERT INTO chaos_marks VALUES (:marked, {mark})"

JOBS: dict[str, _Harm] = {
    "job prune {fired} is dead (poison None)": _sql(
        "UPDATE jobs SET state = 'dead', reason = 'poison' WHERE id = :fired"
    ),
    "job prune {fired} is ready (None None)": _sql(
        "UPDATE jobs SET state = 'ready', finished_at = NULL WHERE id = :fired"
    ),
    "job prune {fired} is scheduled (None None)": _sql(
        "UPDATE jobs SET state = 'scheduled', finished_at = NULL,"
        " run_at = now() + interval '5 seconds' WHERE id = :fired"
    ),
    "job {bill} was accepted and is gone": _sql("DELETE FROM jobs WHERE id = :bill"),
    "job {fired} was rolled back and is there": lambda world: world.business.rolled_back.append(
        world.id_of("fired")
    ),
    "job {fired} was cancelled and started all the same": (
        lambda world: world.business.cancelled.append(world.id_of("fired"))
    ),
    "job {fired} was fired by no schedule's time": _sql("DELETE FROM schedule_fires"),
    "prune fired for {fire_at} and has no job": _sql("DELETE FROM jobs WHERE id = :fired"),
    "job {marked} is succeeded and ended 2 times; 1 of its runs committed 1 beginnings": _sql(
        _LEAVE.format(mark="'end', 2")
    ),
    "job {marked} is succeeded and ended 0 times; 1 of its runs committed 1 beginnings": _sql(
        "DELETE FROM chaos_marks WHERE part = 'end'"
    ),
    "job {marked} is succeeded and ended 1 times; 1 of its runs committed 2 beginnings": _sql(
        _LEAVE.format(mark="'beginning', 1")
    ),
    "job {marked} is skipped and ended 1 times; 1 of its runs committed 1 beginnings": _sql(
        "UPDATE jobs SET state = 'skipped' WHERE id = :marked"
    ),
}

REQUESTS: dict[str, _Harm] = {
    "the charge call-1 was asked for once and made 0 times": _sql(
        "DELETE FROM charges WHERE description = 'call-1'"
    ),
    "the charge call-1 was asked for once and made 2 times": _sql(
        _RECORD.format(description="description")
    ),
    "the charge call-9 was made and never answered": _sql(_RECORD.format(description="'call-9'")),
    "the deposit call-2 was asked for once and made 0 times": _sql(
        "DELETE FROM credit_entries WHERE note = 'call-2'"
    ),
    "the deposit call-2 was asked for once and made 2 times": _sql(_DEPOSIT.format(note="note")),
    "the deposit call-9 was made and never answered": _sql(_DEPOSIT.format(note="'call-9'")),
    "event {event} was taken and is gone": _sql(
        "DELETE FROM webhook_events WHERE event_id = :event"
    ),
    "event {event} could not be told": lambda world: world.stripe.told[0].update(state="pending"),
    "event {event} was taken and not handled": _sql(
        "UPDATE webhook_events SET handled_at = NULL WHERE event_id = :event"
    ),
    "event sg_lost was taken and is gone": lambda world: world.sendgrid.tell("sg_lost", status=204),
    "event sg_waiting could not be told": lambda world: world.sendgrid.tell(
        "sg_waiting", status=None
    ),
    "charge {billed} was to come to 700 and comes to 1000": _amend(700),
    "charge {billed} was to come to 1000 and comes to 700": _both(
        _amend(1_000), _sql(_CORRECT.format(invoice="NULL"))
    ),
}

MONEY: dict[str, _Harm] = {
    "attempt {attempt} was charged 2 times": (
        lambda world: world.stripe.intents.append(world.stripe.intents[0])
    ),
    "attempt {attempt} was charged 900, recorded 1000": _say_of_stripe(amount_received=900),
    "attempt {attempt} was charged 1000, recorded None": _sql(
        "DELETE FROM payments WHERE attempt_id = :attempt"
    ),
    "attempt {attempt} is recorded as paid and was never charged": _say_of_stripe(
        status="canceled"
    ),
    "invoice {invoice} took 900 of 1000 that its card paid": _sql(
        "UPDATE payments SET applied = 900 WHERE attempt_id = :attempt"
    ),
    "attempt {attempt} has no outcome": _sql(
        "UPDATE payment_attempts SET state = 'unknown', next_ask_at = now()"
    ),
    "refund {refund} was given back 2 times": (
        lambda world: world.stripe.refunds.append(world.stripe.refunds[0])
    ),
    "refund {refund} gave back 200, recorded 300": _say_of_the_refund(amount=200),
    "refund {refund} gave back 300, recorded None": _sql("DELETE FROM refunds"),
    "refund {refund} is recorded as given back and never was": _say_of_the_refund(status="failed"),
    "refund {refund} is {stripe_refund} here and re_other at Stripe": _say_of_the_refund(
        id="re_other"
    ),
    "refund {refund} is of {intent} here and pi_other at Stripe": _say_of_the_refund(
        payment_intent="pi_other"
    ),
    "refund {refund} is in usd here and eur at Stripe": _say_of_the_refund(currency="eur"),
}

STRIPE: dict[str, _Harm] = {
    "attempt {attempt} is of acct_other and was made at acct_sandbox": (
        lambda world: world.business.stripe_accounts.update(
            dict.fromkeys(world.business.accounts, "acct_other")
        )
    ),
    "page {page} is needs_action here and complete at Stripe": _page("needs_action", "complete"),
    "page {page} is canceled here and open at Stripe": _page("canceled", "open"),
    "page {page} is open, and its invoice is paid": _page("needs_action", "open"),
    "page {page} asks for 1000, and 900 is due": _both(_sql(_OWE), _page("needs_action", "open")),
    "page {card_page} for a card is open here and expired at Stripe": _say_of_the_card_page(
        status="expired"
    ),
    "dispute {dispute} is needs_response at Stripe and not known here": _sql(
        "DELETE FROM disputes"
    ),
    "dispute {dispute} is known here and not at Stripe": lambda world: (
        world.stripe.disputes.clear()
    ),
    "dispute {dispute} is open here and lost at Stripe": _say_of_the_dispute(status="lost"),
    "dispute {dispute} is about 100 here and 90 at Stripe": _say_of_the_dispute(amount=90),
    "dispute {dispute} is of {intent} here and pi_other at Stripe": _say_of_the_dispute(
        payment_intent="pi_other"
    ),
    "dispute {dispute} moved -100 here and 0 at Stripe": _say_of_the_dispute(
        balance_transactions=[]
    ),
    "Stripe holds 600 for invoice {invoice}, our payments say 0": _sql(
        "UPDATE payments SET (invoice_id, applied) = (NULL, 0)"
    ),
    "Stripe holds 600 for client {client}, its ledger says -400": _sql(
        "DELETE FROM ledger_postings USING ledger_entries WHERE ledger_entries.id = entry_id"
        " AND event = 'card_payment'"
    ),
    "reconciliation {reconciliation} has not finished": _sql(
        "UPDATE reconciliations SET finished_at = NULL"
    ),
    "reconciling found payment_amount of {intent}: succeeded 1000 here, succeeded 900 at Stripe": (
        _sql(_DIFFER.format(repaired="true", at="NULL"))
    ),
}

MAILS: dict[str, _Harm] = {
    "mail {mail} went out 2 times": (
        lambda world: world.sendgrid.taken.append(world.sendgrid.taken[0])
    ),
    "ada@maple.example had two mails {kind} about {subject}": _send_two_about_the_same,
    "mail {mail} went out and is refused": _sql(
        "UPDATE mails SET state = 'refused' WHERE id = :mail"
    ),
    "mail {mail} went out and is None": _sql("DELETE FROM mails WHERE id = :mail"),
    "mail {mail} is accepted and never went out": lambda world: world.sendgrid.taken.pop(0),
    "mail {mail} waits to be sent": _never_send,
}

BOOKS: dict[str, _Harm] = {
    "invoice {invoice} was finalized twice": _sql(
        "DROP INDEX uq_ledger_entries_invoice_event",
        "INSERT INTO ledger_entries (account_id, client_id, invoice_id, event, currency,"
        " effective_on) SELECT account_id, client_id, invoice_id, event, currency, effective_on"
        " FROM ledger_entries WHERE event = 'finalize'",
    ),
    "client {client} has two invoices in usd for {period}": _sql(
        "DROP INDEX uq_invoices_period_id_currency",
        "INSERT INTO invoices (account_id, client_id, period_id, currency, subtotal, total)"
        " SELECT account_id, client_id, period_id, currency, 0, 0 FROM invoices",
    ),
    "charge {charge} was left behind by its period's invoice": _sql(
        "UPDATE charges SET (charged_on, created_at) = (SELECT period_start, starts_at"
        " FROM billing_periods WHERE id = :period) WHERE id = :charge"
    ),
    "period {period} is failed (out of ink)": _sql(
        "UPDATE billing_periods SET state = 'failed', error = 'out of ink' WHERE id = :period"
    ),
    "period {period} is open (None)": _sql(
        "UPDATE billing_periods SET state = 'open' WHERE id = :period"
    ),
    "period {period} is drafted (None)": _sql(_DRAFT.format(review_ends_at="now()"), _DRAFTED),
    "entry {finalizing} counts for {issued_on}, in books that were closed": _both(
        _close_books,
        _sql(
            "UPDATE ledger_entries SET posted_at = clock_timestamp() + interval '1 second'"
            " WHERE event = 'finalize'"
        ),
    ),
    ("audit: numbers_are_gapless: invoice began with 1, next is 9, 1 are given, from 1 to 1"): _sql(
        "UPDATE number_series SET next_number = 9 WHERE document = 'invoice'"
    ),
}

BROKEN = JOBS | REQUESTS | MONEY | STRIPE | MAILS | BOOKS
"""What breaks a promise, by the sentence that it is then said to be broken with."""

KEPT: dict[str, _Harm] = {
    "a job waits for a time that is far off": _sql(
        "UPDATE jobs SET state = 'scheduled', finished_at = NULL,"
        " run_at = now() + interval '1 hour' WHERE id = :fired"
    ),
    "a job was cancelled before it started": _cancel,
    "a refund has failed": lambda world: world.stripe.refunds.append({"status": "failed"}),
    "a card was declined": lambda world: world.stripe.intents.append(
        world.stripe.intents[0] | {"status": "requires_payment_method"}
    ),
    "a charge comes to what was asked for": _both(
        _amend(700), _sql(_CORRECT.format(invoice="NULL"))
    ),
    "a charge was amended, and the amendment is void": _both(
        _amend(700),
        _sql(
            _CORRECT.format(invoice=":invoice"),
            "UPDATE invoices SET (status, voided_at) = ('void', now())",
        ),
    ),
    "a page is open for what is due": _both(_sql(_OWE), _page("needs_action", "open", amount=900)),
    "a page is open of which nobody was given the address": _page_at_stripe("open"),
    "a reconciliation found what a later one found no more": _sql(
        "UPDATE reconciliations SET requested_by = 'test'",
        _DIFFER.format(repaired="false", at="now()"),
    ),
    "a reconciliation mended something while things broke": _sql(
        "UPDATE reconciliations SET requested_by = 'test'",
        _DIFFER.format(repaired="true", at="NULL"),
    ),
    "books were closed after what was posted": _close_books,
    "a draft waits for a person": _sql(_DRAFT.format(review_ends_at="NULL"), _DRAFTED),
    "nobody knows what became of a mail": _sql(
        "UPDATE mails SET state = 'unknown' WHERE id = :mail"
    ),
    "a period is not over": _sql(
        "UPDATE billing_periods SET state = 'open', ends_at = now() + interval '1 hour'"
        " WHERE id = :period"
    ),
}
"""What looks like it, and may be so."""


def test_nothing_is_said_of_a_true_world(world: _World) -> None:
    assert world.said() == []


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_broken_promise_is_told_in_its_own_sentence_and_no_other(
    world: _World, sentence: str
) -> None:
    BROKEN[sentence](world)

    expected = sentence.format(**world.names)
    # The audit sees much of it as well, and so do the sums.
    others = ("audit: ", "Stripe holds ")
    said = [one for one in world.said() if one == expected or not one.startswith(others)]
    assert said == [expected]


@pytest.mark.parametrize("what", KEPT)
def test_what_may_be_so_is_not_told(world: _World, what: str) -> None:
    KEPT[what](world)

    assert [one for one in world.said() if not one.startswith("audit: ")] == []


def test_all_is_told_once_no_event_waits(world: _World) -> None:
    assert all_told(world.stripe, world.sendgrid)

    world.stripe.told.append({"event": "evt_waiting", "state": "pending"})

    assert not all_told(world.stripe, world.sendgrid)


def test_all_is_told_once_no_event_of_a_mail_waits(world: _World) -> None:
    world.sendgrid.tell("sg_taken", status=204)
    assert all_told(world.stripe, world.sendgrid)

    world.sendgrid.tell("sg_waiting", status=503)

    assert not all_told(world.stripe, world.sendgrid)
