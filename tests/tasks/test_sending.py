from datetime import date, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.declines import DeclineClass
from billing.errors import NotFound
from gateways.documents import CreditNoteDocument, InvoiceDocument, StatementDocument
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.sendgrid.faults import Fault, FaultKind
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, Invoice, Job, PaymentAttempt
from tasks import sending
from tasks.accounts import change_account
from tasks.announcing import send_invoice
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.enqueueing import enqueue
from tasks.kinds import JobKind
from tasks.marking_paid import mark_invoice_paid
from tasks.sending import send_mail
from tasks.voiding import void_invoice
from tests.cards import (
    AUTHENTICATED,
    EXPIRED,
    HARD,
    SOFT,
    Killed,
    die,
    expire_leases,
    give_card,
    give_unknown_card,
    invoice_of,
    take_card,
)
from tests.mailbox import (
    HALF_AN_HOUR,
    MAY_5,
    Read,
    a_queued_mail,
    inbox,
    mail_of,
    mails_of,
    monthly,
    pdf_text,
    send,
    send_later,
    watched,
)
from tests.money import an_invoice, deposit
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    audited,
    bill,
    charges,
    invoices_of,
    perform,
    tick,
    together,
    work,
)

MINUTE = timedelta(minutes=1)


def job_of(engine: Engine, mail_id: UUID) -> Job:
    with Session(engine) as session:
        return session.scalars(select(Job).where(Job.args["mail_id"].astext == str(mail_id))).one()


def last(control: SendGridControl) -> Read:
    return inbox(control)[-1]


def test_a_month_ends_with_one_mail_and_its_invoice_attached(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    mail = a_queued_mail(engine, account, name="Ada Imports")
    send(engine, vendors)

    [read] = inbox(sendgrid_control)
    assert read.sender == "Bluebird Prep <billing@bluebird-prep.example>"
    assert read.recipient == "Ada Imports <ada@maple.example>"
    assert read.subject == "Invoice Ready For Payment: INV-000001 from Bluebird Prep"
    assert read.says(
        "INV-000001 (1 - 31 May 2026) Amount due: 10.00 USD Due by: 15 June 2026",
        "To pay, open the invoice by its link above.",
        "To pay in another way, reply to this email",
        "The invoice is attached as a PDF.",
    )
    assert "The invoice is attached as a PDF." in read.html
    [(name, pdf)] = read.attached.items()
    assert name == "INV-000001.pdf"
    text = pdf_text(pdf)
    assert all(one in text for one in ("INV-000001", "AdaImports", "Amountdue10.00USD"))
    after = mail_of(engine, mail.id)
    assert (after.state, after.claimed_at, after.sent_at) == ("accepted", NOW, NOW)
    assert after.message_id == sendgrid_control.mails()[0].message_id
    assert job_of(engine, mail.id).result == {"mail": str(mail.id), "state": "accepted"}


def test_many_months_and_currencies_are_one_mail_with_a_document_each(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    client = monthly(engine, account, billing_starts_on=date(2026, 3, 1))
    for month in (3, 4, 5):
        a_charge(engine, client, date(2026, month, 2))
        a_charge(engine, client, date(2026, month, 2), "900", currency="jpy")
    bill(engine, account, now=NOW)
    send(engine, vendors)

    [read] = inbox(sendgrid_control)
    assert read.subject == "Invoice Ready For Payment: 6 invoices from Bluebird Prep"
    assert read.says("Your 6 new invoices are ready.", "The invoices are attached as PDFs.")
    assert [*read.attached] == [f"INV-{number:06}.pdf" for number in range(1, 7)]
    assert read.text.count("900 JPY") == read.text.count("10.00 USD") == 3


@pytest.mark.parametrize(("limit", "value"), [("MAX_ATTACHED", 2), ("MAX_ATTACHED_BYTES", 70_000)])
def test_no_more_documents_are_attached_than_a_mail_may_hold(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    sendgrid_control: SendGridControl,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
) -> None:
    client = monthly(engine, account, billing_starts_on=date(2026, 1, 1))
    charges(engine, client, [(date(2026, month, 2), "1.00") for month in range(1, 6)])
    bill(engine, account, now=NOW)
    monkeypatch.setattr(sending, limit, value)
    send(engine, vendors)

    [read] = inbox(sendgrid_control)
    count = len(read.attached)
    assert [*read.attached] == [f"INV-{number:06}.pdf" for number in range(1, count + 1)]
    assert 1 <= count < 5
    first = "first of" if count == 1 else f"first {count} of"
    assert read.says(f"The {first} these invoices", "Ask us for the others.")
    assert all(f"INV-{number:06}" in read.text for number in range(1, 6))


def test_what_was_due_at_the_runs_end_is_told_even_if_the_card_was_faster(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
) -> None:
    client = monthly(engine, account, "10.00")
    give_card(engine, stripe_sandbox, client)
    deposit(engine, account, client, 400)
    tick(engine, now=NOW)
    work(engine, now=NOW, gateways=vendors, queues=["payments"])
    [invoice] = invoices_of(engine, client)
    assert invoice.status == "paid"
    send(engine, vendors)

    deposited, ready, receipt = inbox(sendgrid_control)
    assert deposited.subject == "Receipt: your payment of 4.00 USD to Bluebird Prep"
    assert ready.subject.startswith("Invoice Ready For Payment: INV-000001")
    assert ready.says(
        "Amount due: 6.00 USD Due by: 15 June 2026 Total: 10.00 USD Credit applied: 4.00 USD",
        "We will charge the card that you have on file with us. There is nothing you need to do.",
    )
    assert receipt.subject == "Receipt: your payment of 6.00 USD to Bluebird Prep"
    assert receipt.says(
        "Paid on: 1 June 2026", "Method: Visa ending in 4242", "There is nothing left to pay"
    )
    assert [*receipt.attached] == ["INV-000001.pdf"]
    assert audited(engine, account) == []


def test_a_remainder_too_small_for_the_card_is_said_to_join_the_next_invoice(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
) -> None:
    client = monthly(engine, account, "0.30")
    give_card(engine, stripe_sandbox, client)
    tick(engine, now=NOW)
    work(engine, now=NOW, gateways=vendors, queues=["payments"])
    assert invoices_of(engine, client)[0].status == "paid"
    send(engine, vendors)

    [read] = inbox(sendgrid_control)
    assert read.says(
        "Amount due: 0.30 USD",
        "INV-000001 comes to less than can be charged to a card. We will add it to your next",
    )
    assert not read.says("We will charge the card")
    document = pdf_text(read.attached["INV-000001.pdf"])
    assert "Carriedtoyournextinvoice-0.30USD" in document
    assert "0.30USDistoolittleforacard,andiscarriedtoyournextinvoice." in document


def test_a_receipt_comes_instead_when_credit_paid_all(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    client = monthly(engine, account, "10.00")
    deposit(engine, account, client, 1000)
    tick(engine, now=NOW)
    send(engine, vendors)

    read = last(sendgrid_control)
    assert read.subject == "Receipt: INV-000001 from Bluebird Prep paid from your credit"
    assert read.says("Your credit balance paid the invoice below.", "Status: Paid")
    assert [*read.attached] == ["INV-000001.pdf"]


def test_an_outside_payment_is_thanked_for_with_its_date_method_and_what_became_of_it(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    client = a_client(engine, account, email="ada@maple.example")
    invoice = an_invoice(engine, account, client)
    perform(
        engine,
        mark_invoice_paid,
        account,
        invoice_id=invoice.id,
        amount=300,
        method="cash",
        paid_on=date(2026, 5, 31),
    )
    # What it says is as it stands when it is sent: after the first payment, before the second.
    send(engine, vendors)
    perform(
        engine,
        mark_invoice_paid,
        account,
        invoice_id=invoice.id,
        amount=1000,
        overpayment="credit",
    )
    send(engine, vendors)

    _, part, rest = inbox(sendgrid_control)
    assert part.subject == "Receipt: your payment of 3.00 USD to Bluebird Prep"
    assert part.says("Paid on: 31 May 2026", "Method: Cash", "Amount due: 7.00 USD")
    assert not part.says("nothing left to pay")
    assert rest.says(
        "payment of 10.00 USD", "3.00 USD was added to your credit balance", "nothing left to pay"
    )
    assert not rest.says("Method")
    assert "Paid-10.00USD" in pdf_text(rest.attached["INV-000001.pdf"])


def test_a_deposit_is_thanked_for_without_an_attachment(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    client = a_client(engine, account, email="ada@maple.example")
    deposit(engine, account, client, 4000)
    send(engine, vendors)

    [read] = inbox(sendgrid_control)
    assert read.subject == "Receipt: your payment of 40.00 USD to Bluebird Prep"
    assert read.says("40.00 USD was added to your credit balance")
    assert read.attached == {}
    assert not read.says("attached")


def failed_mail(
    engine: Engine, vendors: Gateways, control: SendGridControl, client: Client, account: Account
) -> Read:
    an_invoice(engine, account, client, collect=True)
    work(engine, now=NOW, gateways=vendors, queues=["payments", "mail"])
    return next(one for one in inbox(control) if not one.subject.startswith("Invoice Ready"))


@pytest.mark.parametrize(
    ("zone", "day"), [("UTC", "4 June 2026"), ("Pacific/Kiritimati", "5 June 2026")]
)
def test_a_soft_decline_is_told_with_the_next_tries_date_in_the_clients_zone(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
    zone: str,
    day: str,
) -> None:
    # Noon in London is two in the morning of the next day on Kiritimati.
    client = a_client(engine, account, email="ada@maple.example", time_zone=zone)
    give_card(engine, stripe_sandbox, client, SOFT)
    read = failed_mail(engine, vendors, sendgrid_control, client, account)

    assert read.subject == "Payment failed: INV-000001 from Bluebird Prep"
    assert read.says(
        "We tried to charge your card 10.00 USD for invoice INV-000001",
        "Reason: Your card has insufficient funds.",
        f"We will try again on {day}.",
    )
    # Its invoice came with the mail that announced it.
    assert read.attached == {}
    assert "attached" not in read.text + read.html


@pytest.mark.parametrize(
    ("card", "reason"),
    [(HARD, "Your card was declined."), (EXPIRED, "Your card has expired.")],
)
def test_a_card_that_is_of_no_use_is_to_be_replaced(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
    card: str,
    reason: str,
) -> None:
    client = a_client(engine, account, email="ada@maple.example")
    give_card(engine, stripe_sandbox, client, card)
    read = failed_mail(engine, vendors, sendgrid_control, client, account)

    assert read.subject == ("Payment failed, another card is needed: INV-000001 from Bluebird Prep")
    assert read.says(f"Reason: {reason}", "This card cannot be used.")
    assert not read.says("try again")


def test_a_bank_that_wants_the_client_is_told_as_that(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
) -> None:
    client = a_client(engine, account, email="ada@maple.example")
    give_card(engine, stripe_sandbox, client, AUTHENTICATED)
    read = failed_mail(engine, vendors, sendgrid_control, client, account)

    assert read.subject == "Please confirm your payment: INV-000001 from Bluebird Prep"
    assert read.says("Your bank wants you to confirm this payment, so nothing was charged yet.")
    assert read.says(
        "open the invoice, press the button there, and follow what your bank asks: http://duecourse.example/i/"
    )
    assert not read.says("try again")


def test_what_stripe_tells_developers_is_not_told_to_the_client(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    client = a_client(engine, account, email="ada@maple.example")
    give_unknown_card(engine, client)
    read = failed_mail(engine, vendors, sendgrid_control, client, account)

    with Session(engine) as session:
        attempt = session.scalars(select(PaymentAttempt)).one()
    assert attempt.decline_class == DeclineClass.NEEDS_NEW_CARD
    assert "cus_nobody" in str(attempt.message)
    assert read.says("Reason: The card could not be charged.", "This card cannot be used.")
    assert "cus_nobody" not in read.text + read.html


def test_a_failure_is_not_told_once_the_invoice_is_paid_or_void(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
) -> None:
    client = a_client(engine, account, email="ada@maple.example")
    give_card(engine, stripe_sandbox, client, SOFT)
    paid = an_invoice(engine, account, client, collect=True)
    work(engine, now=NOW, gateways=vendors, queues=["payments"])
    perform(engine, mark_invoice_paid, account, invoice_id=paid.id)
    take_card(engine, client)
    give_card(engine, stripe_sandbox, client, SOFT)
    void = an_invoice(engine, account, client, collect=True)
    work(engine, now=NOW, gateways=vendors, queues=["payments"])
    perform(engine, void_invoice, account, invoice_id=void.id)
    send(engine, vendors)

    failures = [mail for mail in mails_of(engine, client) if mail.kind == "payment_failed"]
    assert [(mail.state, mail.reason) for mail in failures] == [
        ("suppressed", "invoice_paid"),
        ("suppressed", "invoice_void"),
    ]
    assert not any("failed" in read.subject for read in inbox(sendgrid_control))


def test_an_invoice_voided_before_its_mail_was_sent_is_not_sent(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    mail = a_queued_mail(engine, account)
    perform(engine, void_invoice, account, invoice_id=mail.invoice_ids[0])
    send(engine, vendors)

    assert inbox(sendgrid_control) == []
    after = mail_of(engine, mail.id)
    assert (after.state, after.reason) == ("suppressed", "invoice_void")
    job = job_of(engine, mail.id)
    assert (job.state, job.reason) == ("skipped", "invoice_void")


def test_a_void_invoice_among_others_is_left_out(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    client = monthly(engine, account, "10.00")
    a_charge(engine, client, MAY_5, "7.00", currency="eur")
    tick(engine, now=NOW)
    void, kept = sorted(invoices_of(engine, client), key=lambda invoice: invoice.total)
    perform(engine, void_invoice, account, invoice_id=void.id)
    send(engine, vendors)

    [read] = inbox(sendgrid_control)
    assert read.subject == f"Invoice Ready For Payment: {kept.number} from Bluebird Prep"
    assert str(void.number) not in read.text + read.html
    assert [*read.attached] == [f"{kept.number}.pdf"]


def test_two_clients_with_one_address_get_a_mail_each(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    for name in ("Ada", "Bob"):
        monthly(engine, account, "10.00", name=name)
    tick(engine, now=NOW)
    send(engine, vendors)

    assert sorted(mail.recipient for mail in inbox(sendgrid_control)) == [
        "Ada <ada@maple.example>",
        "Bob <ada@maple.example>",
    ]


def test_whatever_names_hold_arrives_as_it_is_and_adds_no_header(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    sendgrid_control: SendGridControl,
    session: Session,
) -> None:
    change_account(session, account.id, {"name": 'Blåbär "& Söhne", <b>株式会社</b>'}, now=NOW)
    session.commit()
    client = monthly(engine, account, name="Zoë\r\nBcc: all@maple.example {{ 7 * 7 }} 🦆")
    a_charge(engine, client, MAY_5, description="Größe #1 *bold* <i>$x$</i> \\ @ref 한국")
    tick(engine, now=NOW)
    send(engine, vendors)

    [read] = inbox(sendgrid_control)
    assert read.subject.endswith('from Blåbär "& Söhne", <b>株式会社</b>')
    assert "Hello Zoë Bcc: all@maple.example {{ 7 * 7 }} 🦆," in read.text
    assert "&lt;b&gt;株式会社&lt;/b&gt;" in read.html
    [sent] = sendgrid_control.mails()
    assert sent.recipients == ["ada@maple.example"]
    text = pdf_text(read.attached["INV-000001.pdf"])
    assert "Größe#1*bold*<i>$x$</i>\\@ref" in text


def test_one_mail_is_sent_once_by_workers_at_once(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    mail = a_queued_mail(engine, account)
    with Session(engine) as session, session.begin():
        for _ in range(3):
            enqueue(session, send_mail, account_id=account.id, requested_by="test", mail_id=mail.id)

    answers = together(*[partial(send, engine, vendors)] * 4)

    assert answers == [None] * 4
    assert len(inbox(sendgrid_control)) == 1
    send_later(engine, vendors, now=NOW)
    assert len(sendgrid_control.requests()) == 1
    assert mail_of(engine, mail.id).state == "accepted"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_that_dies_around_the_hand_over_sends_it_at_most_once(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    sendgrid_control: SendGridControl,
    moment: str,
) -> None:
    mail = a_queued_mail(engine, account)
    with pytest.raises(Killed):
        send(
            engine,
            watched(vendors, before=die) if moment == "before" else watched(vendors, after=die),
        )
    taken = len(inbox(sendgrid_control))
    assert taken == (moment == "after")
    expire_leases(engine)

    send_later(engine, vendors, now=NOW + MINUTE)
    assert mail_of(engine, mail.id).state == "claimed"
    send_later(engine, vendors, now=NOW + HALF_AN_HOUR - MINUTE)
    assert mail_of(engine, mail.id).state == "claimed"
    send_later(engine, vendors, now=NOW + HALF_AN_HOUR)

    after = mail_of(engine, mail.id)
    assert after.state == "unknown"
    assert after.reason == "no reply and no event told whether it was taken"
    assert len(inbox(sendgrid_control)) == taken
    assert job_of(engine, mail.id).state == "succeeded"


def test_staff_may_send_again_what_is_unknown(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    mail = a_queued_mail(engine, account)
    sendgrid_control.fail(Fault(kind=FaultKind.LOST_REPLY))
    send(engine, vendors)
    send_later(engine, vendors, now=NOW + HALF_AN_HOUR)

    perform(engine, send_invoice, account, invoice_id=mail.invoice_ids[0])
    send(engine, vendors)

    with Session(engine) as session:
        client = session.get_one(Client, mail.client_id)
    assert [one.state for one in mails_of(engine, client)] == ["unknown", "accepted"]


@pytest.mark.parametrize(("kind", "taken"), [(FaultKind.LOST_REPLY, 1), (FaultKind.RESET, 0)])
def test_a_mail_whose_reply_was_lost_is_not_sent_again_and_unknown_half_an_hour_later(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    sendgrid_control: SendGridControl,
    kind: FaultKind,
    taken: int,
) -> None:
    mail = a_queued_mail(engine, account)
    sendgrid_control.fail(Fault(kind=kind))
    send(engine, vendors)
    waiting = mail_of(engine, mail.id)
    assert (waiting.state, waiting.sent_at) == ("claimed", None)
    assert "no answer" in str(waiting.reason)

    for minutes in (1, 29):
        send_later(engine, vendors, now=NOW + minutes * MINUTE)
        assert mail_of(engine, mail.id).state == "claimed"
    send_later(engine, vendors, now=NOW + HALF_AN_HOUR)
    after = mail_of(engine, mail.id)
    assert (after.state, after.reason) == ("unknown", waiting.reason)
    send_later(engine, vendors, now=NOW + 2 * HALF_AN_HOUR)
    assert len(inbox(sendgrid_control)) == taken
    assert len(sendgrid_control.requests()) == 1


def test_a_mail_that_sendgrid_refuses_is_refused_with_its_reason_and_not_tried_again(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    mail = a_queued_mail(engine, account, email="ada at maple")
    send(engine, vendors)
    send_later(engine, vendors, now=NOW + MINUTE)

    after = mail_of(engine, mail.id)
    assert after.state == "refused"
    assert "Does not contain a valid address." in str(after.reason)
    assert job_of(engine, mail.id).state == "succeeded"
    assert len(sendgrid_control.requests()) == 1


@pytest.mark.parametrize("status", [503, 429, 401])
def test_sendgrid_away_delays_mails_and_nothing_else(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
    status: int,
) -> None:
    client = monthly(engine, account, "10.00")
    give_card(engine, stripe_sandbox, client)
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS, status=status, times=20))
    tick(engine, now=NOW)
    work(engine, now=NOW, gateways=vendors)
    for minutes in range(1, 10):
        send_later(engine, vendors, now=NOW + minutes * MINUTE)

    [invoice] = invoices_of(engine, client)
    assert invoice_of(engine, invoice.id).status == "paid"
    assert {mail.state for mail in mails_of(engine, client)} == {"queued"}
    waiting = job_of(engine, mails_of(engine, client)[0].id)
    assert (waiting.state, waiting.attempt) == ("scheduled", 0)
    assert str(status) in str(waiting.error)

    send_later(engine, vendors, now=NOW + HALF_AN_HOUR)
    assert {mail.state for mail in mails_of(engine, client)} == {"accepted"}
    assert len(inbox(sendgrid_control)) == 2


@pytest.mark.parametrize("status", [500, 502, 504])
def test_an_error_that_may_come_after_the_mail_was_taken_is_waited_out_like_a_lost_reply(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    sendgrid_control: SendGridControl,
    status: int,
) -> None:
    mail = a_queued_mail(engine, account)
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS, status=status))
    send(engine, vendors)
    for minutes in (1, 29):
        send_later(engine, vendors, now=NOW + minutes * MINUTE)
        assert mail_of(engine, mail.id).state == "claimed"
    send_later(engine, vendors, now=NOW + HALF_AN_HOUR)

    after = mail_of(engine, mail.id)
    assert after.state == "unknown"
    assert str(status) in str(after.reason)
    assert len(sendgrid_control.requests()) == 1

    perform(engine, send_invoice, account, invoice_id=mail.invoice_ids[0])
    send(engine, vendors)
    assert len(inbox(sendgrid_control)) == 1


def test_a_mail_waits_longer_the_longer_sendgrid_is_away(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    mail = a_queued_mail(engine, account)
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS, times=20))
    waits = []
    for waited in (timedelta(0), timedelta(minutes=20), timedelta(days=1)):
        send_later(engine, vendors, now=mail.created_at + waited)
        with Session(engine) as session:
            job = session.get_one(Job, job_of(engine, mail.id).id)
            assert job.started_at is not None
            waits.append((job.run_at - job.started_at) // MINUTE)

    assert waits == [1, 5, 15]


class _Broken:
    """Documents that cannot be set."""

    def render_invoice_pdf(self, document: InvoiceDocument) -> bytes:
        raise RuntimeError(f"{document.number} cannot be set")

    def render_statement_pdf(self, document: StatementDocument) -> bytes:
        raise RuntimeError(f"{document.period} cannot be set")

    def render_credit_note_pdf(self, document: CreditNoteDocument) -> bytes:
        raise RuntimeError(f"{document.number} cannot be set")


def test_a_mail_that_could_not_be_made_was_not_sent_and_waits(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    mail = a_queued_mail(engine, account)
    send(engine, watched(vendors, documents=_Broken()))
    broken = job_of(engine, mail.id)
    assert (broken.state, broken.attempt) == ("failed", 1)
    assert "INV-000001 cannot be set" in str(broken.error)
    assert mail_of(engine, mail.id).state == "queued"
    assert sendgrid_control.requests() == []

    # Nor was it by a worker that was not set up for mail.
    send_later(engine, Gateways(), now=NOW)
    assert "GatewayMissing" in str(job_of(engine, mail.id).error)

    send_later(engine, vendors, now=NOW + MINUTE)
    assert mail_of(engine, mail.id).state == "accepted"
    assert len(inbox(sendgrid_control)) == 1


def test_a_mail_that_is_gone_is_skipped(engine: Engine, account: Account) -> None:
    with pytest.raises(NotFound):
        perform(engine, send_mail, account, mail_id=uuid4())


def test_a_charge_by_staff_before_the_mail_was_sent_leaves_only_its_receipt(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    sendgrid_control: SendGridControl,
) -> None:
    client = a_client(engine, account, email="ada@maple.example")
    invoice = an_invoice(engine, account, client)
    give_card(engine, stripe_sandbox, client)
    with Session(engine) as session, session.begin():
        enqueue(
            session,
            charge_invoice,
            account_id=account.id,
            requested_by="test",
            invoice_id=invoice.id,
        )
    work(engine, now=NOW, gateways=vendors, queues=["payments"])
    send(engine, vendors)

    [receipt] = inbox(sendgrid_control)
    assert receipt.says("We received your payment of 10.00 USD.")
    ready = mails_of(engine, client)[0]
    assert (ready.kind, ready.state, ready.reason) == (
        "invoice_ready",
        "suppressed",
        "invoice_paid",
    )
    assert job_of(engine, ready.id).reason == "invoice_paid"


def in_two_currencies(engine: Engine, account: Account, **fields: Any) -> list[Invoice]:
    """A client's two invoices of one run, announced by one mail: 7 euros and 10 dollars."""
    client = monthly(engine, account, "10.00", **fields)
    a_charge(engine, client, MAY_5, "7.00", currency="eur")
    tick(engine, now=NOW)
    return sorted(invoices_of(engine, client), key=lambda invoice: invoice.total)


def test_what_was_paid_since_is_not_asked_for_and_a_part_is_taken_off(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    paid, partly = in_two_currencies(engine, account)
    perform(engine, mark_invoice_paid, account, invoice_id=paid.id)
    perform(engine, mark_invoice_paid, account, invoice_id=partly.id, amount=400)
    send(engine, vendors)

    ready = inbox(sendgrid_control)[0]
    assert ready.subject == f"Invoice Ready For Payment: {partly.number} from Bluebird Prep"
    assert ready.says("Amount due: 6.00 USD", "Total: 10.00 USD")
    assert str(paid.number) not in ready.text + ready.html
    assert [*ready.attached] == [f"{partly.number}.pdf"]


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        ((mark_invoice_paid, mark_invoice_paid), "invoice_paid"),
        ((mark_invoice_paid, void_invoice), "invoice_paid"),
        ((void_invoice, void_invoice), "invoice_void"),
    ],
)
def test_a_mail_that_asks_for_nothing_any_more_is_not_sent(
    engine: Engine,
    account: Account,
    *,
    vendors: Gateways,
    sendgrid_control: SendGridControl,
    ends: tuple[JobKind, JobKind],
    reason: str,
) -> None:
    invoices = in_two_currencies(engine, account)
    for invoice, end in zip(invoices, ends, strict=True):
        perform(engine, end, account, invoice_id=invoice.id)
    send(engine, vendors)

    [ready] = [mail for mail in mails_of(engine, account) if mail.kind == "invoice_ready"]
    assert (ready.state, ready.reason) == ("suppressed", reason)
    assert not any(read.subject.startswith("Invoice Ready") for read in inbox(sendgrid_control))


def test_what_credit_paid_is_told_even_if_the_rest_needs_no_payment_any_more(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    client = monthly(engine, account, "10.00")
    a_charge(engine, client, MAY_5, "7.00", currency="eur")
    deposit(engine, account, client, 1000)
    tick(engine, now=NOW)
    euros, dollars = sorted(invoices_of(engine, client), key=lambda invoice: invoice.total)
    perform(engine, mark_invoice_paid, account, invoice_id=euros.id)
    send(engine, vendors)

    [ready] = [one for one in inbox(sendgrid_control) if one.subject.startswith("Invoice Ready")]
    assert ready.says("Your new invoice needs no payment.", f"{dollars.number} (1 - 31 May 2026)")
    assert str(euros.number) not in ready.text


def test_an_announcement_that_is_a_week_old_is_not_sent(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    fresh = a_queued_mail(engine, account)
    old = a_queued_mail(engine, account, email="bob@maple.example")
    sendgrid_control.fail(Fault(kind=FaultKind.STATUS, times=2))
    send(engine, vendors, now=old.created_at)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE mails SET created_at = created_at - interval '1 day' WHERE id = :id"),
            {"id": old.id},
        )
    send_later(engine, vendors, now=fresh.created_at + timedelta(days=7))

    assert mail_of(engine, fresh.id).state == "accepted"
    after = mail_of(engine, old.id)
    assert (after.state, after.reason) == ("suppressed", "too_old")
    job = job_of(engine, old.id)
    assert (job.state, job.reason) == ("skipped", "too_old")
    assert [read.recipient for read in inbox(sendgrid_control)] == [
        "Ada Imports <ada@maple.example>"
    ]


def test_a_receipt_is_sent_however_late(
    engine: Engine, account: Account, vendors: Gateways, sendgrid_control: SendGridControl
) -> None:
    client = a_client(engine, account, email="ada@maple.example")
    deposit(engine, account, client, 4000)
    [mail] = mails_of(engine, client)
    send(engine, vendors, now=mail.created_at + timedelta(days=30))

    assert len(inbox(sendgrid_control)) == 1
