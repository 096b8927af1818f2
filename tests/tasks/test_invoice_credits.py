"""Crediting invoices: what a note lowers, where the rest goes, and what is refused."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from billing.errors import RuleViolation
from gateways.sandbox.stripe.server import StripeSandbox
from models import Account, Client, CreditBalance, CreditGrant, Invoice, InvoiceLine
from tasks.calls import Gateways
from tasks.charging import charge_invoice
from tasks.drafting import draft_invoice
from tasks.expiring import expire_client_credit
from tasks.finalizing import finalize_invoice
from tasks.granting import grant_credit
from tasks.invoice_credits import credit_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.paying_out import refund_credit
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
from tests.cards import (
    AUTHENTICATED,
    a_client_with,
    an_open_invoice,
    attempt_states,
    do,
)
from tests.money import (
    MAY,
    a_draft,
    an_invoice,
    assert_no_money_is_lost,
    balances,
    booked,
    deposit,
    invoice_of,
    moves,
    paid_how,
    payments_of,
)
from tests.refunds import (
    a_card_payment,
    a_payment_by_card,
    assert_stripe_agrees,
    credit,
    notes_of,
    refund,
    refund_states,
    refunds_of,
    sent_back,
)
from tests.worlds import NOW, a_client, charges, invoices_of, perform

TODAY = NOW.date()


def pay(engine: Engine, account: Account, invoice: Invoice, amount: int | None = None) -> None:
    perform(engine, mark_invoice_paid, account, invoice_id=invoice.id, amount=amount)


def credited(engine: Engine, invoice_id: UUID) -> tuple[str, int, int, int]:
    """Status, what was credited and refunded, and what is due."""
    one = invoice_of(engine, invoice_id)
    return one.status, one.amount_credited, one.amount_refunded, one.amount_due


def refused(engine: Engine, account: Account, invoice_id: UUID, **asked: object) -> str | None:
    """The code by which the job is refused; it changes nothing."""
    before = len(notes_of(engine))
    job = credit(engine, Gateways(), account, invoice_id, **asked)
    assert job.state == "skipped"
    assert len(notes_of(engine)) == before
    return job.reason


def test_a_note_lowers_what_is_due_and_is_numbered_and_booked_today(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)

    job = credit(engine, vendors, account, invoice.id, amount=300, reason="two were lost")

    [note] = notes_of(engine)
    assert job.result == {
        "invoice": str(invoice.id),
        "credit_note": str(note.id),
        "number": "CN-000001",
        "lowered_due": 300,
        "returned": 0,
        "refunds": [],
    }
    assert (note.amount, note.net, note.tax, note.taxes) == (300, 300, 0, {})
    assert (note.lowers_due, note.returned, note.returned_to) == (300, 0, None)
    assert (note.issued_on, note.reason, note.requested_by) == (TODAY, "two were lost", "test")
    assert (note.bill_from, note.bill_to) == (invoice.bill_from, invoice.bill_to)
    assert credited(engine, invoice.id) == ("open", 300, 0, 700)
    assert booked(engine, "credit_note") == [(TODAY, {"revenue": 300, "receivable": -300})]
    assert_no_money_is_lost(engine, account)


def test_a_note_of_all_that_is_due_settles_the_invoice_and_ends_its_tries(
    engine: Engine, account: Account, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    invoice_id = an_open_invoice(engine, account, client)
    assert invoice_of(engine, invoice_id).next_attempt_at is not None
    perform(engine, credit_invoice, account, invoice_id=invoice_id, amount=1000, to="credit")

    invoice = invoice_of(engine, invoice_id)
    assert (invoice.status, invoice.paid_at, invoice.next_attempt_at) == ("paid", NOW, None)
    assert credited(engine, invoice_id) == ("paid", 1000, 0, 0)
    assert balances(engine, client) == {}
    assert_no_money_is_lost(engine, account)


def test_what_is_over_what_is_due_becomes_credit_and_pays_other_invoices_at_once(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    pay(engine, account, invoice, 800)
    other = an_invoice(engine, account, client, "1.50")

    credit(engine, vendors, account, invoice.id, amount=500)

    [note] = notes_of(engine)
    assert (note.lowers_due, note.returned, note.returned_to) == (200, 300, "credit")
    assert credited(engine, invoice.id) == ("paid", 500, 300, 0)
    assert invoice_of(engine, other.id).status == "paid"
    assert moves(engine, client) == [("applied", -150), ("credit_note", 300)]
    assert balances(engine, client) == {"usd": 150}
    assert booked(engine, "credit_note") == [
        (TODAY, {"revenue": 500, "receivable": -200, "credit": -300})
    ]
    assert_no_money_is_lost(engine, account)


def test_what_goes_back_outside_is_a_refund_of_each_payment_that_it_is_taken_from(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    client = a_client(engine, account)
    invoice = an_invoice(engine, account, client)
    for amount in (600, 400):
        pay(engine, account, invoice, amount)
    older, newer = payments_of(engine, client)

    job = credit(engine, vendors, account, invoice.id, amount=700, to="outside", reason="damaged")

    [note] = notes_of(engine)
    refunds = refunds_of(engine)
    assert job.result is not None
    assert job.result["refunds"] == [str(one.id) for one in refunds]
    assert [(one.payment_id, one.amount) for one in refunds] == [(newer.id, 400), (older.id, 300)]
    for one in refunds:
        assert (one.state, one.destination, one.credit_note_id) == ("succeeded", "outside", note.id)
        assert (one.succeeded_at, one.settled_at, one.reason) == (NOW, NOW, "damaged")
    assert credited(engine, invoice.id) == ("paid", 700, 700, 0)
    assert booked(engine, "credit_note") == [(TODAY, {"revenue": 700, "outside": -700})]
    assert_no_money_is_lost(engine, account)

    assert refused(engine, account, invoice.id, amount=301, to="outside") == (
        "amount_exceeds_invoice"
    )
    credit(engine, vendors, account, invoice.id, amount=300, to="outside")
    assert credited(engine, invoice.id) == ("paid", 1000, 1000, 0)
    assert refused(engine, account, invoice.id, amount=1) == "nothing_to_credit"
    assert_no_money_is_lost(engine, account)


def test_what_credit_paid_returns_to_credit_only(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 600)
    invoice = an_invoice(engine, account, client)
    pay(engine, account, invoice)

    for to in ("outside", "card"):
        assert refused(engine, account, invoice.id, amount=401, to=to) == "amount_exceeds_paid"
    credit(engine, vendors, account, invoice.id, amount=400, to="outside")
    assert refused(engine, account, invoice.id, amount=1, to="outside") == "amount_exceeds_paid"
    credit(engine, vendors, account, invoice.id, amount=600)

    assert balances(engine, client) == {"usd": 600}
    assert credited(engine, invoice.id) == ("paid", 1000, 1000, 0)
    assert_no_money_is_lost(engine, account)


def test_only_what_was_finalized_and_is_not_void_is_credited(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    draft = a_draft(engine, account, client)
    void = an_invoice(engine, account, client)
    perform(engine, void_invoice, account, invoice_id=void.id)
    negative = an_invoice(engine, account, client, "-5.00")

    assert refused(engine, account, draft.id, amount=1) == "invoice_not_finalized"
    assert refused(engine, account, void.id, amount=1) == "invoice_not_open"
    assert refused(engine, account, negative.id, amount=1) == "nothing_to_credit"
    assert refused(engine, account, client.id, amount=1) == "invoice_not_found"


def given_up(engine: Engine, account: Account, client: Client, paid: int = 0) -> Invoice:
    """One of 10.00 that was written off after so much of it was paid outside."""
    invoice = an_invoice(engine, account, client)
    if paid:
        pay(engine, account, invoice, paid)
    perform(engine, write_off_invoice, account, invoice_id=invoice.id)
    return invoice_of(engine, invoice.id)


def test_a_note_of_an_uncollectible_invoice_takes_of_what_was_given_up(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    client = a_client(engine, account)
    invoice = given_up(engine, account, client, paid=400)
    later = NOW + timedelta(days=3)

    credit(engine, vendors, account, invoice.id, amount=250, now=later)

    now = invoice_of(engine, invoice.id)
    assert credited(engine, invoice.id) == ("uncollectible", 250, 0, 0)
    assert (now.amount_written_off, now.outstanding, now.paid_at) == (350, 350, None)
    [note] = notes_of(engine)
    assert (note.lowers_due, note.returned) == (250, 0)
    day = later.date()
    assert booked(engine, "recovery") == [(day, {"receivable": 250, "bad_debt": -250})]
    assert booked(engine, "credit_note") == [(day, {"revenue": 250, "receivable": -250})]
    assert_no_money_is_lost(engine, account)

    # All the rest, and the client has no debt; what was paid comes back as credit.
    credit(engine, vendors, account, invoice.id, amount=750, now=later)
    now = invoice_of(engine, invoice.id)
    assert credited(engine, invoice.id) == ("paid", 1000, 400, 0)
    assert (now.amount_written_off, now.paid_at) == (0, later)
    assert balances(engine, client) == {"usd": 400}
    assert refused(engine, account, invoice.id, amount=1) == "nothing_to_credit"
    assert_no_money_is_lost(engine, account)


def test_the_credit_that_a_note_of_an_uncollectible_invoice_returns_pays_others_and_not_it(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    client = a_client(engine, account)
    deposit(engine, account, client, 300)
    invoice = given_up(engine, account, client, paid=200)
    other = an_invoice(engine, account, client, "1.00")

    # 500 were given up, and 200 came from outside.
    assert refused(engine, account, invoice.id, amount=701, to="outside") == "amount_exceeds_paid"
    credit(engine, vendors, account, invoice.id, amount=650, to="outside")
    credit(engine, vendors, account, invoice.id, amount=350)

    assert credited(engine, invoice.id) == ("paid", 1000, 500, 0)
    assert invoice_of(engine, other.id).status == "paid"
    assert balances(engine, client) == {"usd": 250}
    assert_no_money_is_lost(engine, account)


def test_a_note_goes_from_an_uncollectible_invoice_to_the_card_that_paid_a_part_of_it(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    assert payment.invoice_id is not None
    refund(engine, vendors, account, payment, amount=400, credit_note=False)
    perform(engine, write_off_invoice, account, invoice_id=payment.invoice_id)
    assert credited(engine, payment.invoice_id) == ("uncollectible", 0, 400, 0)

    credit(engine, vendors, account, payment.invoice_id, amount=700, to="card")

    assert credited(engine, payment.invoice_id) == ("paid", 700, 700, 0)
    assert sent_back(stripe_sandbox) == [400, 300]
    assert booked(engine, "recovery") == [(TODAY, {"receivable": 400, "bad_debt": -400})]
    assert_stripe_agrees(engine, account, stripe_sandbox)


def taxed(engine: Engine, account: Account, client: Client) -> tuple[Invoice, list[UUID], UUID]:
    """An invoice of 33.33 and 66.67 of which the second bears 20 % on top; its charges; the rate."""
    ids = charges(engine, client, [(MAY, "33.33"), (MAY, "66.67")])
    perform(engine, draft_invoice, account, client_id=client.id, charge_ids=ids)
    [invoice] = invoices_of(engine, client)
    perform(engine, finalize_invoice, account, invoice_id=invoice.id)
    with Session(engine) as session, session.begin():
        session.execute(text("SET LOCAL session_replication_role = replica"))
        rate = session.execute(
            text(
                "INSERT INTO tax_rates (account_id, name, percent, inclusive, valid_from)"
                " VALUES (:account, 'VAT', 20, false, '2026-01-01') RETURNING id"
            ),
            {"account": account.id},
        ).scalar_one()
        session.execute(
            text(
                "UPDATE invoice_lines SET tax = 1333, taxes = jsonb_build_object(:rate ::text, 1333)"
                " WHERE charge_id = :charge"
            ),
            {"rate": str(rate), "charge": ids[1]},
        )
        session.execute(text("UPDATE invoices SET tax = 1333, total = total + 1333"))
        session.execute(
            text(
                "INSERT INTO invoice_taxes"
                " (invoice_id, tax_rate_id, position, name, percent, inclusive, net, tax)"
                " VALUES (:invoice, :rate, 1, 'VAT', 20, false, 6667, 1333)"
            ),
            {"invoice": invoice.id, "rate": rate},
        )
        entry = session.execute(text("SELECT id FROM ledger_entries")).scalar_one()
        session.execute(
            text("UPDATE ledger_postings SET amount = 11333 WHERE ledger_account = 'receivable'")
        )
        session.execute(
            text(
                "INSERT INTO ledger_postings (entry_id, ledger_account, tax_rate_id, currency,"
                " amount) VALUES (:entry, 'tax', :rate, 'usd', -1333)"
            ),
            {"entry": entry, "rate": rate},
        )
    return invoice_of(engine, invoice.id), ids, rate


def test_a_note_takes_tax_in_proportion_and_books_it_by_rate(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    invoice, _, rate = taxed(engine, account, a_client(engine, account))

    credit(engine, vendors, account, invoice.id, amount=5000)
    credit(engine, vendors, account, invoice.id, amount=6333)

    first, last = notes_of(engine)
    assert (first.amount, first.net, first.tax) == (5000, 4412, 588)
    assert first.taxes == {str(rate): 588}
    assert (last.net, last.tax) == (10000 - 4412, 1333 - 588)
    assert credited(engine, invoice.id) == ("paid", 11333, 0, 0)
    with engine.connect() as connection:
        by_rate = connection.scalars(
            text("SELECT amount FROM ledger_postings WHERE tax_rate_id IS NOT NULL ORDER BY id")
        )
        assert list(by_rate) == [-1333, 588, 745]
    assert_no_money_is_lost(engine, account)


def test_a_note_of_lines_credits_them_as_they_were_billed(
    engine: Engine, account: Account, vendors: Gateways
) -> None:
    invoice, ids, rate = taxed(engine, account, a_client(engine, account))

    credit(engine, vendors, account, invoice.id, lines=[ids[1]])

    [note] = notes_of(engine)
    assert (note.net, note.taxes) == (6667, {str(rate): 1333})
    with Session(engine) as session:
        position = session.scalar(
            select(InvoiceLine.position).where(InvoiceLine.charge_id == ids[1])
        )
    assert note.positions == [position]
    assert credited(engine, invoice.id) == ("open", 8000, 0, 3333)
    again = {"lines": [ids[1]]}
    assert refused(engine, account, invoice.id, **again) == "line_already_credited"
    wrongs: list[dict[str, object]] = [
        {},
        {"amount": 1, "lines": ids},
        {"lines": [invoice.id]},
        {"lines": []},
    ]
    for wrong in wrongs:
        assert refused(engine, account, invoice.id, **wrong) == "invalid"
    credit(engine, vendors, account, invoice.id, lines=[ids[0]])
    assert credited(engine, invoice.id) == ("paid", 11333, 0, 0)
    assert_no_money_is_lost(engine, account)


def test_what_a_card_paid_goes_back_to_it_and_the_note_is_written_then(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    assert payment.invoice_id is not None

    job = credit(
        engine, vendors, account, payment.invoice_id, amount=400, to="card", reason="damaged"
    )

    [note], [refund] = notes_of(engine), refunds_of(engine)
    assert job.result == {
        "refund": str(refund.id),
        "payment": str(payment.id),
        "invoice": str(payment.invoice_id),
        "credit_note": str(note.id),
        "state": "succeeded",
        "amount": 400,
    }
    assert (note.amount, note.returned, note.returned_to, note.reason) == (
        400,
        400,
        "card",
        "damaged",
    )
    assert credited(engine, payment.invoice_id) == ("paid", 400, 400, 0)
    assert booked(engine, "credit_note") == [(TODAY, {"revenue": 400, "stripe": -400})]
    [at_stripe] = stripe_sandbox.control.objects("refund")
    assert at_stripe["id"] == refund.stripe_refund
    assert at_stripe["metadata"] == {
        "account": str(account.id),
        "client": str(payment.client_id),
        "invoice": str(payment.invoice_id),
        "refund": str(refund.id),
    }
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_a_note_to_a_card_of_an_invoice_that_is_due_lowers_that_first(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    paid = a_payment_by_card(engine, account, vendors, client)
    assert paid.invoice_id is not None
    credit(engine, vendors, account, paid.invoice_id, amount=200, to="outside")
    refund(engine, vendors, account, paid, amount=500, credit_note=False)
    assert credited(engine, paid.invoice_id) == ("open", 200, 700, 500)

    credit(engine, vendors, account, paid.invoice_id, amount=800, to="card")

    note = notes_of(engine)[-1]
    assert (note.lowers_due, note.returned) == (500, 300)
    assert credited(engine, paid.invoice_id) == ("paid", 1000, 1000, 0)
    assert sent_back(stripe_sandbox) == [500, 300]
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_one_card_payment_must_carry_all_that_goes_to_the_card(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox)
    payment = a_payment_by_card(engine, account, vendors, client)
    assert payment.invoice_id is not None
    refund(engine, vendors, account, payment, amount=500, credit_note=False)
    do(engine, vendors, charge_invoice, account, invoice_id=payment.invoice_id)
    assert credited(engine, payment.invoice_id) == ("paid", 0, 500, 0)

    assert refused(engine, account, payment.invoice_id, amount=501, to="card") == (
        "amount_exceeds_paid"
    )
    credit(engine, vendors, account, payment.invoice_id, amount=500, to="card")
    assert refunds_of(engine)[-1].payment_id == payments_of(engine, client)[-1].id
    credit(engine, vendors, account, payment.invoice_id, amount=500, to="card")

    assert credited(engine, payment.invoice_id) == ("paid", 1000, 1500, 0)
    assert refund_states(engine) == ["succeeded"] * 3
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_an_attempt_that_waits_for_the_client_is_withdrawn_first(
    engine: Engine, account: Account, vendors: Gateways, stripe_sandbox: StripeSandbox
) -> None:
    client = a_client_with(engine, account, stripe_sandbox, AUTHENTICATED)
    invoice_id = an_open_invoice(engine, account, client, collect=False)
    do(engine, vendors, charge_invoice, account, invoice_id=invoice_id)
    assert attempt_states(engine) == ["needs_action"]

    job = credit(engine, vendors, account, invoice_id, amount=1000)

    assert job.state == "succeeded"
    assert attempt_states(engine) == ["canceled"]
    assert paid_how(engine, client) == [("paid", 0, 0, 0)]
    assert_no_money_is_lost(engine, account)


@pytest.mark.parametrize("to", ["credit", "outside", "card"])
def test_a_note_is_written_once_however_often_its_job_is_told(
    engine: Engine,
    account: Account,
    vendors: Gateways,
    stripe_sandbox: StripeSandbox,
    to: str,
) -> None:
    payment = a_card_payment(engine, account, vendors, stripe_sandbox)
    assert payment.invoice_id is not None
    for amount in (400, 600):
        assert (
            credit(engine, vendors, account, payment.invoice_id, amount=amount, to=to).state
            == "succeeded"
        )

    assert [one.number for one in notes_of(engine)] == ["CN-000001", "CN-000002"]
    assert credited(engine, payment.invoice_id) == ("paid", 1000, 1000, 0)
    assert refused(engine, account, payment.invoice_id, amount=1, to=to) == "nothing_to_credit"
    assert_stripe_agrees(engine, account, stripe_sandbox)


def test_what_was_granted_comes_back_as_granted_and_is_never_paid_out(
    engine: Engine, account: Account
) -> None:
    client = a_client(engine, account)
    of_client: dict[str, Any] = {"client_id": client.id, "currency": "usd"}
    perform(
        engine,
        grant_credit,
        account,
        **of_client,
        amount=800,
        expires_on=TODAY + timedelta(days=10),
    )
    invoice = an_invoice(engine, account, client, "10.00")
    pay(engine, account, invoice)

    take_back: dict[str, Any] = {"invoice_id": invoice.id, "to": "credit"}
    perform(engine, credit_invoice, account, **take_back, amount=500)
    with Session(engine) as session:
        assert in_hand_of(session, client) == (500, 300)
    with pytest.raises(RuleViolation, match="promotional"):
        perform(engine, refund_credit, account, **of_client, amount=201)
    perform(
        engine, expire_client_credit, account, client_id=client.id, now=NOW + timedelta(days=11)
    )
    later = NOW + timedelta(days=12)
    perform(engine, credit_invoice, account, **take_back, amount=400, now=later)

    with Session(engine) as session:
        assert in_hand_of(session, client) == (200, 0)
    assert_no_money_is_lost(engine, account)


def in_hand_of(session: Session, client: Client) -> tuple[int, int]:
    """The balance, and what of it was granted."""
    balance = session.scalars(
        select(CreditBalance.balance).where(CreditBalance.client_id == client.id)
    ).one()
    granted = select(func.sum(CreditGrant.remaining)).where(CreditGrant.client_id == client.id)
    return balance, int(session.scalars(granted).one())
