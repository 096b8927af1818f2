# ruff: noqa: S608 - every statement is the test's own.

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.credit import CreditEntryKind
from billing.postings import LedgerEvent
from billing.reconciliation import Difference
from gateways.cards import CardReport, CardStatus, ChargeRefused, RefundReport, RefundStatus
from gateways.checkout import CheckoutReport, CheckoutStatus
from gateways.disputes import DisputeReport, DisputeStatus
from gateways.mail import Accepted
from gateways.payment_records import Window
from models import (
    Account,
    Charge,
    Client,
    CreditEntry,
    DifferenceAcknowledgement,
    Invoice,
    Job,
    LedgerEntry,
    Mail,
    Payment,
    ReconciliationDifference,
    Refund,
    job_ledger,
)
from models.database import database_now
from tasks import audits
from tasks.accounts import create_account
from tasks.amending import change_charge
from tasks.audits import RULES, audit, audit_books
from tasks.billing_methods import set_billing_method
from tasks.calls import Call, Step
from tasks.card_deposits import deposit_by_card
from tasks.charging import charge_invoice
from tasks.collecting import collect_client
from tasks.crediting import adjust_credit, apply_invoice_credit, deposit_credit
from tasks.disputes import settle_dispute
from tasks.drafting import draft_invoice
from tasks.enqueueing import enqueue
from tasks.expiring import expire_client_credit
from tasks.finalizing import finalize_invoice
from tasks.granting import grant_credit
from tasks.invoice_credits import credit_invoice
from tasks.leases import LeaseKeeper
from tasks.marking_paid import mark_invoice_paid
from tasks.outcomes import Done
from tasks.pay_pages import open_pay_page
from tasks.paying_out import refund_credit, refund_credit_to_card
from tasks.payment_refunds import refund_payment, refund_payment_to_card
from tasks.reconciling import request_reconciliation
from tasks.refunds import settle_refund
from tasks.running import Runner
from tasks.sending import send_mail
from tasks.top_ups import top_up_client
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
from tests.jobs import LEASE, change_job, dispatch, job_of, states
from tests.money import payments_of, with_a_card
from tests.worlds import (
    NOW,
    a_charge,
    a_client,
    a_rate,
    audited,
    bill,
    change,
    charges,
    invoices_of,
    perform,
    work,
)

MAY = date(2026, 5, 1)


def books(engine: Engine, account: Account) -> None:
    """Every event that the books know, and every record around them, at least once."""
    without_card, with_card = (
        a_client(
            engine,
            account,
            name=name,
            email=f"{name}@example.com",
            billing_cycle="monthly",
            billing_starts_on=date(2026, 4, 1),
        )
        for name in ("ada", "bob")
    )
    with Session(engine) as session, session.begin():
        set_billing_method(
            session,
            account.id,
            with_card.id,
            stripe_customer=f"cus_{with_card.id}",
            payment_method="pm_1",
            now=NOW,
            requested_by="test",
        )
    an_invoice(engine, account, with_card, "8.00")
    for client, day in ((without_card, 1), (without_card, 30), (with_card, 1)):
        a_charge(engine, client, date(2026, 4, day), "10.00")
    bill(engine, account, now=NOW)
    move_credit_and_money(engine, account, without_card)
    charge_cards(engine, account, with_card)
    bear_taxes(engine, account)
    give_back(engine, account)
    write_off_and_amend(engine, account, a_client(engine, account, name="cleo"))
    charge_for_credit(engine, account, with_card)
    send_mails(engine, account)
    grant_and_pay_out(engine, account)
    be_disputed(engine, account)
    open_a_page(engine, account)
    be_reconciled(engine, account)


def be_reconciled(engine: Engine, account: Account) -> None:
    """One difference was repaired, and one agreed when it was looked at again.

    One was acknowledged, before the last reconciliation found the same again.
    """
    with Session(engine) as session, session.begin():
        window = Window(NOW - timedelta(days=4), NOW)
        record = request_reconciliation(session, account.id, window, requested_by="test")
        record.finished_at = NOW
        known, again = (
            ReconciliationDifference(
                reconciliation_id=request_reconciliation(
                    session, account.id, window, requested_by="test"
                ).id,
                difference=Difference.REFUND_MADE_ELSEWHERE,
                stripe_id=f"re_{account.id}",
                currency="usd",
                theirs="succeeded",
                their_amount=250,
                repaired=False,
                rechecked_at=rechecked_at,
            )
            for rechecked_at in (NOW, None)
        )
        session.add_all([known, again])
        session.flush()
        given = DifferenceAcknowledgement(
            difference_id=known.id, reason="Refunded by hand", acknowledged_by="test"
        )
        session.add(given)
        session.flush()
        known.acknowledgement_id = again.acknowledgement_id = given.id
        for difference, is_repaired in (
            (Difference.PAYMENT_UNHEARD, True),
            (Difference.REFUND_MISSING, False),
        ):
            session.add(
                ReconciliationDifference(
                    reconciliation_id=record.id,
                    difference=difference,
                    stripe_id=f"of_{account.id}",
                    currency="usd",
                    repaired=is_repaired,
                    rechecked_at=None if is_repaired else NOW,
                )
            )


def be_disputed(engine: Engine, account: Account) -> None:
    """One dispute is open, one won; of the lost, one is owed again and one is no longer."""
    client = a_client(engine, account, name="dan")
    with Session(engine) as session, session.begin():
        set_billing_method(
            session,
            account.id,
            client.id,
            stripe_customer=f"cus_{client.id}",
            payment_method="pm_1",
            now=NOW,
            requested_by="test",
        )
    deposited: dict[str, Any] = {"client_id": client.id, "amount": 450, "currency": "eur"}
    step = perform(engine, deposit_by_card, account, **deposited, apply=False)
    answer(engine, step, replace(told(CardStatus.SUCCEEDED, 450), currency="eur"))
    for price, dispute in (
        ("21.00", DisputeStatus.NEEDS_RESPONSE),
        ("22.00", DisputeStatus.WON),
        ("23.00", DisputeStatus.LOST),
        ("24.00", DisputeStatus.WARNING_CLOSED),
        ("25.00", DisputeStatus.LOST),
    ):
        invoice = an_invoice(engine, account, client, price)
        if invoice.amount_due:
            step = perform(engine, charge_invoice, account, invoice_id=invoice.id)
            answer(engine, step, told(CardStatus.SUCCEEDED, invoice.amount_due))
        rule = "write_off" if price == "25.00" else "reopen"
        dispute_payment(engine, account, payments_of(engine, client)[-1], dispute, rule=rule)
    first = payments_of(engine, client)[0]
    dispute_payment(engine, account, first, DisputeStatus.LOST, rule="reopen")


def dispute_payment(
    engine: Engine, account: Account, payment: Payment, status: DisputeStatus, *, rule: str
) -> None:
    with Session(engine) as session, session.begin():
        session.get_one(Account, account.id).dispute_lost = rule
        report = DisputeReport(
            dispute=f"du_{uuid4()}",
            payment_intent=None,
            amount=payment.amount,
            currency=payment.currency,
            status=status,
            reason="fraudulent",
            evidence_due_at=None,
            created_at=NOW,
        )
        settle_dispute(session, payment, report, told_at=NOW, now=NOW, requested_by="stripe")


def move_credit_and_money(engine: Engine, account: Account, client: Client) -> None:
    """Of 20.00 some is paid and some is settled by credit; another is void, and one a draft."""
    [cycle] = invoices_of(engine, client)
    of_client: dict[str, Any] = {"client_id": client.id, "currency": "usd"}
    perform(engine, mark_invoice_paid, account, invoice_id=cycle.id, amount=100)
    an_invoice(engine, account, client, "-3.00")
    perform(engine, deposit_credit, account, **of_client, amount=200, apply=False)
    void = an_invoice(engine, account, client, "5.00")
    perform(engine, void_invoice, account, invoice_id=void.id)
    perform(engine, deposit_credit, account, **of_client, amount=200, apply=False)
    perform(engine, adjust_credit, account, **of_client, amount=-50, note="wrong client")
    perform(engine, apply_invoice_credit, account, invoice_id=cycle.id, amount=40)
    paid = an_invoice(engine, account, client, "6.00")
    perform(
        engine,
        mark_invoice_paid,
        account,
        invoice_id=paid.id,
        amount=900,
        overpayment="credit",
    )
    perform(engine, deposit_credit, account, **of_client, amount=70, apply=False)
    a_charge(engine, client, MAY, "7.00")
    perform(engine, draft_invoice, account, client_id=client.id)


def charge_cards(engine: Engine, account: Account, client: Client) -> None:
    """Tries that succeeded, were declined and are under way; a remainder that was carried.

    The last one was paid in part, and is void.
    """
    answer(
        engine,
        perform(engine, collect_client, account, client_id=client.id),
        told(CardStatus.SUCCEEDED, 1_000),
    )
    an_invoice(engine, account, client, "30.00", collect=True)
    answer(engine, perform(engine, collect_client, account, client_id=client.id), declined())
    carried = an_invoice(engine, account, client, "0.20")
    perform(engine, charge_invoice, account, invoice_id=carried.id)
    by_hand = invoices_of(engine, client)[0]
    step = perform(engine, charge_invoice, account, invoice_id=by_hand.id)
    answer(engine, step, declined())
    perform(engine, mark_invoice_paid, account, invoice_id=by_hand.id)
    under_way = an_invoice(engine, account, client, "40.00")
    assert isinstance(perform(engine, charge_invoice, account, invoice_id=under_way.id), Call)
    partly_paid = an_invoice(engine, account, client, "9.00")
    perform(engine, mark_invoice_paid, account, invoice_id=partly_paid.id, amount=100)
    perform(engine, void_invoice, account, invoice_id=partly_paid.id, settle="credit")


def bear_taxes(engine: Engine, account: Account) -> None:
    """Two lines with taxes on top, and one with a tax in its price."""
    vat, city = a_rate(engine, account), a_rate(engine, account, "5", name="City")
    included = a_rate(engine, account, "20", "inclusive", name="VAT, included")
    client = a_client(engine, account, name="eve", tax_rates=[vat, city])
    charges(engine, client, [(MAY, "1.11"), (MAY, "2.22")])
    a_charge(engine, client, date(2026, 5, 2), "3.33", tax_rates=[included])
    [draft] = perform(engine, draft_invoice, account, client_id=client.id).result["invoices"]  # type: ignore[union-attr]  # It is done.
    perform(engine, finalize_invoice, account, invoice_id=UUID(draft))


def grant_and_pay_out(engine: Engine, account: Account) -> None:
    """Of two grants one expires with something left; another invoice is void. Some is paid out."""
    client = a_client(engine, account, name="cid")
    of_client: dict[str, Any] = {"client_id": client.id, "currency": "usd"}
    perform(engine, grant_credit, account, **of_client, amount=300, expires_on=date(2026, 6, 2))
    an_invoice(engine, account, client, "2.50")
    void = an_invoice(engine, account, client, "4.00")
    perform(engine, void_invoice, account, invoice_id=void.id)
    perform(engine, deposit_credit, account, **of_client, amount=500)
    perform(engine, grant_credit, account, **of_client, amount=200)
    perform(engine, refund_credit, account, **of_client, amount=120)
    pay_out_to_a_card(engine, account)
    perform(engine, expire_client_credit, account, client_id=client.id, now=NOW + timedelta(days=1))


def pay_out_to_a_card(engine: Engine, account: Account) -> None:
    """Of what was paid in by card some went back, and some was refused."""
    client = a_client(engine, account, name="dee")
    with_a_card(engine, account, client)
    of_client: dict[str, Any] = {"client_id": client.id, "currency": "eur"}
    step = perform(engine, deposit_by_card, account, **of_client, amount=900)
    answer(engine, step, replace(told(CardStatus.SUCCEEDED, 900), currency="eur"))
    refused = ChargeRefused("charge_disputed", "It is disputed.")
    for amount, told_of_it in ((110, gone_back()), (130, refused)):
        step = perform(engine, refund_credit_to_card, account, **of_client, amount=amount)
        answer(engine, step, told_of_it)


def open_a_page(engine: Engine, account: Account) -> None:
    """A page on which a client may pay."""
    invoice = an_invoice(engine, account, a_client(engine, account, name="fay"), "11.00")
    asked = perform(engine, open_pay_page, account, invoice_id=invoice.id)
    asked = answer(engine, asked, "cus_fay")
    opened = CheckoutReport(
        session=f"cs_{uuid4()}",
        status=CheckoutStatus.OPEN,
        url="https://pay.example/cs_1",
        customer="cus_fay",
    )
    answer(engine, asked, opened)


def give_back(engine: Engine, account: Account) -> None:
    """Credit notes to everywhere, and refunds without one: succeeded, come back, refused, pending."""
    client = a_client(engine, account, name="cy")
    outside = an_invoice(engine, account, client, "10.00")
    perform(engine, mark_invoice_paid, account, invoice_id=outside.id, amount=900)
    of_outside: dict[str, Any] = {"invoice_id": outside.id}
    for amount, to in ((200, "credit"), (300, "outside")):
        perform(engine, credit_invoice, account, **of_outside, amount=amount, to=to)
    [paid_outside] = payments_of(engine, client)
    for to in ("credit", "outside"):
        perform(
            engine,
            refund_payment,
            account,
            payment_id=paid_outside.id,
            amount=50,
            to=to,
            credit_note=False,
        )
    with Session(engine) as session, session.begin():
        set_billing_method(
            session,
            account.id,
            client.id,
            stripe_customer=f"cus_{client.id}",
            payment_method="pm_1",
            now=NOW,
            requested_by="test",
        )
    by_card = an_invoice(engine, account, client, "60.00")
    step = perform(engine, charge_invoice, account, invoice_id=by_card.id)
    answer(engine, step, told(CardStatus.SUCCEEDED, by_card.amount_due))
    paid_by_card = payments_of(engine, client)[-1]
    for amount, told_of_it in (
        (700, gone_back()),
        (600, ChargeRefused("charge_disputed", "It is disputed.")),
        (500, None),
    ):
        step = perform(
            engine,
            refund_payment_to_card,
            account,
            payment_id=paid_by_card.id,
            amount=amount,
            credit_note=amount != 700,
        )
        if told_of_it is not None:
            answer(engine, step, told_of_it)
        if amount == 700:
            come_back(engine)
    make_a_void_note(engine, account, client)


def gone_back() -> RefundReport:
    return RefundReport(refund=f"re_{uuid4()}", status=RefundStatus.SUCCEEDED)


def come_back(engine: Engine) -> None:
    """The bank gives the last refund back."""
    with Session(engine) as session, session.begin():
        last = session.scalars(select(Refund).order_by(Refund.id.desc()).limit(1)).one()
        failed = RefundReport(refund=str(last.stripe_refund), status=RefundStatus.FAILED)
        settle_refund(session, last.id, failed, now=NOW, requested_by="stripe")


def make_a_void_note(engine: Engine, account: Account, client: Client) -> None:
    """A void with a document of its own."""
    with Session(engine) as session, session.begin():
        session.get_one(Account, account.id).void_makes_credit_note = True
    void = an_invoice(engine, account, client, "3.00")
    perform(engine, void_invoice, account, invoice_id=void.id)
    with Session(engine) as session, session.begin():
        session.get_one(Account, account.id).void_makes_credit_note = False


def write_off_and_amend(engine: Engine, account: Account, client: Client) -> None:
    """One given up, of which a part came; one given up and void; a charge amended and reissued."""
    given_up = an_invoice(engine, account, client, "12.00")
    perform(engine, write_off_invoice, account, invoice_id=given_up.id)
    perform(engine, mark_invoice_paid, account, invoice_id=given_up.id, amount=500)
    mistaken = an_invoice(engine, account, client, "13.00")
    perform(engine, write_off_invoice, account, invoice_id=mistaken.id)
    perform(engine, void_invoice, account, invoice_id=mistaken.id)
    charge = a_charge(engine, client, MAY, "14.00")
    bill_charges(engine, account, client, [charge])
    amend(engine, account, charge, 1500)
    with Session(engine) as session:
        [amendment] = session.scalars(select(Charge.id).where(Charge.amends == charge))
    other = a_charge(engine, client, MAY, "15.00")
    void = bill_charges(engine, account, client, [amendment, other])
    perform(engine, void_invoice, account, invoice_id=void.id, reissue=True)


def amend(engine: Engine, account: Account, charge: UUID, amount: int) -> None:
    with Session(engine) as session, session.begin():
        change_charge(session, account.id, charge, {"amount": amount}, now=NOW)


def charge_for_credit(engine: Engine, account: Account, client: Client) -> None:
    """A deposit that came, and a top-up that was declined; the credit is in a currency of its own."""
    some: dict[str, Any] = {"client_id": client.id, "amount": 500, "currency": "eur"}
    came = replace(told(CardStatus.SUCCEEDED, 500), currency="eur")
    answer(engine, perform(engine, deposit_by_card, account, **some, apply=False), came)
    setting = {"threshold": 1_000, "target": 2_000, "currency": "eur"}
    change(engine, client, auto_top_up=setting)
    refused = replace(declined(), currency="eur")
    answer(engine, perform(engine, top_up_client, account, client_id=client.id), refused)


def send_mails(engine: Engine, account: Account) -> None:
    """Of the run's two mails one is delivered and one accepted; the others wait."""
    with Session(engine) as session:
        first, second = session.scalars(
            select(Mail.id)
            .where(Mail.account_id == account.id, Mail.subject_key.startswith("run:"))
            .order_by(Mail.id)
        )
    for mail in (first, second):
        answer(engine, perform(engine, send_mail, account, mail_id=mail), Accepted("m-1"))
    with Session(engine) as session, session.begin():
        delivered = session.get_one(Mail, first)
        delivered.state, delivered.delivered_at = "delivered", NOW


def an_invoice(
    engine: Engine, account: Account, client: Client, price: str, *, collect: bool = False
) -> Invoice:
    """A finalized invoice made by hand."""
    charge = a_charge(engine, client, date(2026, 6, 1), price)
    return bill_charges(engine, account, client, [charge], collect=collect)


def bill_charges(
    engine: Engine,
    account: Account,
    client: Client,
    charge_ids: list[UUID],
    *,
    collect: bool = False,
) -> Invoice:
    drafted = perform(engine, draft_invoice, account, client_id=client.id, charge_ids=charge_ids)
    assert isinstance(drafted, Done)
    [invoice_id] = drafted.result["invoices"]
    perform(engine, finalize_invoice, account, invoice_id=UUID(invoice_id), collect=collect)
    with Session(engine) as session:
        return session.get_one(Invoice, UUID(invoice_id))


def declined() -> CardReport:
    return told(CardStatus.DECLINED, decline_code="insufficient_funds")


def told(status: CardStatus, amount: int = 0, decline_code: str | None = None) -> CardReport:
    return CardReport(
        payment_intent=f"pi_{uuid4()}",
        status=status,
        amount_received=amount,
        currency="usd",
        decline_code=decline_code,
    )


def answer(engine: Engine, step: Step, answered: object) -> Step:
    """Write down what a job's call was answered; how the job goes on."""
    assert isinstance(step, Call)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return step.record(session, answered)


def tamper(session: Session, *statements: str) -> None:
    """Change the tables behind the triggers' back."""
    session.execute(text("SET LOCAL session_replication_role = replica"))
    for statement in statements:
        changed = session.connection().execute(text(statement))
        assert changed.rowcount != 0, statement


OPEN = "(SELECT id FROM invoices WHERE number = 'INV-000002')"
TAXED = "(SELECT invoice_id FROM invoice_taxes LIMIT 1)"
LASTING = "(SELECT id FROM credit_grants WHERE expires_on IS NULL)"
ACKNOWLEDGED = "acknowledgement_id IS NOT NULL AND rechecked_at IS NULL"
AMENDMENT = "amends IS NOT NULL AND invoice_id IS NULL"
TABLE = "entries_follow_the_postings_table"
STATEMENTS = "statements_agree_with_ledger"
# An entry that lost what it is about is not what the table of postings says, either; and documents
# that say something else than the books do not add up to them.
BREACHES = [
    (
        STATEMENTS,
        # What was corrected is taken for what a document moved that is not there.
        ["UPDATE credit_entries SET kind = 'unexpected' WHERE kind = 'adjustment'"],
    ),
    (
        "closed_books_stay_as_they_were",
        [
            (
                "UPDATE accounts SET books_closed_through = '2999-12-31',"
                " books_closed_at = '2000-01-01'"
                f" WHERE id = (SELECT account_id FROM invoices WHERE id = {OPEN})"
            )
        ],
    ),
    (
        "ledger_entries_balance",
        ["UPDATE ledger_postings SET amount = amount - 1 WHERE ledger_account = 'adjustment'"],
    ),
    (
        "invoices_agree_with_ledger",
        ["UPDATE ledger_entries SET invoice_id = NULL WHERE event = 'outside_payment'"],
    ),
    (
        "invoices_agree_with_ledger",
        ["UPDATE ledger_entries SET invoice_id = NULL WHERE event = 'void'"],
    ),
    (
        "finalized_invoices_are_posted_once",
        [
            f"UPDATE ledger_entries SET event = 'void' WHERE invoice_id = {OPEN} AND event = 'finalize'"
        ],
    ),
    *(
        (
            TABLE,
            [
                (
                    "INSERT INTO ledger_postings (entry_id, ledger_account, currency, amount)"
                    " SELECT id, side, currency, amount FROM ledger_entries,"
                    f" (VALUES ('stripe', 1), ('adjustment', -1)) AS sides (side, amount) WHERE event = '{event}'"
                )
            ],
        )
        for event in LedgerEvent
    ),
    (
        TABLE,
        [
            "UPDATE ledger_entries SET event = 'outside_payment' WHERE event = 'card_payment'",
            "UPDATE ledger_postings SET ledger_account = 'outside' WHERE ledger_account = 'stripe'",
        ],
    ),
    (
        TABLE,
        ["UPDATE payments SET currency = 'eur' WHERE invoice_id IS NULL"],
    ),
    (
        "drafts_are_not_posted",
        [
            (
                "INSERT INTO ledger_entries"
                " (account_id, client_id, invoice_id, event, currency, effective_on)"
                " SELECT account_id, client_id, id, 'finalize', currency, '2026-06-01'"
                " FROM invoices WHERE status = 'draft'"
            )
        ],
    ),
    (
        "lines_sum_to_totals",
        [
            f"UPDATE charges SET amount = amount + 1 WHERE invoice_id = {OPEN}",
            f"UPDATE invoice_lines SET amount = amount + 1, net = net + 1 WHERE invoice_id = {OPEN}",
        ],
    ),
    (
        "lines_sum_to_totals",
        [f"UPDATE invoices SET subtotal = subtotal - 1, tax = tax + 1 WHERE id = {TAXED}"],
    ),
    *(
        (
            "lines_are_their_net_and_taxes",
            [
                (
                    f"UPDATE invoice_lines SET {part} = {part} + 3 - position * 2"
                    f" WHERE invoice_id = {TAXED} AND position < 3"
                )
            ],
        )
        for part in ("net", "tax")
    ),
    ("taxes_sum_up_their_lines", ["UPDATE invoice_taxes SET net = net + 1 WHERE name = 'City'"]),
    (
        "taxes_sum_up_their_lines",
        [
            (
                "UPDATE invoice_lines SET taxes = (SELECT jsonb_object_agg(rate_id, share::int"
                " + CASE name WHEN 'City' THEN 1 ELSE -1 END) FROM jsonb_each_text(taxes)"
                " AS share (rate_id, share) JOIN tax_rates ON id = rate_id::uuid)"
                f" WHERE invoice_id = {TAXED} AND position = 1"
            )
        ],
    ),
    (
        "ledger_agrees_with_taxes",
        [
            (
                "UPDATE ledger_postings SET tax_rate_id = (SELECT id FROM tax_rates"
                " WHERE name = 'City') WHERE ledger_account = 'tax'"
            )
        ],
    ),
    ("lines_match_charges", [f"UPDATE charges SET amount = 1 WHERE invoice_id = {OPEN}"]),
    ("lines_match_charges", [f"DELETE FROM charges WHERE invoice_id = {OPEN}"]),
    ("lines_match_charges", [f"UPDATE charges SET invoice_id = NULL WHERE invoice_id = {OPEN}"]),
    (
        "lines_match_charges",
        [
            (
                "INSERT INTO charges (account_id, client_id, invoice_id, charged_on, description,"
                " quantity, amount, currency) SELECT account_id, client_id, id, '2026-06-01',"
                f" 'More', 1, 1, 'usd' FROM invoices WHERE id = {OPEN}"
            )
        ],
    ),
    (
        "draft_totals_match_charges",
        ["UPDATE invoices SET subtotal = 1, total = 1 WHERE status = 'draft'"],
    ),
    (
        "draft_totals_match_charges",
        ["UPDATE invoices SET tax = 1, total = total + 1 WHERE status = 'draft'"],
    ),
    ("numbers_are_gapless", ["UPDATE number_series SET next_number = next_number + 1"]),
    ("numbers_are_gapless", ["UPDATE number_series SET next_number = next_number - 1"]),
    ("numbers_are_gapless", ["DELETE FROM number_series"]),
    (
        "numbers_are_gapless",
        ["UPDATE invoices SET sequence = 70 WHERE number = 'INV-000002'"],
    ),
    (
        "periods_tile_time",
        ["UPDATE billing_periods SET ends_at = ends_at - interval '1 s' WHERE state = 'billed'"],
    ),
    (
        "periods_tile_time",
        ["UPDATE billing_periods SET period_end = '2026-05-02' WHERE state = 'billed'"],
    ),
    ("periods_tile_time", ["DELETE FROM billing_periods WHERE state = 'empty'"]),
    (
        "billed_periods_have_invoices",
        ["UPDATE billing_periods SET state = 'empty' WHERE state = 'billed'"],
    ),
    (
        "billed_periods_have_invoices",
        ["UPDATE billing_periods SET state = 'billed' WHERE state = 'empty'"],
    ),
    (
        "drafted_periods_have_drafts",
        ["UPDATE billing_periods SET state = 'drafted' WHERE state = 'billed'"],
    ),
    (
        "drafted_periods_have_drafts",
        [
            (
                "UPDATE invoices SET currency = 'eur', period_id ="
                " (SELECT id FROM billing_periods WHERE state = 'billed' LIMIT 1)"
                " WHERE status = 'draft'"
            )
        ],
    ),
    (
        "held_periods_are_paused",
        [
            (
                "UPDATE billing_periods SET state = 'held', decided_at = decided_at - interval '2 h'"
                " WHERE state = 'empty'"
            )
        ],
    ),
    (
        "credit_balances_equal_their_entries",
        ["UPDATE credit_entries SET amount = amount - 1 WHERE kind = 'adjustment'"],
    ),
    (
        "credit_balances_agree_with_ledger",
        [
            "UPDATE credit_entries SET amount = amount - 1 WHERE kind = 'adjustment'",
            (
                "UPDATE credit_balances SET balance = balance - 1 WHERE client_id ="
                " (SELECT client_id FROM credit_entries WHERE kind = 'adjustment')"
            ),
        ],
    ),
    ("credit_balances_agree_with_ledger", ["DELETE FROM credit_balances"]),
    *(
        (
            "credit_applied_equals_its_entries",
            [f"UPDATE credit_entries SET invoice_id = NULL WHERE kind = '{kind}'"],
        )
        for kind in ("applied", "carried", "negative_invoice")
    ),
    (
        "credit_applied_equals_its_entries",
        [f"UPDATE credit_entries SET invoice_id = {OPEN} WHERE kind = 'carried'"],
    ),
    (
        "voided_invoices_return_their_credit",
        ["UPDATE credit_entries SET invoice_id = NULL WHERE kind = 'returned'"],
    ),
    (
        "voided_invoices_return_their_credit",
        ["UPDATE credit_entries SET kind = 'returned' WHERE kind = 'overpayment'"],
    ),
    (
        "voided_invoices_leave_what_was_paid_as_credit",
        ["UPDATE credit_entries SET invoice_id = NULL WHERE kind = 'settled'"],
    ),
    (
        "voided_invoices_leave_what_was_paid_as_credit",
        [
            f"UPDATE credit_entries SET kind = 'settled', invoice_id = {OPEN} WHERE kind = 'overpayment'"
        ],
    ),
    # As much as was paid in was granted instead, and corrected away again.
    (
        "grants_are_part_of_their_balance",
        [
            "UPDATE credit_grants SET amount = 600, remaining = 600 WHERE expires_on IS NULL",
            f"UPDATE credit_entries SET amount = 600 WHERE grant_id = {LASTING}",
            (
                "INSERT INTO credit_entries (client_id, currency, kind, amount, requested_by)"
                " SELECT client_id, currency, 'adjustment', -400, 'test' FROM credit_grants"
                " WHERE expires_on IS NULL"
            ),
            (
                "INSERT INTO ledger_postings (entry_id, ledger_account, currency, amount)"
                " SELECT id, side, currency, amount FROM ledger_entries, (VALUES ('promotion', 400),"
                f" ('adjustment', -400)) AS sides (side, amount) WHERE grant_id = {LASTING}"
            ),
        ],
    ),
    *(
        ("grants_agree_with_their_entries", statements)
        for statements in (
            ["UPDATE credit_grants SET amount = amount + 1, remaining = remaining + 1"],
            ["UPDATE credit_grants SET remaining = remaining + 1 WHERE expires_on IS NOT NULL"],
        )
    ),
    (
        "grants_agree_with_ledger",
        ["UPDATE ledger_entries SET grant_id = NULL WHERE event = 'expiry'"],
    ),
    (
        "grants_agree_with_ledger",
        ["UPDATE ledger_entries SET grant_id = NULL WHERE event = 'grant'"],
    ),
    (
        "invoices_use_grants_as_they_use_credit",
        [
            (
                "UPDATE credit_grant_uses SET invoice_id = (SELECT invoice_id FROM credit_entries"
                " WHERE kind = 'returned' AND amount = 50)"
            )
        ],
    ),
    (
        "invoices_use_grants_as_they_use_credit",
        [f"UPDATE credit_grant_uses SET invoice_id = {OPEN}"],
    ),
    (
        "what_grants_lack_was_spent",
        ["UPDATE credit_grants SET remaining = remaining - 1 WHERE expires_on IS NULL"],
    ),
    ("what_grants_lack_was_spent", ["UPDATE credit_grant_uses SET amount = amount - 1"]),
    (
        "expired_grants_have_nothing_left",
        ["UPDATE credit_grants SET expires_on = '2026-05-30' WHERE expires_on IS NULL"],
    ),
    (
        "credit_paid_out_equals_its_refunds",
        ["UPDATE credit_entries SET refund_id = NULL WHERE kind = 'paid_out'"],
    ),
    (
        "credit_paid_out_equals_its_refunds",
        ["UPDATE refunds SET amount = amount + 1 WHERE payment_id IS NULL"],
    ),
    (
        "credit_paid_out_equals_its_refunds",
        [
            (
                "UPDATE refunds SET amount = amount + 1"
                " WHERE invoice_id IS NULL AND destination = 'card' AND state = 'succeeded'"
            )
        ],
    ),
    (
        "amounts_paid_equal_their_payments",
        [
            (
                f"UPDATE payments SET invoice_id = {OPEN} WHERE source = 'outside'"
                " AND NOT EXISTS (SELECT FROM refunds WHERE payment_id = payments.id)"
            )
        ],
    ),
    (
        "written_off_equals_bad_debt",
        [
            (
                "UPDATE ledger_postings SET ledger_account = 'adjustment'"
                " WHERE ledger_account = 'bad_debt' AND amount > 0"
            )
        ],
    ),
    (
        "charges_have_one_open_amendment",
        [
            (
                "INSERT INTO charges (account_id, client_id, amends, charged_on, description,"
                " quantity, amount, currency) SELECT account_id, client_id, amends, charged_on,"
                f" 'Again', 1, 1, currency FROM charges WHERE {AMENDMENT}"
            )
        ],
    ),
    (
        "charges_have_one_open_amendment",
        [f"UPDATE charges SET amount = 0 WHERE {AMENDMENT}"],
    ),
    *(
        (
            "amendments_amend_billed_charges",
            [
                (
                    "UPDATE charges SET amends = (SELECT charges.id FROM charges JOIN invoices"
                    f" ON invoices.id = invoice_id WHERE {original} LIMIT 1) WHERE amends IS NOT NULL"
                )
            ],
        )
        for original in (
            "status = 'draft'",
            "status = 'void' AND amends IS NULL",
            "status = 'void' AND amends IS NOT NULL",
            "status = 'paid' AND invoices.client_id IN (SELECT client_id FROM billing_methods)",
        )
    ),
    (
        "copies_bill_what_they_copy",
        [f"UPDATE charges SET amends = NULL WHERE {AMENDMENT}"],
    ),
    (
        "copies_bill_what_they_copy",
        ["UPDATE charges SET currency = 'eur' WHERE copy_of IS NOT NULL AND amends IS NULL"],
    ),
    (
        "payments_are_posted_once",
        ["UPDATE ledger_entries SET payment_id = NULL WHERE event = 'deposit'"],
    ),
    *(
        (
            "what_payments_leave_over_is_credit",
            [f"UPDATE credit_entries SET payment_id = NULL WHERE kind = '{kind}'"],
        )
        for kind in ("deposit", "overpayment")
    ),
    *(
        ("succeeded_attempts_are_paid_once", [f"UPDATE payment_attempts SET {change}"])
        for change in (
            "state = 'canceled' WHERE state = 'succeeded'",
            "state = 'succeeded' WHERE state = 'declined'",
            "amount = amount + 1 WHERE state = 'succeeded'",
            "currency = 'eur' WHERE state = 'succeeded'",
        )
    ),
    (
        "money_for_credit_is_a_deposit",
        [
            (
                "UPDATE credit_entries SET kind = 'unexpected' WHERE payment_id IN (SELECT payments.id"
                " FROM payments JOIN payment_attempts AS tries ON tries.id = attempt_id"
                " WHERE purpose = 'deposit')"
            )
        ],
    ),
    (
        "money_for_credit_is_a_deposit",
        [
            (
                "UPDATE ledger_entries SET event = 'card_payment' WHERE payment_id IN"
                " (SELECT id FROM payments WHERE source = 'card' AND invoice_id IS NULL)"
            )
        ],
    ),
    (
        "a_clients_credit_is_charged_once_at_a_time",
        [
            "DROP INDEX uq_payment_attempts_still_open_for_credit",
            "UPDATE payment_attempts SET state = 'needs_action' WHERE purpose = 'top_up'",
            (
                "INSERT INTO payment_attempts (account_id, client_id, purpose, job_id, origin, state,"
                " amount, currency, customer, payment_method, idempotency_key) SELECT account_id,"
                " client_id, purpose, job_id, origin, state, amount, currency, customer,"
                " payment_method, 'another' FROM payment_attempts WHERE purpose = 'top_up'"
            ),
        ],
    ),
    ("top_ups_end_after_four_declines", ["UPDATE auto_top_ups SET declines = 4"]),
    ("top_ups_end_after_four_declines", ["UPDATE auto_top_ups SET declined_at = NULL"]),
    ("attempts_are_counted", ["UPDATE invoices SET attempt_count = attempt_count + 1"]),
    ("attempts_are_counted", ["UPDATE payment_attempts SET ordinal = ordinal + 1"]),
    (
        "charges_under_way_are_for_open_invoices",
        [
            (
                "UPDATE payment_attempts SET state = 'needs_action' WHERE state = 'declined'"
                " AND invoice_id IN (SELECT id FROM invoices WHERE status = 'paid')"
            )
        ],
    ),
    *(
        ("pages_are_for_what_is_due", [f"UPDATE payment_attempts SET {change}"])
        for change in (
            "amount = amount + 1 WHERE checkout_session IS NOT NULL",
            "checkout_expires_at = checkout_expires_at - interval '4 days' WHERE state = 'needs_action'",
        )
    ),
    *(
        ("charges_are_answered_in_time", [f"UPDATE payment_attempts SET {change}"])
        for change in (
            "first_asked_at = first_asked_at - interval '4 days' WHERE state = 'pending'",
            "state = 'unknown', first_asked_at = NULL, created_at = created_at - interval '4 days' WHERE state = 'pending'",
            "state = 'processing', next_ask_at = next_ask_at - interval '4 days' WHERE state = 'pending'",
        )
    ),
    (
        "tries_wait_only_where_they_may_be_made",
        ["UPDATE billing_methods SET stopped_for = 'stolen_card'"],
    ),
    (
        "tries_wait_only_where_they_may_be_made",
        [
            "ALTER TABLE invoices DROP CONSTRAINT ck_invoices_next_attempt_at",
            "UPDATE invoices SET auto_collect = false WHERE next_attempt_at IS NOT NULL",
        ],
    ),
    (
        "a_clients_second_card_is_another_one",
        [
            (
                "INSERT INTO backup_methods (client_id, account_id, stripe_customer, payment_method)"
                " SELECT client_id, account_id, 'cus_2', payment_method FROM billing_methods"
            )
        ],
    ),
    (
        "amounts_credited_equal_their_notes",
        [
            (
                "UPDATE credit_notes SET amount = amount + 1, net = net + 1,"
                " lowers_due = lowers_due + 1 WHERE NOT voids"
            )
        ],
    ),
    (
        "amounts_refunded_equal_what_went_back",
        ["UPDATE refunds SET makes_note = true WHERE destination = 'card' AND NOT makes_note"],
    ),
    (
        "credit_notes_are_posted_once",
        [
            (
                "UPDATE ledger_entries SET credit_note_id = NULL WHERE credit_note_id ="
                " (SELECT id FROM credit_notes WHERE returned_to = 'credit')"
            )
        ],
    ),
    (
        "credit_notes_return_what_they_say",
        ["UPDATE credit_entries SET credit_note_id = NULL WHERE kind = 'credit_note'"],
    ),
    (
        "credit_notes_return_what_they_say",
        ["UPDATE refunds SET amount = amount + 1 WHERE credit_note_id IS NOT NULL"],
    ),
    *(
        (
            "refunds_are_posted_once",
            [f"UPDATE ledger_entries SET refund_id = NULL WHERE event = '{event}'"],
        )
        for event in ("refund", "refund_failed")
    ),
    (
        "refunds_are_posted_once",
        [
            "UPDATE refunds SET succeeded_at = now() WHERE state = 'failed' AND succeeded_at IS NULL",
            (
                "INSERT INTO credit_entries (client_id, currency, kind, amount, refund_id, requested_by)"
                " SELECT client_id, currency, 'refund_failed', amount, id, 'test' FROM refunds"
                " WHERE makes_note AND state = 'failed'"
            ),
            (
                "UPDATE credit_balances SET balance = balance + 600 WHERE client_id IN"
                " (SELECT client_id FROM refunds WHERE makes_note AND state = 'failed')"
            ),
            (
                "WITH entry AS (INSERT INTO ledger_entries"
                " (account_id, client_id, event, currency, effective_on)"
                " SELECT account_id, client_id, 'adjustment', currency, '2026-06-01' FROM refunds"
                " WHERE makes_note AND state = 'failed' RETURNING id)"
                " INSERT INTO ledger_postings (entry_id, ledger_account, currency, amount)"
                " SELECT id, side, 'usd', amount FROM entry,"
                " (VALUES ('adjustment', 600), ('credit', -600)) AS sides (side, amount)"
            ),
        ],
    ),
    *(
        (
            "what_refunds_leave_as_credit_is_credit",
            [f"UPDATE credit_entries SET refund_id = NULL WHERE kind = '{kind}'"],
        )
        for kind in ("refund", "refund_failed")
    ),
    (
        "refunds_stay_within_their_payments",
        ["UPDATE refunds SET amount = 5900, note_amount = 5900 WHERE state = 'pending'"],
    ),
    (
        "refunds_stay_within_their_payments",
        [f"UPDATE refunds SET invoice_id = {OPEN} WHERE state = 'pending'"],
    ),
    (
        "refunds_stay_within_their_payments",
        [
            (
                "UPDATE refunds SET payment_id = (SELECT id FROM payments WHERE source = 'card'"
                " AND payments.client_id <> refunds.client_id LIMIT 1)"
                " WHERE invoice_id IS NULL AND destination = 'card' AND state = 'failed'"
            )
        ],
    ),
    (
        "amounts_refunded_equal_what_went_back",
        [f"UPDATE disputes SET invoice_id = {OPEN} WHERE amount = 2300"],
    ),
    (
        "amounts_lost_equal_their_disputes",
        ["UPDATE invoices SET amount_lost = amount_lost - 1 WHERE amount_lost > 0"],
    ),
    (
        "disputes_are_posted_as_they_stand",
        ["UPDATE disputes SET state = 'closed', opened_at = NULL WHERE state = 'won'"],
    ),
    (
        "disputed_money_is_that_of_open_disputes",
        ["UPDATE disputes SET amount = amount + 1 WHERE state = 'open'"],
    ),
    (
        "disputed_money_is_that_of_open_disputes",
        [
            (
                "UPDATE ledger_postings SET ledger_account = 'disputed'"
                " WHERE ledger_account = 'adjustment'"
            )
        ],
    ),
    (
        "what_disputes_take_back_is_credit",
        ["UPDATE credit_entries SET dispute_id = NULL WHERE kind = 'dispute'"],
    ),
    (
        "disputed_cards_are_not_tried",
        ["UPDATE billing_methods SET stopped_for = NULL WHERE stopped_for = 'disputed'"],
    ),
    (
        "refunds_stay_within_their_payments",
        [
            (
                "UPDATE disputes SET payment_id = (SELECT id FROM payments WHERE applied = 0 LIMIT 1)"
                " WHERE amount = 2300"
            )
        ],
    ),
    *(
        ("refunds_are_answered_in_time", [f"UPDATE refunds SET {change}"])
        for change in (
            "first_asked_at = first_asked_at - interval '4 days' WHERE state = 'pending'",
            "state = 'unknown', first_asked_at = NULL, created_at = created_at - interval '4 days' WHERE state = 'pending'",
            "state = 'processing', next_ask_at = next_ask_at - interval '4 days' WHERE state = 'pending'",
        )
    ),
    (
        "our_record_agrees_with_stripe_s",
        [
            (
                "UPDATE reconciliation_differences SET rechecked_at = NULL"
                " WHERE NOT repaired AND acknowledgement_id IS NULL"
            )
        ],
    ),
    (
        "our_record_agrees_with_stripe_s",
        ["UPDATE difference_acknowledgements SET withdrawn_at = now(), withdrawn_by = 'test'"],
    ),
    *(
        (
            "our_record_agrees_with_stripe_s",
            [f"UPDATE reconciliation_differences SET {change} WHERE {ACKNOWLEDGED}"],
        )
        for change in (
            "acknowledgement_id = NULL",
            "stripe_id = 're_other'",
            "difference = 'refund_amount'",
            "subject_id = uuid7()",
            "currency = 'eur'",
            "ours = 'failed'",
            "our_amount = 250",
            "theirs = 'processing'",
            "their_amount = 300",
        )
    ),
    *(
        ("sent_mails_have_their_receipts", [f"UPDATE mails SET {change}"])
        for change in (
            "message_id = NULL WHERE state = 'accepted'",
            "sent_at = NULL WHERE state = 'delivered'",
            "state = 'delivered' WHERE state = 'accepted'",
        )
    ),
    ("mails_to_be_sent_have_a_job", ["DELETE FROM jobs WHERE kind = 'send_mail'"]),
    (
        "mails_to_be_sent_have_a_job",
        ["UPDATE jobs SET state = 'dead', finished_at = now() WHERE kind = 'send_mail'"],
    ),
    (
        "runs_tell_of_their_invoices",
        ["UPDATE mails SET invoice_ids = '{}' WHERE subject_key LIKE 'run:%'"],
    ),
    (
        "runs_tell_of_their_invoices",
        [
            "DELETE FROM mails WHERE subject_key NOT LIKE 'run:%'",
            f"UPDATE mails SET invoice_ids = '{{}}' WHERE invoice_ids && ARRAY[{OPEN}]",
        ],
    ),
]


def test_sound_books_have_no_differences(engine: Engine, account: Account) -> None:
    assert audited(engine, account) == []
    books(engine, account)

    assert audited(engine, account) == []


def test_a_breach_is_named_by_exactly_its_rule(
    engine: Engine, session: Session, account: Account
) -> None:
    books(engine, account)
    for rule, statements in BREACHES:
        tamper(session, *statements)

        differences = audit(session, account.id, now=NOW)

        named = {one.rule for one in differences}
        assert {rule} <= named <= {rule, TABLE, STATEMENTS}, statements
        assert all(one.subject and one.found for one in differences), statements
        session.rollback()


def test_every_rule_has_been_seen_to_fail() -> None:
    assert {rule for rule, _ in BREACHES} == set(RULES)


def test_the_books_of_the_tests_have_every_event_and_kind(
    engine: Engine, session: Session, account: Account
) -> None:
    books(engine, account)

    assert set(session.scalars(select(LedgerEntry.event))) == {*LedgerEvent}
    # Money that came where none was due is like money paid above what was due.
    assert set(session.scalars(select(CreditEntry.kind))) == {*CreditEntryKind} - {"unexpected"}


def test_a_bank_debit_may_take_days(engine: Engine, session: Session, account: Account) -> None:
    books(engine, account)
    ten_days = "state = 'processing', first_asked_at = first_asked_at - interval '10 days'"
    tamper(session, f"UPDATE payment_attempts SET {ten_days} WHERE state = 'pending'")

    assert audit(session, account.id, now=NOW) == []


def test_a_charge_or_refund_is_overdue_by_the_clock_of_the_database_unless_told_another(
    engine: Engine, session: Session, account: Account
) -> None:
    books(engine, account)
    tamper(
        session,
        "UPDATE payment_attempts SET first_asked_at = now() WHERE state = 'pending'",
        "UPDATE payment_attempts SET next_ask_at = now() WHERE state = 'pending'",
        "UPDATE payment_attempts SET checkout_expires_at = now() WHERE state = 'needs_action'",
        "UPDATE refunds SET first_asked_at = now(), next_ask_at = now() WHERE state = 'pending'",
    )
    assert audit(session, account.id) == []

    in_four_days = database_now(session) + timedelta(days=4)
    late = [difference.rule for difference in audit(session, account.id, now=in_four_days)]
    assert late == [
        "pages_are_for_what_is_due",
        "charges_are_answered_in_time",
        "refunds_are_answered_in_time",
    ]


def test_runs_from_before_there_were_mails_are_not_accused(
    engine: Engine, session: Session, account: Account
) -> None:
    books(engine, account)
    tamper(session, "DELETE FROM mails")

    assert audit(session, account.id, now=NOW) == []


def test_an_audit_looks_at_one_account_alone(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    books(engine, account)
    for _, statements in BREACHES:
        tamper(session, *statements)

        assert audit(session, account.id, now=NOW) != []
        assert audit(session, other.id, now=NOW) == []
        session.rollback()


def test_differences_of_a_rule_are_listed_up_to_a_limit(
    engine: Engine, session: Session, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "MAX_DIFFERENCES_LISTED", 1)
    books(engine, account)
    tamper(session, f"UPDATE charges SET amount = 1 WHERE invoice_id = {OPEN}")

    assert len(audit(session, account.id, now=NOW)) == 1


def test_the_nightly_audit_counts_the_differences_of_all_accounts(
    engine: Engine, session: Session, account: Account
) -> None:
    other = create_account(session, "Other")
    session.commit()
    for owner in (account, other):
        books(engine, owner)
    tamper(session, "UPDATE number_series SET next_number = 90 WHERE document = 'invoice'")
    session.commit()

    nightly = enqueue(session, audit_books, account_id=None, requested_by="test").id
    session.commit()

    work(engine, now=NOW)

    counts = {**dict.fromkeys(RULES, 0), "numbers_are_gapless": 2}
    assert job_of(engine, nightly).result == {"accounts": 2, "differences": counts}
    children = session.scalars(select(Job).where(Job.parent_id == nightly)).all()
    assert {child.account_id for child in children} == {account.id, other.id}
    counts["numbers_are_gapless"] = 1
    assert [child.result for child in children] == [{"differences": counts}] * 2


def test_the_nightly_audit_of_no_account_is_done_at_once(engine: Engine) -> None:
    outcome = perform(engine, audit_books, None)

    assert outcome == Done({"accounts": 0, "differences": dict.fromkeys(RULES, 0)})


@pytest.fixture
def halfway(engine: Engine, session: Session, account: Account) -> tuple[UUID, UUID]:
    """The nightly audit, fanned out, and the audit of its one account, which has not started."""
    nightly = enqueue(session, audit_books, account_id=None, requested_by="test").id
    session.commit()
    dispatch(engine)
    leases = LeaseKeeper(engine, lease=LEASE, run_limit=LEASE)
    Runner(engine, leases, worker="test", lease=LEASE).run(audit_books, nightly)
    return nightly, session.scalars(select(Job.id).where(Job.account_id == account.id)).one()


def test_the_nightly_audit_woken_too_early_waits_on(
    engine: Engine, halfway: tuple[UUID, UUID]
) -> None:
    nightly, audit_of_account = halfway
    change_job(engine, audit_of_account, state="scheduled", run_at=datetime(2100, 1, 1, tzinfo=UTC))
    change_job(engine, nightly, run_at=NOW)

    assert work(engine) == 1
    assert states(engine) == ["scheduled", "scheduled"]

    change_job(engine, audit_of_account, state="ready")
    work(engine)
    assert states(engine) == ["succeeded", "succeeded"]
    assert (job_of(engine, nightly).result or {})["accounts"] == 1


def test_an_account_whose_audit_did_not_end_is_not_taken_for_sound(
    engine: Engine, halfway: tuple[UUID, UUID]
) -> None:
    nightly, audit_of_account = halfway
    with engine.begin() as connection:
        assert job_ledger.cancel(connection, audit_of_account)

    work(engine)

    job = job_of(engine, nightly)
    assert (job.state, job.reason) == ("dead", "audit_unfinished")
    assert job.error is not None
    assert str(audit_of_account) in job.error["message"]
