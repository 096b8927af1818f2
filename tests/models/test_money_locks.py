"""What the database itself refuses of credit, payments, attempts at cards and mails."""

# ruff: noqa: S608 - every statement is the test's own, and meant to be refused.

from datetime import date
from uuid import UUID

import pytest
from psycopg.errors import CheckViolation, ForeignKeyViolation, RestrictViolation, UniqueViolation
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from billing.collection import ATTEMPT_TRANSITIONS, SETTLED, AttemptState
from models import Account, Client, Invoice, PaymentAttempt
from tasks.accounts import create_account
from tasks.drafting import draft_invoice
from tasks.finalizing import finalize_invoice
from tests.models.conftest import Refuse
from tests.worlds import NOW, a_charge, a_client, invoices_of, perform


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    return a_client(engine, account, name="Ada Imports")


@pytest.fixture
def invoice(engine: Engine, account: Account, client: Client) -> Invoice:
    """An open invoice of ten dollars."""
    a_charge(engine, client, date(2026, 5, 1))
    perform(engine, draft_invoice, account, client_id=client.id)
    [draft] = invoices_of(engine, client)
    perform(engine, finalize_invoice, account, invoice_id=draft.id)
    return invoices_of(engine, client)[0]


@pytest.fixture
def stranger(engine: Engine, account: Account) -> Client:
    """Another client of the same account."""
    return a_client(engine, account, name="Bob Exports")


def run(session: Session, statement: str) -> None:
    assert session.connection().execute(text(statement)).rowcount > 0


def attempt(invoice: Invoice, **columns: str) -> str:
    """The statement that adds an attempt; ``columns`` are SQL."""
    values = {
        "id": "uuid7()",
        "account_id": f"'{invoice.account_id}'",
        "client_id": f"'{invoice.client_id}'",
        "invoice_id": f"'{invoice.id}'",
        "job_id": "uuid7()",
        "ordinal": "1",
        "origin": "'staff'",
        "state": "'pending'",
        "amount": "1000",
        "currency": "'usd'",
        "customer": "'cus_1'",
        "payment_method": "'pm_1'",
        "idempotency_key": "uuid7()::text",
        "next_ask_at": "now()",
        **columns,
    }
    return _insert("payment_attempts", values)


def payment(invoice: Invoice, **columns: str) -> str:
    """The statement that adds an outside payment; ``columns`` are SQL."""
    values = {
        "account_id": f"'{invoice.account_id}'",
        "client_id": f"'{invoice.client_id}'",
        "invoice_id": f"'{invoice.id}'",
        "source": "'outside'",
        "method": "'cash'",
        "currency": "'usd'",
        "amount": "1000",
        "applied": "1000",
        "paid_on": "now()",
        "requested_by": "'test'",
        **columns,
    }
    return _insert("payments", values)


def entry(client_id: UUID, **columns: str) -> str:
    """The statement that adds a movement of credit; ``columns`` are SQL."""
    values = {
        "client_id": f"'{client_id}'",
        "currency": "'usd'",
        "kind": "'deposit'",
        "amount": "1000",
        "requested_by": "'test'",
        **columns,
    }
    return _insert("credit_entries", values)


def mail(client: Client, **columns: str) -> str:
    """The statement that adds a mail; ``columns`` are SQL."""
    values = {
        "account_id": f"'{client.account_id}'",
        "client_id": f"'{client.id}'",
        "kind": "'receipt'",
        "subject_key": "'payment:1'",
        "recipient": "'ada@example.com'",
        "invoice_ids": "'{}'",
        "requested_by": "'test'",
        **columns,
    }
    return _insert("mails", values)


def _insert(table: str, values: dict[str, str]) -> str:
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})"


def a_balance(session: Session, client: Client, currency: str = "usd") -> None:
    run(
        session,
        "INSERT INTO credit_balances (account_id, client_id, currency)"
        f" VALUES ('{client.account_id}', '{client.id}', '{currency}')",
    )


# Credit and payments


@pytest.mark.parametrize("table", ["credit_entries", "payments"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET currency = currency", "DELETE FROM {}", "TRUNCATE {} CASCADE"]
)
def test_what_money_did_is_only_added_to(refused: Refuse, table: str, statement: str) -> None:
    reason = refused(statement.format(table))

    assert isinstance(reason, RestrictViolation)
    assert "its rows are never changed" in str(reason)


def test_credit_moves_in_one_client_and_one_currency(
    session: Session, client: Client, stranger: Client, invoice: Invoice, refused: Refuse
) -> None:
    assert isinstance(refused(entry(client.id)), ForeignKeyViolation)  # It has no balance yet.
    a_balance(session, client)
    a_balance(session, client, "eur")
    a_balance(session, stranger)
    of_invoice = {"kind": "'applied'", "invoice_id": f"'{invoice.id}'"}

    run(session, entry(client.id, **of_invoice))
    for wrong in (
        entry(stranger.id, **of_invoice),
        entry(client.id, currency="'eur'", **of_invoice),
        entry(client.id, payment_id="uuid7()"),
    ):
        assert isinstance(refused(wrong), ForeignKeyViolation), wrong


def test_a_movement_of_credit_is_of_a_known_kind_and_moves_something(
    session: Session, client: Client, refused: Refuse
) -> None:
    a_balance(session, client)

    assert "ck_credit_entries_kind" in str(refused(entry(client.id, kind="'gift'")))
    assert "ck_credit_entries_amount" in str(refused(entry(client.id, amount="0")))


def test_a_void_gives_credit_back_once(
    session: Session, client: Client, invoice: Invoice, refused: Refuse
) -> None:
    a_balance(session, client)
    returned = entry(client.id, kind="'returned'", invoice_id=f"'{invoice.id}'")
    run(session, returned)

    assert "uq_credit_entries_returned" in str(refused(returned))


def test_a_balance_is_of_a_client_of_the_account_in_a_currency(
    session: Session, client: Client, refused: Refuse
) -> None:
    other = create_account(session, "Other")
    balance = (
        "INSERT INTO credit_balances (account_id, client_id, currency) VALUES ('{}', '{}', '{}')"
    )
    a_balance(session, client)

    assert isinstance(refused(balance.format(other.id, client.id, "eur")), ForeignKeyViolation)
    assert isinstance(refused(balance.format(client.account_id, client.id, "usd")), UniqueViolation)
    assert "ck_credit_balances_currency" in str(
        refused(balance.format(client.account_id, client.id, "USD"))
    )


def test_a_payment_says_what_it_is(invoice: Invoice, refused: Refuse) -> None:
    for constraint, columns in (
        ("ck_payments_source", {"source": "'gift'", "method": "NULL"}),
        ("ck_payments_method", {"method": "'barter'"}),
        ("ck_payments_outside", {"method": "NULL"}),
        ("ck_payments_card", {"source": "'card'", "method": "NULL"}),
        ("ck_payments_currency", {"currency": "'USD'"}),
        ("ck_payments_amount", {"amount": "0", "applied": "0"}),
        ("ck_payments_amount", {"applied": "1001"}),
        ("ck_payments_amount", {"applied": "-1"}),
        ("ck_payments_applied", {"invoice_id": "NULL"}),
    ):
        reason = refused(payment(invoice, **columns))
        assert isinstance(reason, CheckViolation)
        assert constraint in str(reason), columns


def test_a_payment_is_of_one_client_in_the_currency_of_its_invoice(
    session: Session, invoice: Invoice, stranger: Client, refused: Refuse
) -> None:
    other = create_account(session, "Other")
    for columns in (
        {"account_id": f"'{other.id}'"},
        {"client_id": f"'{stranger.id}'"},
        {"currency": "'eur'"},
    ):
        assert isinstance(refused(payment(invoice, **columns)), ForeignKeyViolation), columns


def test_an_attempt_brings_one_payment_and_a_payment_is_booked_once(
    session: Session, invoice: Invoice, refused: Refuse
) -> None:
    attempted, received = (
        "'00000000-0000-0000-0000-00000000000a'",
        "'00000000-0000-0000-0000-00000000000b'",
    )
    run(session, attempt(invoice, id=attempted))
    by_card = {"source": "'card'", "method": "NULL", "attempt_id": attempted}
    run(session, payment(invoice, id=received, **by_card))
    booked = (
        "INSERT INTO ledger_entries"
        " (account_id, client_id, payment_id, event, currency, effective_on) VALUES"
        f" ('{invoice.account_id}', '{invoice.client_id}', {received}, 'deposit', 'usd', now())"
    )
    run(session, booked)

    assert "uq_payments_attempt_id" in str(refused(payment(invoice, **by_card)))
    assert "uq_ledger_entries_payment_id" in str(refused(booked))


# Attempts


def test_an_attempt_says_what_it_is(invoice: Invoice, refused: Refuse) -> None:
    for constraint, columns in (
        ("ck_payment_attempts_state", {"state": "'lost'", "next_ask_at": "NULL"}),
        ("ck_payment_attempts_origin", {"origin": "'robot'"}),
        (
            "ck_payment_attempts_purpose",
            {"purpose": "'gift'", "invoice_id": "NULL", "ordinal": "NULL"},
        ),
        # One for credit is of no invoice, and counts among no invoice's tries.
        ("ck_payment_attempts_invoice", {"purpose": "'deposit'"}),
        ("ck_payment_attempts_invoice", {"purpose": "'top_up'", "invoice_id": "NULL"}),
        ("ck_payment_attempts_invoice", {"purpose": "'top_up'", "ordinal": "NULL"}),
        ("ck_payment_attempts_invoice", {"invoice_id": "NULL"}),
        ("ck_payment_attempts_decline_class", {"decline_class": "'mild'"}),
        ("ck_payment_attempts_currency", {"currency": "'USD'"}),
        ("ck_payment_attempts_amount", {"amount": "0"}),
        # Whatever is out is asked for, and nothing else is.
        ("ck_payment_attempts_next_ask", {"next_ask_at": "NULL"}),
        ("ck_payment_attempts_next_ask", {"state": "'processing'", "next_ask_at": "NULL"}),
        ("ck_payment_attempts_next_ask", {"state": "'declined'"}),
        ("ck_payment_attempts_next_ask", {"state": "'needs_action'"}),
    ):
        reason = refused(attempt(invoice, **columns))
        assert isinstance(reason, CheckViolation)
        assert constraint in str(reason), columns


def test_an_attempt_is_of_one_client_in_the_currency_of_its_invoice(
    session: Session, invoice: Invoice, stranger: Client, refused: Refuse
) -> None:
    other = create_account(session, "Other")
    for columns in (
        {"account_id": f"'{other.id}'"},
        {"client_id": f"'{stranger.id}'"},
        {"currency": "'eur'"},
    ):
        assert isinstance(refused(attempt(invoice, **columns)), ForeignKeyViolation), columns


@pytest.mark.parametrize("first", sorted({*AttemptState} - SETTLED))
@pytest.mark.parametrize("second", ["pending", "needs_action"])
def test_an_invoice_has_one_attempt_without_an_outcome(
    session: Session, invoice: Invoice, refused: Refuse, first: str, second: str
) -> None:
    asks = {"needs_action": "NULL"}
    run(session, attempt(invoice, state=f"'{first}'", next_ask_at=asks.get(first, "now()")))

    second_one = attempt(
        invoice, ordinal="2", state=f"'{second}'", next_ask_at=asks.get(second, "now()")
    )

    assert "uq_payment_attempts_still_open" in str(refused(second_one))


def test_a_client_has_one_attempt_for_credit_of_each_purpose_without_an_outcome(
    session: Session, invoice: Invoice, refused: Refuse
) -> None:
    for_credit = {"invoice_id": "NULL", "ordinal": "NULL"}
    top_up = attempt(invoice, purpose="'top_up'", **for_credit)
    run(session, attempt(invoice, purpose="'deposit'", **for_credit))
    run(session, top_up)

    assert "uq_payment_attempts_still_open_for_credit" in str(refused(top_up))

    run(session, "UPDATE payment_attempts SET state = 'declined', next_ask_at = NULL")
    run(session, top_up)


def test_attempts_share_no_number_key_nor_payment_intent(
    session: Session, invoice: Invoice, refused: Refuse
) -> None:
    ended = {"state": "'declined'", "next_ask_at": "NULL"}
    run(session, attempt(invoice, idempotency_key="'k'", payment_intent="'pi_1'", **ended))

    for name, columns in (
        ("invoice_id_ordinal", {}),
        ("idempotency_key", {"ordinal": "2", "idempotency_key": "'k'"}),
        ("payment_intent", {"ordinal": "2", "payment_intent": "'pi_1'"}),
    ):
        reason = refused(attempt(invoice, **ended, **columns))
        assert f"uq_payment_attempts_{name}" in str(reason)


FROZEN = {
    "invoice_id": "uuid7()",
    "ordinal": "ordinal + 1",
    "amount": "amount + 1",
    "currency": "'eur'",
    "customer": "'cus_2'",
    "payment_method": "'pm_2'",
    "idempotency_key": "'another'",
    "checkout_expires_at": "now()",
    "merchant_id": "uuid7()",
    "statement_suffix": "'another'",
}
MOVING = {
    *("checkout_session", "checkout_url"),
    *("state", "payment_intent", "decline_code", "decline_class", "message"),
    *("asks", "is_unsent", "first_asked_at", "next_ask_at", "missing_since", "settled_at"),
}
# Who it is of, what made it and how its card looks is not asked of Stripe.
UNUSED = {
    *("id", "account_id", "client_id", "job_id", "purpose", "origin", "told", "created_at"),
    *("card_brand", "card_last4"),
}


def test_what_was_asked_of_stripe_is_frozen(
    session: Session, invoice: Invoice, refused: Refuse
) -> None:
    assert FROZEN.keys() | MOVING | UNUSED == {*PaymentAttempt.__table__.columns.keys()}
    run(session, attempt(invoice))
    for column, value in FROZEN.items():
        reason = refused(f"UPDATE payment_attempts SET {column} = {value}")

        assert isinstance(reason, RestrictViolation), column
        said = str(reason)
        assert "was asked of Stripe as it stands" in said or "stays at the Stripe" in said, column


def test_an_outcome_is_never_taken_back_but_for_money_that_moved(
    session: Session, invoice: Invoice, refused: Refuse
) -> None:
    for state in sorted(SETTLED):
        run(session, attempt(invoice, state=f"'{state}'", next_ask_at="NULL"))
        for to in sorted({*AttemptState} - {state}):
            asks = "now()" if to in {"pending", "processing", "unknown"} else "NULL"
            change = f"UPDATE payment_attempts SET state = '{to}', next_ask_at = {asks}"
            if to in ATTEMPT_TRANSITIONS[state]:
                with session.begin_nested() as tried:
                    run(session, change)
                    tried.rollback()
            else:
                assert f"that is {state} never becomes {to}" in str(refused(change))
        session.rollback()


@pytest.mark.parametrize("statement", ["DELETE FROM", "TRUNCATE"])
def test_an_attempt_is_never_forgotten(refused: Refuse, statement: str) -> None:
    suffix = " CASCADE" if statement == "TRUNCATE" else ""

    reason = refused(f"{statement} payment_attempts{suffix}")

    assert "its rows are never changed" in str(reason)


def test_a_try_has_a_time_only_while_an_automatic_invoice_is_open(
    session: Session, invoice: Invoice, refused: Refuse
) -> None:
    scheduled = "UPDATE invoices SET next_attempt_at = now()"
    assert "ck_invoices_next_attempt_at" in str(refused(scheduled))

    run(session, f"{scheduled}, auto_collect = true")
    paid = "UPDATE invoices SET status = 'paid', paid_at = now(), amount_paid = total"
    assert "ck_invoices_next_attempt_at" in str(refused(paid))
    for column in ("attempt_count", "failures"):
        assert "ck_invoices_attempts" in str(refused(f"UPDATE invoices SET {column} = -1"))
    assert invoice.number is not None


# Mails, cards and what vendors told


def test_a_mail_about_one_thing_goes_to_one_address_once(
    session: Session, client: Client, refused: Refuse
) -> None:
    run(session, mail(client))

    assert isinstance(refused(mail(client)), UniqueViolation)
    # To somebody else, or because staff wanted it again.
    run(session, mail(client, recipient="'bob@example.com'"))
    run(session, mail(client, sending="2"))


def test_a_mail_says_what_it_is_and_shares_its_clients_account(
    session: Session, client: Client, refused: Refuse
) -> None:
    other = create_account(session, "Other")

    assert "ck_mails_kind" in str(refused(mail(client, kind="'spam'")))
    assert "ck_mails_state" in str(refused(mail(client, state="'lost'")))
    for column in ("payment_id", "attempt_id"):
        assert isinstance(refused(mail(client, **{column: "uuid7()"})), ForeignKeyViolation)
    of_other = mail(client, account_id=f"'{other.id}'")
    assert "fk_mails_account_id_client_id" in str(refused(of_other))


def test_a_card_shares_its_clients_account(
    session: Session, client: Client, refused: Refuse
) -> None:
    other = create_account(session, "Other")

    reason = refused(
        "INSERT INTO billing_methods (client_id, account_id, stripe_customer, payment_method)"
        f" VALUES ('{client.id}', '{other.id}', 'cus_1', 'pm_1')"
    )

    assert "fk_billing_methods_account_id_client_id" in str(reason)


def test_an_event_of_a_vendor_is_kept_once(session: Session, refused: Refuse) -> None:
    event = "INSERT INTO webhook_events (provider, event_id, type, payload) VALUES ('{}', 'e', 't', '{{}}')"
    for provider in ("stripe", "sendgrid"):
        run(session, event.format(provider))

    assert isinstance(refused(event.format("stripe")), UniqueViolation)
    assert "ck_webhook_events_provider" in str(refused(event.format("paypal")))


def test_an_attempt_moves_as_the_table_says(session: Session, invoice: Invoice) -> None:
    run(session, attempt(invoice))
    one = session.scalars(select(PaymentAttempt)).one()

    one.move(AttemptState.UNKNOWN, NOW, ask_at=NOW)
    session.flush()
    assert (one.next_ask_at, one.settled_at) == (NOW, None)
    one.move(AttemptState.NEEDS_ACTION, NOW, ask_at=NOW)
    session.flush()
    assert (one.next_ask_at, one.settled_at) == (None, None)
    one.move(AttemptState.CANCELED, NOW, ask_at=NOW)
    session.flush()
    assert (one.next_ask_at, one.settled_at) == (None, NOW)
