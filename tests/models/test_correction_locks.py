"""What the database itself refuses of credit notes, refunds, grants and tax rates."""

# ruff: noqa: S608 - every statement is the test's own, and meant to be refused.

from datetime import date

import pytest
from psycopg.errors import CheckViolation, ForeignKeyViolation, RestrictViolation
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.errors import RuleViolation
from billing.refunds import REFUND_TRANSITIONS, UNSETTLED_REFUNDS, RefundState
from models import Account, Client, Invoice, Refund
from tasks.accounts import create_account
from tests.models.conftest import Refuse
from tests.money import an_invoice
from tests.worlds import NOW, a_client


@pytest.fixture
def invoice(engine: Engine, account: Account) -> Invoice:
    """An open invoice of ten dollars."""
    return an_invoice(engine, account, a_client(engine, account))


@pytest.fixture
def stranger(engine: Engine, account: Account) -> Client:
    """Another client of the same account."""
    return a_client(engine, account, name="Bob Exports")


def run(session: Session, statement: str) -> None:
    assert session.connection().execute(text(statement)).rowcount > 0


def _insert(table: str, values: dict[str, str]) -> str:
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})"


def note(invoice: Invoice, **columns: str) -> str:
    """The statement that adds a credit note of three dollars; ``columns`` are SQL."""
    values = {
        "account_id": f"'{invoice.account_id}'",
        "client_id": f"'{invoice.client_id}'",
        "invoice_id": f"'{invoice.id}'",
        "number": "'CN-000001'",
        "sequence": "1",
        "series_year": "0",
        "currency": "'usd'",
        "amount": "300",
        "net": "300",
        "tax": "0",
        "lowers_due": "300",
        "issued_on": "now()",
        "requested_by": "'test'",
        **columns,
    }
    return _insert("credit_notes", values)


def refund(invoice: Invoice, **columns: str) -> str:
    """The statement that adds a refund on its way to a card; ``columns`` are SQL."""
    values = {
        "account_id": f"'{invoice.account_id}'",
        "client_id": f"'{invoice.client_id}'",
        "invoice_id": f"'{invoice.id}'",
        "payment_id": f"'{PAYMENT}'",
        "currency": "'usd'",
        "amount": "300",
        "destination": "'card'",
        "makes_note": "false",
        "job_id": "uuid7()",
        "idempotency_key": "uuid7()::text",
        "next_ask_at": "now()",
        "requested_by": "'test'",
        **columns,
    }
    return _insert("refunds", values)


PAYMENT = "00000000-0000-0000-0000-00000000000b"


def a_payment(session: Session, invoice: Invoice) -> None:
    """Four dollars in cash."""
    run(
        session,
        _insert(
            "payments",
            {
                "id": f"'{PAYMENT}'",
                "account_id": f"'{invoice.account_id}'",
                "client_id": f"'{invoice.client_id}'",
                "invoice_id": f"'{invoice.id}'",
                "source": "'outside'",
                "method": "'cash'",
                "currency": "'usd'",
                "amount": "400",
                "applied": "400",
                "paid_on": "now()",
                "requested_by": "'test'",
            },
        ),
    )


# Credit notes


@pytest.mark.parametrize(
    "statement",
    ["UPDATE {} SET reason = 'none'", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
)
def test_a_credit_note_is_never_changed(refused: Refuse, statement: str) -> None:
    assert "its rows are never changed" in str(refused(statement.format("credit_notes")))


def test_a_credit_note_says_what_it_is(invoice: Invoice, refused: Refuse) -> None:
    for constraint, columns in (
        ("currency", {"currency": "'USD'"}),
        ("amount", {"amount": "0", "net": "0", "lowers_due": "0"}),
        ("amount", {"net": "299"}),
        # What it takes is what it lowers and returns.
        ("settlement", {"lowers_due": "299"}),
        ("settlement", {"lowers_due": "-1", "returned": "301", "returned_to": "'credit'"}),
        ("settlement", {"lowers_due": "301", "returned": "-1"}),
        # The void moved the money.
        ("settlement", {"voids": "true"}),
        ("returned", {"lowers_due": "299", "returned": "1"}),
        ("returned", {"returned_to": "'credit'"}),
        ("returned_to", {"lowers_due": "0", "returned": "300", "returned_to": "'charity'"}),
    ):
        reason = refused(note(invoice, **columns))
        assert isinstance(reason, CheckViolation)
        assert f"ck_credit_notes_{constraint}" in str(reason), columns


def test_a_credit_note_is_of_one_client_in_the_currency_of_its_invoice(
    session: Session, invoice: Invoice, stranger: Client, refused: Refuse
) -> None:
    other = create_account(session, "Other")
    for columns in (
        {"account_id": f"'{other.id}'"},
        {"client_id": f"'{stranger.id}'"},
        {"currency": "'eur'"},
    ):
        assert isinstance(refused(note(invoice, **columns)), ForeignKeyViolation), columns


def test_credit_notes_share_no_number_and_an_invoice_is_voided_by_one(
    session: Session, invoice: Invoice, refused: Refuse
) -> None:
    voiding = {"voids": "true", "lowers_due": "0"}
    run(session, note(invoice, **voiding))

    same_number = note(invoice, sequence="2")
    assert "uq_credit_notes_account_id_number" in str(refused(same_number))
    same_place = note(invoice, number="'CN-1'")
    assert "uq_credit_notes_account_id_series_year_sequence" in str(refused(same_place))
    second = {"number": "'CN-000002'", "sequence": "2"}
    assert "uq_credit_notes_voids" in str(refused(note(invoice, **second, **voiding)))
    run(session, note(invoice, **second))


def test_a_credit_note_is_booked_once(session: Session, invoice: Invoice, refused: Refuse) -> None:
    run(session, note(invoice))
    booked = booking(invoice, "credit_note", "credit_note_id", "credit_notes")
    run(session, booked)

    assert "uq_ledger_entries_credit_note_id" in str(refused(booked))


def booking(invoice: Invoice, event: str, column: str, table: str) -> str:
    """The statement that books the one row of a table."""
    return (
        f"INSERT INTO ledger_entries (account_id, client_id, {column}, event, currency, effective_on)"
        f" SELECT '{invoice.account_id}', '{invoice.client_id}', id, '{event}', 'usd', now()"
        f" FROM {table}"
    )


# Refunds


def test_a_refund_says_what_it_is(session: Session, invoice: Invoice, refused: Refuse) -> None:
    a_payment(session, invoice)
    for constraint, columns in (
        ("state", {"state": "'lost'", "next_ask_at": "NULL"}),
        ("currency", {"currency": "'USD'"}),
        ("amount", {"amount": "0"}),
        ("destination", {"destination": "'charity'"}),
        # Only a payment can go back to a card, and only under a key.
        ("card", {"payment_id": "NULL"}),
        ("card", {"idempotency_key": "NULL"}),
        # Whatever is out is asked for, and nothing else is.
        ("next_ask", {"next_ask_at": "NULL"}),
        ("next_ask", {"state": "'processing'", "next_ask_at": "NULL"}),
        ("next_ask", {"state": "'succeeded'"}),
        ("next_ask", {"state": "'failed'"}),
    ):
        reason = refused(refund(invoice, **columns))
        assert isinstance(reason, CheckViolation)
        assert f"ck_refunds_{constraint}" in str(reason), columns


def test_a_refund_is_of_one_client_in_the_currency_of_its_invoice(
    session: Session, invoice: Invoice, stranger: Client, refused: Refuse
) -> None:
    a_payment(session, invoice)
    other = create_account(session, "Other")
    for columns in (
        {"account_id": f"'{other.id}'"},
        {"client_id": f"'{stranger.id}'"},
        {"currency": "'eur'"},
        {"payment_id": "uuid7()"},
        {"credit_note_id": "uuid7()"},
    ):
        assert isinstance(refused(refund(invoice, **columns)), ForeignKeyViolation), columns


@pytest.mark.parametrize("first", sorted(UNSETTLED_REFUNDS))
def test_an_invoice_has_one_refund_on_its_way(
    session: Session, invoice: Invoice, refused: Refuse, first: str
) -> None:
    a_payment(session, invoice)
    run(session, refund(invoice, state=f"'{first}'"))

    for second in sorted(UNSETTLED_REFUNDS):
        assert "uq_refunds_unsettled" in str(refused(refund(invoice, state=f"'{second}'")))
    run(session, refund(invoice, state="'succeeded'", next_ask_at="NULL"))


def test_refunds_share_no_key_nor_name_at_stripe_and_are_booked_once_for_each_event(
    session: Session, invoice: Invoice, refused: Refuse
) -> None:
    a_payment(session, invoice)
    ended = {"state": "'succeeded'", "next_ask_at": "NULL"}
    run(session, refund(invoice, idempotency_key="'k'", stripe_refund="'re_1'", **ended))
    for name, columns in (
        ("idempotency_key", {"idempotency_key": "'k'"}),
        ("stripe_refund", {"stripe_refund": "'re_1'"}),
    ):
        assert f"uq_refunds_{name}" in str(refused(refund(invoice, **ended, **columns)))

    run(session, booking(invoice, "refund", "refund_id", "refunds"))
    run(session, booking(invoice, "refund_failed", "refund_id", "refunds"))
    for event in ("refund", "refund_failed"):
        twice = booking(invoice, event, "refund_id", "refunds")
        assert "uq_ledger_entries_refund_id_event" in str(refused(twice))


FROZEN = {
    "payment_id": "NULL",
    "invoice_id": "NULL",
    "amount": "amount + 1",
    "currency": "'eur'",
    "destination": "'outside'",
    "idempotency_key": "'another'",
    "makes_note": "NOT makes_note",
    "note_amount": "amount",
    "note_positions": "'{9}'",
}
MOVING = {
    *("state", "stripe_refund", "message", "asks", "first_asked_at", "next_ask_at", "settled_at"),
    # The note is written once the money has moved.
    *("credit_note_id", "succeeded_at"),
}
# Who it is of, what made it and why is not asked of Stripe.
UNUSED = {"id", "account_id", "client_id", "reason", "reference", "job_id", "requested_by"} | {
    "created_at"
}


def test_what_was_asked_for_is_frozen(session: Session, invoice: Invoice, refused: Refuse) -> None:
    assert FROZEN.keys() | MOVING | UNUSED == {*Refund.__table__.columns.keys()}
    a_payment(session, invoice)
    run(session, refund(invoice))
    for column, value in FROZEN.items():
        reason = refused(f"UPDATE refunds SET {column} = {value}")

        assert isinstance(reason, RestrictViolation), column
        assert "was asked for as it stands" in str(reason), column


@pytest.mark.parametrize("state", sorted({*RefundState} - UNSETTLED_REFUNDS))
def test_the_outcome_of_a_refund_is_taken_back_by_the_bank_alone(
    session: Session, invoice: Invoice, refused: Refuse, state: RefundState
) -> None:
    a_payment(session, invoice)
    run(session, refund(invoice, state=f"'{state}'", next_ask_at="NULL"))
    for to in sorted({*RefundState} - {state}):
        asks = "now()" if to in UNSETTLED_REFUNDS else "NULL"
        change = f"UPDATE refunds SET state = '{to}', next_ask_at = {asks}"
        if to in REFUND_TRANSITIONS[state]:
            with session.begin_nested() as tried:
                run(session, change)
                tried.rollback()
        else:
            assert f"that is {state} never becomes {to}" in str(refused(change))


def test_a_refund_moves_as_the_table_says(session: Session, invoice: Invoice) -> None:
    a_payment(session, invoice)
    run(session, refund(invoice))
    one = session.scalars(select(Refund)).one()

    one.move(RefundState.UNKNOWN, NOW, ask_at=NOW)
    session.flush()
    assert (one.next_ask_at, one.settled_at) == (NOW, None)
    one.move(RefundState.SUCCEEDED, NOW, ask_at=NOW)
    session.flush()
    assert (one.next_ask_at, one.settled_at) == (None, NOW)
    with pytest.raises(RuleViolation):
        one.move(RefundState.PROCESSING, NOW, ask_at=NOW)
    one.move(RefundState.FAILED, NOW)
    session.flush()
    assert one.state == "failed"


# What is kept


@pytest.mark.parametrize("table", ["refunds", "credit_grants", "tax_rates"])
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_what_moved_money_or_taxed_it_is_never_forgotten(
    refused: Refuse, table: str, statement: str
) -> None:
    assert "its rows are never changed" in str(refused(statement.format(table)))


@pytest.mark.parametrize(
    "change",
    [
        "name = 'GST'",
        "percent = 8",
        "inclusive = true",
        "valid_from = '2026-01-02'",
        "id = uuid7()",
        "account_id = uuid7()",
    ],
)
def test_only_the_end_of_a_tax_rate_changes(
    session: Session, account: Account, refused: Refuse, change: str
) -> None:
    run(
        session,
        "INSERT INTO tax_rates (account_id, name, percent, inclusive, valid_from)"
        f" VALUES ('{account.id}', 'VAT', 7, false, '2026-01-01')",
    )

    assert "only the end of tax rate" in str(refused(f"UPDATE tax_rates SET {change}"))
    for end in (f"'{date(2026, 7, 1)}'", "NULL"):
        run(session, f"UPDATE tax_rates SET valid_to = {end}")
