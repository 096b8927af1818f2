"""What the database itself refuses of invoices, their lines and their charges."""

# ruff: noqa: S608 - every statement is the test's own, and meant to be refused.

from datetime import date
from itertools import product

import pytest
from psycopg.errors import RestrictViolation
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from billing.invoice_states import TRANSITIONS, InvoiceEvent, InvoiceStatus, events_when_finalized
from models import Account, Invoice
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tests.models.conftest import Refuse
from tests.worlds import a_charge, a_client, invoices_of, perform

MAY = date(2026, 5, 1)


@pytest.fixture
def draft(engine: Engine, account: Account) -> Invoice:
    """A draft of ten dollars."""
    client = a_client(engine, account)
    a_charge(engine, client, MAY)
    perform(engine, draft_invoice, account, client_id=client.id)
    return invoices_of(engine, account)[0]


@pytest.fixture
def finalized(engine: Engine, account: Account, draft: Invoice) -> Invoice:
    """The same, finalized."""
    perform(engine, finalize_invoice, account, invoice_id=draft.id)
    return invoices_of(engine, account)[0]


FROZEN = {
    "account_id": "uuid7()",
    "client_id": "uuid7()",
    "period_id": "uuid7()",
    "run_id": "uuid7()",
    "number": "'INV-000009'",
    "sequence": "9",
    "series_year": "2026",
    "memo": "'Thank you'",
    "po_number": "'PO-9'",
    "currency": "'eur'",
    "subtotal": "subtotal + 1",
    "tax": "tax + 1",
    "total": "total + 1",
    "issued_on": "issued_on + 1",
    "due_on": "due_on + 1",
    "bill_from": "'{}'",
    "bill_to": "NULL",
    "created_at": "now()",
    "finalized_at": "now()",
}
MOVING = {
    *("status", "credit_applied", "amount_paid", "amount_due", "paid_at", "voided_at"),
    *("auto_collect", "next_attempt_at", "attempt_count", "failures", "reissued_at"),
    *("amount_credited", "amount_refunded", "amount_written_off", "written_off_at"),
    *("review_ends_at", "superseded", "amount_lost"),
}


def test_what_a_finalized_invoice_says_is_frozen(finalized: Invoice, refused: Refuse) -> None:
    for column, value in FROZEN.items():
        reason = refused(f"UPDATE invoices SET {column} = {value} WHERE id = '{finalized.id}'")

        assert isinstance(reason, RestrictViolation), column
        assert "what it says is frozen" in str(reason), column


def test_every_column_is_frozen_but_those_that_payment_and_collection_move() -> None:
    assert set(Invoice.__table__.columns.keys()) - {"id"} == FROZEN.keys() | MOVING


def test_a_draft_may_still_change(session: Session, draft: Invoice) -> None:
    session.execute(text("UPDATE invoices SET subtotal = 5, total = 5, issued_on = NULL"))

    assert session.get_one(Invoice, draft.id).total == 5


STAMPS = {
    InvoiceStatus.DRAFT: "paid_at = NULL",
    InvoiceStatus.OPEN: "paid_at = NULL, amount_paid = 0",
    InvoiceStatus.VOID: "voided_at = now(), amount_written_off = 0",
    InvoiceStatus.PAID: "paid_at = now(), amount_paid = total, amount_written_off = 0",
    InvoiceStatus.UNCOLLECTIBLE: "written_off_at = now(), amount_written_off = total",
}
FINALIZED = {
    "number": "'INV-000001'",
    "sequence": "1",
    "series_year": "0",
    "finalized_at": "now()",
    "issued_on": "now()",
    "due_on": "now()",
}
DIRECT = {(status, after) for (status, _), after in TRANSITIONS.items()} | {
    (InvoiceStatus.DRAFT, InvoiceStatus.PAID)
}
ILLEGAL = sorted({(a, b) for a, b in product(InvoiceStatus, InvoiceStatus) if a != b} - DIRECT)


def test_the_edge_from_draft_to_paid_is_finalizing_what_owes_nothing() -> None:
    assert events_when_finalized(0) == (InvoiceEvent.FINALIZE, InvoiceEvent.PAY)


def assigned(columns: dict[str, str]) -> str:
    return ", ".join(f"{column} = {value}" for column, value in columns.items())


def reach(session: Session, invoice: Invoice, status: InvoiceStatus) -> None:
    """Bring an invoice to a status behind the triggers' back."""
    session.execute(text("SET session_replication_role = replica"))
    changes = {"status": f"'{status}'"} | (FINALIZED if status != InvoiceStatus.DRAFT else {})
    session.execute(
        text(f"UPDATE invoices SET {assigned(changes)}, {STAMPS[status]} WHERE id = :id"),
        {"id": invoice.id},
    )
    session.execute(text("SET session_replication_role = origin"))


def test_an_edge_that_is_not_in_the_table_is_refused(
    session: Session, draft: Invoice, refused: Refuse
) -> None:
    for before, after in ILLEGAL:
        reach(session, draft, before)

        reason = refused(f"UPDATE invoices SET status = '{after}' WHERE id = '{draft.id}'")

        assert isinstance(reason, RestrictViolation), (before, after)
        assert f"that is {before} never becomes {after}" in str(reason)
        session.rollback()


def test_an_edge_of_the_table_is_allowed(session: Session, draft: Invoice) -> None:
    for before, after in sorted(DIRECT):
        reach(session, draft, before)
        changes = {"status": f"'{after}'"}
        if before == InvoiceStatus.DRAFT:
            changes |= FINALIZED

        session.execute(text(f"UPDATE invoices SET {assigned(changes)}, {STAMPS[after]}"))

        assert session.execute(text("SELECT status FROM invoices")).scalar_one() == after
        session.rollback()


@pytest.mark.parametrize("status", sorted(set(InvoiceStatus) - {InvoiceStatus.DRAFT}))
def test_an_invoice_begins_as_a_draft(
    draft: Invoice, refused: Refuse, status: InvoiceStatus
) -> None:
    reason = refused(
        "INSERT INTO invoices (account_id, client_id, currency, subtotal, total, status)"
        f" VALUES ('{draft.account_id}', '{draft.client_id}', 'usd', 1, 1, '{status}')"
    )

    assert isinstance(reason, RestrictViolation)
    assert "begins as a draft" in str(reason)


def test_a_finalized_invoice_is_never_deleted(finalized: Invoice, refused: Refuse) -> None:
    reason = refused(f"DELETE FROM invoices WHERE id = '{finalized.id}'")

    assert "can be voided, not deleted" in str(reason)
    assert "its rows are never changed" in str(refused("TRUNCATE invoices CASCADE"))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE invoice_lines SET description = 'Free'",
        "DELETE FROM invoice_lines",
        "TRUNCATE invoice_lines",
    ],
)
def test_lines_are_never_changed(finalized: Invoice, refused: Refuse, statement: str) -> None:
    assert finalized.number is not None
    assert "its rows are never changed" in str(refused(statement))


def test_no_line_is_added_to_a_finalized_invoice(finalized: Invoice, refused: Refuse) -> None:
    reason = refused(
        "INSERT INTO invoice_lines (invoice_id, position, charge_id, charged_on, description,"
        " quantity, amount, net)"
        f" VALUES ('{finalized.id}', 2, uuid7(), '2026-05-01', 'More', 1, 1, 1)"
    )

    assert "nothing can be added to it" in str(reason)


TAXED = (
    "INSERT INTO invoice_taxes (invoice_id, tax_rate_id, position, name, percent, inclusive, net, tax)"
    " SELECT '{}', id, {}, name, percent, inclusive, 1000, 70 FROM tax_rates"
)


def a_tax_rate(session: Session, invoice: Invoice) -> None:
    session.execute(
        text(
            "INSERT INTO tax_rates (account_id, name, percent, inclusive, valid_from)"
            f" VALUES ('{invoice.account_id}', 'VAT', 7, false, '2026-01-01')"
        )
    )


@pytest.mark.parametrize(
    "statement",
    ["UPDATE invoice_taxes SET tax = 0", "DELETE FROM invoice_taxes", "TRUNCATE invoice_taxes"],
)
def test_taxes_are_written_while_an_invoice_is_a_draft_and_never_changed(
    session: Session, draft: Invoice, refused: Refuse, statement: str
) -> None:
    a_tax_rate(session, draft)
    session.execute(text(TAXED.format(draft.id, 1)))

    assert "its rows are never changed" in str(refused(statement))
    # A rate stands on an invoice once, in a place of its own.
    assert "pk_invoice_taxes" in str(refused(TAXED.format(draft.id, 2)))
    a_tax_rate(session, draft)
    assert "uq_invoice_taxes_invoice_id_position" in str(
        refused(f"{TAXED.format(draft.id, 1)} ORDER BY id DESC LIMIT 1")
    )


def test_no_tax_is_added_to_a_finalized_invoice(
    session: Session, finalized: Invoice, refused: Refuse
) -> None:
    a_tax_rate(session, finalized)

    assert "nothing can be added to it" in str(refused(TAXED.format(finalized.id, 1)))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE charges SET amount = 1",
        "UPDATE charges SET description = 'Free'",
        "UPDATE charges SET invoice_id = NULL",
        "DELETE FROM charges",
    ],
)
def test_a_charge_on_a_finalized_invoice_is_immutable(
    finalized: Invoice, refused: Refuse, statement: str
) -> None:
    assert finalized.number is not None
    assert "is on a finalized invoice" in str(refused(statement))


def test_a_charge_on_a_draft_may_change_and_go(session: Session, draft: Invoice) -> None:
    assert draft.number is None
    session.execute(text("UPDATE charges SET amount = 1"))
    session.execute(text("UPDATE charges SET invoice_id = NULL"))
    session.execute(text("DELETE FROM charges"))


def test_no_charge_is_put_on_a_finalized_invoice(
    engine: Engine, finalized: Invoice, refused: Refuse
) -> None:
    columns = "account_id, client_id, charged_on, description, quantity, amount, currency"
    values = f"'{finalized.account_id}', '{finalized.client_id}', '2026-05-01', 'More', 1, 1, 'usd'"
    inserted = refused(
        f"INSERT INTO charges ({columns}, invoice_id) VALUES ({values}, '{finalized.id}')"
    )
    assert "is on a finalized invoice" in str(inserted)

    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO charges ({columns}) VALUES ({values})"))
    moved = refused(f"UPDATE charges SET invoice_id = '{finalized.id}' WHERE invoice_id IS NULL")
    assert "nothing can be added to it" in str(moved)
