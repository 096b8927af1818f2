"""The invariants that a row alone shows, and those that tie it to others."""

# ruff: noqa: S608 - every statement is the test's own, and meant to be refused.

from datetime import date

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from models import Account, Client, Invoice
from tasks.accounts import create_account
from tasks.drafting import draft_invoice
from tests.models.conftest import Refuse
from tests.worlds import a_charge, a_client, invoices_of, perform


@pytest.fixture
def client(engine: Engine, account: Account) -> Client:
    """A client on the cycle, with one charge on a draft."""
    client = a_client(engine, account, billing_cycle="monthly", external_ref="c")
    a_charge(engine, client, date(2026, 6, 1), external_ref="o")
    perform(engine, draft_invoice, account, client_id=client.id)
    return client


BROKEN = [
    ("ck_accounts_currency", "UPDATE accounts SET currency = 'USD'"),
    ("ck_accounts_net_days", "UPDATE accounts SET net_days = 366"),
    ("ck_clients_billing_cycle", "UPDATE clients SET billing_cycle = 'hourly'"),
    ("ck_clients_anchor_day", "UPDATE clients SET anchor_day = 0"),
    ("ck_clients_anchor_day", "UPDATE clients SET anchor_day = 32"),
    ("ck_clients_anchor_day", "UPDATE clients SET billing_cycle = 'weekly', anchor_day = 8"),
    ("ck_clients_currency", "UPDATE clients SET currency = 'dollar'"),
    ("ck_clients_net_days", "UPDATE clients SET net_days = -1"),
    ("ck_clients_on_a_cycle_since", "UPDATE clients SET activated_at = NULL"),
    ("ck_clients_on_a_cycle_since", "UPDATE clients SET billing_starts_on = NULL"),
    (
        "uq_clients_external_ref",
        (
            "INSERT INTO clients (account_id, name, external_ref)"
            " SELECT account_id, name, external_ref FROM clients"
        ),
    ),
    ("ck_charges_quantity", "UPDATE charges SET quantity = 0"),
    ("ck_charges_amount", "UPDATE charges SET amount = 1000000000001"),
    ("ck_charges_currency", "UPDATE charges SET currency = 'us'"),
    (
        "uq_charges_external_ref",
        (
            "INSERT INTO charges (account_id, client_id, external_ref, charged_on, description,"
            " quantity, amount, currency) SELECT account_id, client_id, external_ref, charged_on,"
            " description, quantity, amount, currency FROM charges"
        ),
    ),
    ("fk_charges_client_id_invoice_id_currency", "UPDATE charges SET invoice_id = uuid7()"),
    ("fk_charges_client_id_invoice_id_currency", "UPDATE charges SET currency = 'eur'"),
    ("fk_invoices_client_id_period_id", "UPDATE invoices SET period_id = uuid7()"),
    (
        "ck_invoices_status",
        (
            "SET LOCAL session_replication_role = replica; UPDATE invoices SET status = 'sent',"
            " number = 'INV-000001', finalized_at = now(), issued_on = now(), due_on = now()"
        ),
    ),
    ("ck_invoices_currency", "UPDATE invoices SET currency = 'US1'"),
    ("ck_invoices_total", "UPDATE invoices SET total = total + 1"),
    ("ck_invoices_amount_paid", "UPDATE invoices SET amount_paid = -1"),
    ("ck_invoices_finalized", "UPDATE invoices SET number = 'INV-000001'"),
    ("ck_invoices_finalized", "UPDATE invoices SET issued_on = '2026-06-01'"),
    ("ck_invoices_finalized", "UPDATE invoices SET status = 'open'"),
    ("ck_invoices_voided", "UPDATE invoices SET voided_at = now()"),
    ("ck_invoices_reissued", "UPDATE invoices SET reissued_at = now()"),
    (
        "uq_charges_copy_of",
        (
            "INSERT INTO charges (account_id, client_id, copy_of, charged_on, description, quantity,"
            " amount, currency) SELECT account_id, client_id, id, charged_on, description, quantity,"
            " amount, currency FROM charges, generate_series(1, 2)"
        ),
    ),
    ("ck_billing_periods_state", "UPDATE billing_periods SET state = 'done'"),
    ("ck_billing_periods_reason", "UPDATE billing_periods SET reason = 'because'"),
    ("ck_billing_periods_dates", "UPDATE billing_periods SET period_end = period_start"),
    ("ck_billing_periods_instants", "UPDATE billing_periods SET ends_at = '1999-01-01'"),
    ("ck_billing_periods_error", "UPDATE billing_periods SET state = 'failed'"),
    ("ck_billing_periods_error", "UPDATE billing_periods SET error = 'no'"),
    (
        "uq_billing_periods_client_id_period_start",
        (
            "INSERT INTO billing_periods (account_id, client_id, period_start, period_end, starts_at,"
            " ends_at) SELECT account_id, client_id, period_start, period_end + 1, starts_at, ends_at"
            " FROM billing_periods"
        ),
    ),
    (
        "uq_billing_periods_client_id_period_end",
        (
            "INSERT INTO billing_periods (account_id, client_id, period_start, period_end, starts_at,"
            " ends_at) SELECT account_id, client_id, period_start + 1, period_end, starts_at, ends_at"
            " FROM billing_periods"
        ),
    ),
    (
        "ck_billing_runs_as_of",
        "INSERT INTO billing_runs (account_id) SELECT id FROM accounts",
    ),
    (
        "ck_billing_runs_as_of",
        (
            "INSERT INTO billing_runs (account_id, as_of_at, as_of_on)"
            " SELECT id, now(), now() FROM accounts"
        ),
    ),
    (
        "uq_billing_runs_scheduled",
        (
            "INSERT INTO billing_runs (account_id, as_of_at, scheduled)"
            " SELECT id, now(), true FROM accounts, generate_series(1, 2)"
        ),
    ),
    (
        "ck_number_series_next_number",
        "INSERT INTO number_series SELECT id, 'invoice', 0 FROM accounts",
    ),
    (
        "ck_number_series_document",
        "INSERT INTO number_series SELECT id, 'receipt', 1 FROM accounts",
    ),
]


def test_every_constraint_refuses_what_breaks_it(client: Client, refused: Refuse) -> None:
    assert client.id is not None
    for constraint, statement in BROKEN:
        assert constraint in str(refused(statement)), statement


FINALIZED = "number = 'INV-000001', finalized_at = now(), issued_on = now(), due_on = now()"


@pytest.mark.parametrize(
    ("constraint", "assignments"),
    [
        ("ck_invoices_owed", "status = 'open', credit_applied = total"),
        ("ck_invoices_owed", "status = 'open', amount_paid = total + 1"),
        ("ck_invoices_paid", "status = 'paid', paid_at = now()"),
        ("ck_invoices_paid", "status = 'paid', amount_paid = total"),
    ],
)
def test_a_finalized_invoice_owes_something_or_is_paid(
    client: Client, refused: Refuse, constraint: str, assignments: str
) -> None:
    assert client.id is not None

    assert constraint in str(refused(f"UPDATE invoices SET {assignments}, {FINALIZED}"))


def test_a_period_has_one_invoice_in_a_currency_void_ones_aside(
    engine: Engine, session: Session, client: Client, refused: Refuse
) -> None:
    [draft] = invoices_of(engine, client)
    session.execute(text("UPDATE invoices SET period_id = (SELECT id FROM billing_periods)"))
    twin = (
        "INSERT INTO invoices (account_id, client_id, period_id, currency, subtotal, total)"
        " SELECT account_id, client_id, period_id, currency, 1, 1 FROM invoices LIMIT 1"
    )
    assert "uq_invoices_period_id_currency" in str(refused(twin))

    session.execute(text(f"UPDATE invoices SET status = 'open', {FINALIZED}"))
    assert "uq_invoices_period_id_currency" in str(refused(twin))
    session.execute(text("UPDATE invoices SET status = 'void', voided_at = now()"))
    session.execute(text(twin))
    assert session.get_one(Invoice, draft.id).status == "void"


@pytest.mark.parametrize(
    "table", ["charges", "invoices", "billing_periods", "ledger_entries", "billing_runs"]
)
def test_a_row_shares_its_clients_account(
    session: Session, client: Client, refused: Refuse, table: str
) -> None:
    other = create_account(session, "Other")
    columns = {
        "charges": "charged_on, description, quantity, amount, currency",
        "invoices": "currency, subtotal, total",
        "billing_periods": "period_start, period_end, starts_at, ends_at",
        "ledger_entries": "event, currency, effective_on",
        "billing_runs": "as_of_at",
    }
    values = {
        "charges": "now(), 'Work', 1, 1, 'usd'",
        "invoices": "'usd', 1, 1",
        "billing_periods": "'2020-01-01', '2020-02-01', now(), now()",
        "ledger_entries": "'finalize', 'usd', now()",
        "billing_runs": "now()",
    }

    reason = refused(
        f"INSERT INTO {table} (account_id, client_id, {columns[table]})"
        f" VALUES ('{other.id}', '{client.id}', {values[table]})"
    )

    assert f"fk_{table}_account_id_client_id" in str(reason)


def test_a_charge_is_never_on_another_clients_invoice(
    engine: Engine, account: Account, client: Client, refused: Refuse
) -> None:
    stranger = a_charge(engine, a_client(engine, account), date(2026, 6, 1))
    [draft] = invoices_of(engine, client)

    reason = refused(f"UPDATE charges SET invoice_id = '{draft.id}' WHERE id = '{stranger}'")

    assert "fk_charges_client_id_invoice_id" in str(reason)
