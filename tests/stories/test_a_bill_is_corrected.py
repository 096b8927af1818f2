"""A bill that was wrong, twice; and one that nobody believed in any more."""

from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from models import Charge, Client, Invoice
from tasks.amending import change_charge
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tasks.marking_paid import mark_invoice_paid
from tasks.reissuing import reissue_invoice
from tasks.voiding import void_invoice
from tasks.writing_off import write_off_invoice
from tests.money import assert_no_money_is_lost, booked, invoice_of
from tests.stories.conftest import JUNE, Till
from tests.worlds import a_charge, a_client, bill, change, invoices_of

JULY, AUGUST = (JUNE + timedelta(days=days) for days in (30, 61))


def correct(till: Till, charge: UUID, quantity: int, *, on: int) -> None:
    """Say that it was so many pieces, some days after the first of June."""
    with Session(till.engine) as session, session.begin():
        changes = {"quantity": Decimal(quantity)}
        now = JUNE + timedelta(days=on)
        change_charge(session, till.account.id, charge, changes, now=now)


def billed(till: Till, client: Client) -> list[tuple[str | None, str, int]]:
    return [(one.number, one.status, one.total) for one in invoices_of(till.engine, client)]


def test_a_bill_is_corrected_over_two_months_voided_and_billed_again(till: Till) -> None:
    ada = a_client(
        till.engine,
        till.account,
        now=JUNE - timedelta(days=31),
        billing_cycle="monthly",
        billing_starts_on=date(2026, 5, 1),
    )
    labels = a_charge(till.engine, ada, date(2026, 5, 12), "0.25", quantity=Decimal(4000))
    bill(till.engine, till.account, now=JUNE)

    # Counted again in June, they were more: the next bill says so beside June's own work.
    correct(till, labels, 4200, on=9)
    a_charge(till.engine, ada, date(2026, 6, 12), "80.00")
    bill(till.engine, till.account, now=JULY)
    # Counted once more in July, they were fewer than ever.
    correct(till, labels, 3900, on=39)
    bill(till.engine, till.account, now=AUGUST)

    assert billed(till, ada) == [
        ("INV-000001", "open", 100_000),
        ("INV-000002", "open", 13_000),
        ("INV-000003", "paid", -7_500),
    ]
    # What was too much paid for the oldest at once.
    assert invoices_of(till.engine, ada)[0].amount_due == 92_500

    # July's bill had the wrong address: it is voided, and its correction is billed again with it.
    july = invoices_of(till.engine, ada)[1]
    void = till.ask(void_invoice, invoice_id=july.id)
    refused = till.ask(void_invoice, invoice_id=invoices_of(till.engine, ada)[0].id)
    till.work(AUGUST)
    assert till.ended(void) == ("succeeded", None)
    # Not so May's, of which August's correction stands.
    assert till.ended(refused) == ("skipped", "charge_amended")
    change(till.engine, ada, now=AUGUST, address={"line1": "2 Dock Street"})
    till.ask(reissue_invoice, invoice_id=july.id)
    till.work(AUGUST)
    till.ask(draft_invoice, client_id=ada.id)
    till.work(AUGUST)
    draft = invoices_of(till.engine, ada)[-1]
    till.ask(finalize_invoice, invoice_id=draft.id)
    till.work(AUGUST)

    assert billed(till, ada)[1:] == [
        ("INV-000002", "void", 13_000),
        ("INV-000003", "paid", -7_500),
        ("INV-000004", "open", 13_000),
    ]
    with Session(till.engine) as session:
        standing = select(Charge.amount).join(Invoice, Invoice.id == Charge.invoice_id)
        about_the_labels = session.scalars(
            standing.where(
                Invoice.status != "void", (Charge.id == labels) | (Charge.amends == labels)
            )
        )
        # 3,900 at 0.25.
        assert sum(about_the_labels) == 97_500
    assert_no_money_is_lost(till.engine, till.account)


def test_a_bill_that_was_given_up_is_paid_by_and_by(till: Till) -> None:
    bob = till.client("Bob Goods", "pm_card_chargeDeclinedInsufficientFunds")
    till.bill_may()
    invoice = till.invoice(bob)
    till.ask(write_off_invoice, invoice_id=invoice.id)
    till.work(JUNE)
    assert (till.invoice(bob).status, till.invoice(bob).amount_due) == ("uncollectible", 0)
    till.sweep(JUNE + timedelta(days=3, hours=10))
    assert len(till.attempts(bob)) == 1

    till.ask(mark_invoice_paid, invoice_id=invoice.id, amount=invoice.total // 2)
    till.work(JULY)
    half = invoice_of(till.engine, invoice.id)
    assert (half.status, half.amount_written_off) == ("uncollectible", invoice.total // 2)
    assert_no_money_is_lost(till.engine, till.account)

    till.ask(mark_invoice_paid, invoice_id=invoice.id)
    till.work(AUGUST)

    paid = invoice_of(till.engine, invoice.id)
    assert (paid.status, paid.amount_paid, paid.amount_written_off) == ("paid", invoice.total, 0)
    lost = booked(till.engine, "write_off") + booked(till.engine, "recovery")
    assert sum(sides["bad_debt"] for _, sides in lost) == 0
    assert till.charged(bob) == []
    assert_no_money_is_lost(till.engine, till.account)
