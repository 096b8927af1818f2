"""What the database itself refuses of the books."""

# ruff: noqa: S608 - every statement is the test's own, and meant to be refused.

from datetime import date
from uuid import UUID

import pytest
from psycopg.errors import CheckViolation, ForeignKeyViolation, RestrictViolation, UniqueViolation
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from models import Account, Invoice
from tasks.accounts import create_account
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tests.models.conftest import Refuse
from tests.worlds import a_charge, a_client, invoices_of, perform


@pytest.fixture
def posted(engine: Engine, account: Account) -> Invoice:
    """An invoice of ten dollars, in the books."""
    client = a_client(engine, account)
    a_charge(engine, client, date(2026, 5, 1))
    perform(engine, draft_invoice, account, client_id=client.id)
    [draft] = invoices_of(engine, account)
    perform(engine, finalize_invoice, account, invoice_id=draft.id)
    return draft


@pytest.fixture
def entry(session: Session, posted: Invoice) -> UUID:
    """An entry that has no postings yet."""
    made: UUID = session.execute(
        text(
            "INSERT INTO ledger_entries"
            " (account_id, client_id, invoice_id, event, currency, effective_on)"
            " VALUES (:account, :client, :invoice, 'void', 'usd', '2026-06-01') RETURNING id"
        ),
        {"account": posted.account_id, "client": posted.client_id, "invoice": posted.id},
    ).scalar_one()
    return made


def adding(entry: UUID, *sides: tuple[str, int], currency: str = "usd") -> str:
    rows = ", ".join(
        f"('{entry}', '{account}', '{currency}', {amount})" for account, amount in sides
    )
    return f"INSERT INTO ledger_postings (entry_id, ledger_account, currency, amount) VALUES {rows}"


@pytest.mark.parametrize("table", ["ledger_entries", "ledger_postings"])
@pytest.mark.parametrize(
    "statement",
    ["UPDATE {} SET currency = currency", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
)
def test_the_books_are_only_added_to(
    posted: Invoice, refused: Refuse, table: str, statement: str
) -> None:
    assert posted.id is not None

    reason = refused(statement.format(table))

    assert isinstance(reason, RestrictViolation)
    assert "its rows are never changed" in str(reason)


@pytest.mark.parametrize(
    "sides",
    [
        [("receivable", 1)],
        [("receivable", 1), ("revenue", -2)],
        [("receivable", 10**15), ("revenue", -(10**15) + 1)],
    ],
)
def test_an_entry_that_does_not_balance_is_refused(
    entry: UUID, refused: Refuse, sides: list[tuple[str, int]]
) -> None:
    reason = refused(adding(entry, *sides))

    assert isinstance(reason, CheckViolation)
    assert f"ledger entry {entry} does not balance" in str(reason)


def test_a_balanced_entry_stays_balanced(session: Session, entry: UUID, refused: Refuse) -> None:
    session.execute(text(adding(entry, ("receivable", -10), ("revenue", 10))))

    assert "does not balance" in str(refused(adding(entry, ("revenue", 1))))


def test_one_unbalanced_entry_spoils_a_statement(
    session: Session, entry: UUID, refused: Refuse
) -> None:
    posted = session.execute(
        text("SELECT id FROM ledger_entries WHERE event = 'finalize'")
    ).scalar_one()
    good = adding(entry, ("receivable", -10), ("revenue", 10))

    assert str(posted) in str(refused(f"{good}, ('{posted}', 'revenue', 'usd', 3)"))


def test_a_posting_is_in_its_entrys_currency(entry: UUID, refused: Refuse) -> None:
    sides = [("receivable", -10), ("revenue", 10)]

    assert isinstance(refused(adding(entry, *sides, currency="eur")), ForeignKeyViolation)


def test_a_posting_moves_something(entry: UUID, refused: Refuse) -> None:
    assert "ck_ledger_postings_amount" in str(refused(adding(entry, ("revenue", 0))))


def test_a_posting_is_to_a_known_account(entry: UUID, refused: Refuse) -> None:
    sides = [("petty_cash", 1), ("revenue", -1)]

    assert "ck_ledger_postings_ledger_account" in str(refused(adding(entry, *sides)))


def test_tax_is_booked_by_rate_and_nothing_else_is(
    session: Session, posted: Invoice, entry: UUID, refused: Refuse
) -> None:
    sides = [("tax", -70), ("revenue", 70)]
    assert "ck_ledger_postings_tax_rate" in str(refused(adding(entry, *sides)))

    session.execute(
        text(
            "INSERT INTO tax_rates (account_id, name, percent, inclusive, valid_from)"
            f" VALUES ('{posted.account_id}', 'VAT', 7, false, '2026-01-01')"
        )
    )
    by_rate = (
        "INSERT INTO ledger_postings (entry_id, ledger_account, currency, amount, tax_rate_id)"
        f" SELECT '{entry}', account, 'usd', amount, id FROM tax_rates,"
        " (VALUES ('{}', -70), ('{}', 70)) AS sides (account, amount)"
    )
    assert "ck_ledger_postings_tax_rate" in str(refused(by_rate.format("tax", "revenue")))
    session.execute(text(by_rate.format("tax", "tax")))


def test_an_entry_is_of_a_known_event(posted: Invoice, refused: Refuse) -> None:
    assert "ck_ledger_entries_event" in str(refused(an_entry(posted, "'theft'", "now()")))


def an_entry(invoice: Invoice, event: str, effective_on: str, **columns: str) -> str:
    """The statement that adds an entry; all values are SQL."""
    values = {
        "account_id": f"'{invoice.account_id}'",
        "client_id": f"'{invoice.client_id}'",
        "event": event,
        "currency": "'usd'",
        "effective_on": effective_on,
        **columns,
    }
    return f"INSERT INTO ledger_entries ({', '.join(values)}) VALUES ({', '.join(values.values())})"


def test_a_month_that_was_closed_stays_as_it_was_reported(
    session: Session, account: Account, posted: Invoice, refused: Refuse
) -> None:
    session.execute(text("UPDATE accounts SET books_closed_through = '2026-05-31'"))
    for day in ("2026-05-31", "2026-05-01", "1999-01-01"):
        reason = refused(an_entry(posted, "'adjustment'", f"'{day}'"))

        assert isinstance(reason, RestrictViolation)
        assert "the books are closed through 2026-05-31" in str(reason)
    session.execute(text(an_entry(posted, "'adjustment'", "'2026-06-01'")))
    # One closes its own books, not those of others.
    other = create_account(session, "Other")
    session.execute(
        text("UPDATE accounts SET books_closed_through = '2099-12-31' WHERE id = :id"),
        {"id": other.id},
    )
    session.execute(text(an_entry(posted, "'adjustment'", "'2026-06-02'")))
    assert account.id != other.id


@pytest.mark.parametrize("day", ["'2026-05-30'", "'1999-01-01'", "NULL"])
def test_books_that_were_closed_stay_closed(
    session: Session, account: Account, refused: Refuse, day: str
) -> None:
    close = f"UPDATE accounts SET books_closed_through = {{}} WHERE id = '{account.id}'"
    session.execute(text(close.format("'2026-05-31'")))
    at = session.scalars(select(Account.books_closed_at)).one()
    assert at is not None

    assert "closed through 2026-05-31, and stay closed" in str(refused(close.format(day)))
    session.execute(text(close.format("'2026-06-30'")))
    again_at = session.scalars(select(Account.books_closed_at)).one()
    assert again_at is not None
    assert again_at > at


def test_an_event_of_an_invoice_is_posted_once(posted: Invoice, refused: Refuse) -> None:
    reason = refused(
        "INSERT INTO ledger_entries"
        " (account_id, client_id, invoice_id, event, currency, effective_on)"
        " SELECT account_id, client_id, invoice_id, event, currency, effective_on"
        f" FROM ledger_entries WHERE invoice_id = '{posted.id}'"
    )

    assert isinstance(reason, UniqueViolation)
