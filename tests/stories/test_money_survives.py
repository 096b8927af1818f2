"""Charges, credit and mails while parts of the system die."""

import redis
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
from models import Job
from tasks.calls import Gateways
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tests.processes import Stack
from tests.stories.conftest import Business, Till, hold
from tests.waiting import wait_for
from tests.worlds import a_charge, work

HELD_SECONDS = 5.0
"""How long Stripe keeps a charge to itself: until the worker is dead, and not much longer."""

LATE_SECONDS = 1.5
"""How late an answer is that still comes in time: there is a lock to be taken before it."""


def test_a_worker_killed_anywhere_around_its_charges_charges_each_once(
    business: Business, till: Till, trading: Stack, vendors: Gateways
) -> None:
    unwritten, unmade, unanswered, unrecorded = clients = [
        business.monthly_client(name, months_ago=1)
        for name in ("Before the call", "On its way", "Charged", "Answered")
    ]
    for client in clients:
        till.put_on_card(client, "pm_card_visa")
    # The cards are looked at before, so that each charge has a thread of its own.
    work(business.engine, gateways=vendors, queues=["payments"])
    business.request_run()
    work(business.engine)
    till.delay(unmade, HELD_SECONDS, after_effect=False)
    till.delay(unanswered, HELD_SECONDS, after_effect=True)
    till.delay(unrecorded, LATE_SECONDS, after_effect=True)
    trading.start("dispatcher")

    with Session(business.engine) as holding:
        hold(holding, unwritten)
        victim = trading.start("payments")
        wait_for(lambda: till.requests(unrecorded) == [None])
        hold(holding, unrecorded)
        wait_for(lambda: till.requests(unrecorded) == [200])
        wait_for(lambda: till.requests(unmade) == till.requests(unanswered) == [None])
        wait_for(lambda: _waiting_for_locks(business.engine) == 2)
        assert [till.requests(client) for client in clients] == [[], [None], [None], [200]]
        assert [len(till.charged(client)) for client in clients] == [0, 0, 1, 1]
        trading.kill(victim)
    assert [len(till.payments(client)) for client in clients] == [0, 0, 0, 0]
    trading.start("payments")
    wait_for(lambda: all(till.invoice(client).status == "paid" for client in clients))

    for client in clients:
        assert till.charged(client) == [2_000]
        assert [payment.amount for payment in till.payments(client)] == [2_000]
        assert [attempt.state for attempt in till.attempts(client)] == ["succeeded"]
    assert business.jobs(Job.kind == "collect_client", Job.rescues == 1) == 4
    assert business.audit_is_clean()


def test_redis_flushed_in_the_middle_of_a_charge_charges_once(
    business: Business, till: Till, trading: Stack
) -> None:
    client = business.monthly_client("Ada Imports", months_ago=1)
    till.put_on_card(client, "pm_card_visa")
    till.delay(client, 2.0, after_effect=False)
    for process in ("dispatcher", "everything"):
        trading.start(process)

    business.request_run()
    wait_for(lambda: till.requests(client) == [None])
    with redis.Redis.from_url(trading.redis.url) as doorbell:
        doorbell.flushall()
    assert till.requests(client) == [None]
    # What comes after the flush is heard as well.
    later = business.monthly_client("Bell Books", months_ago=1)
    till.put_on_card(later, "pm_card_visa")
    business.request_run()
    wait_for(lambda: till.charged(client) == till.charged(later) == [2_000])
    wait_for(business.all_is_done)

    assert [invoice.status for invoice in business.invoices()] == ["paid", "paid"]
    assert till.requests(client) == till.requests(later) == [200]
    assert [payment.amount for payment in till.payments(client)] == [2_000]
    assert business.audit_is_clean()


def test_credit_is_spent_once_by_two_invoices_finalized_at_once(
    business: Business, till: Till, trading: Stack
) -> None:
    client = business.monthly_client("Ada Imports", months_ago=1, charges_per_month=0)
    till.deposit(client, 1_000)
    for _ in range(2):
        charge = a_charge(business.engine, client, business.month_start(1))
        till.ask(draft_invoice, client_id=client.id, charge_ids=[charge])
    work(business.engine)
    for invoice in business.invoices():
        till.ask(finalize_invoice, invoice_id=invoice.id)

    with Session(business.engine) as holding:
        hold(holding, client)
        for process in ("dispatcher", "worker"):
            trading.start(process)
        wait_for(lambda: _waiting_for_locks(business.engine) == 2)
    wait_for(business.all_is_done)

    assert [
        (invoice.number, invoice.status, invoice.credit_applied, invoice.amount_due)
        for invoice in business.invoices()
    ] == [("INV-000001", "paid", 1_000, 0), ("INV-000002", "open", 0, 1_000)]
    assert till.balance(client) == 0
    assert business.audit_is_clean()


def test_while_sendgrid_is_down_all_is_billed_and_charged_and_each_mail_follows_once(
    business: Business,
    till: Till,
    trading: Stack,
    sendgrid_sandbox: SendGridSandbox,
    sendgrid_control: SendGridControl,
) -> None:
    clients = [
        business.monthly_client(name, months_ago=1, email=f"{name.lower()}@example.com")
        for name in ("Ada", "Bell", "Cole")
    ]
    for client in clients:
        till.put_on_card(client, "pm_card_visa")
    sendgrid_sandbox.kill()

    business.request_run()
    for process in ("dispatcher", "everything"):
        trading.start(process)
    wait_for(lambda: business.jobs(Job.kind == "send_mail", Job.state == "scheduled") == 6)
    assert [till.invoice(client).status for client in clients] == ["paid"] * 3
    assert [till.charged(client) for client in clients] == [[2_000]] * 3

    sendgrid_sandbox.start()
    till.skip_waits()
    wait_for(business.all_is_done)

    for client in clients:
        assert [(mail.kind, mail.state) for mail in till.mails(client)] == [
            ("invoice_ready", "accepted"),
            ("receipt", "accepted"),
        ]
    sent = [mail.custom_args["mail"] for mail in sendgrid_control.mails()]
    assert sorted(sent) == sorted(str(mail.id) for c in clients for mail in till.mails(c))
    assert business.audit_is_clean()


def _waiting_for_locks(engine: Engine) -> int:
    with engine.connect() as connection:
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return connection.scalar(waiting) or 0
