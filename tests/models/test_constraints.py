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
    ("ck_accounts_review_hours", "UPDATE accounts SET review_hours = -1"),
    ("ck_accounts_review_hours", "UPDATE accounts SET review_hours = 2161"),
    ("ck_accounts_invoice_date", "UPDATE accounts SET invoice_date = 'tomorrow'"),
    ("ck_accounts_dispute_lost", "UPDATE accounts SET dispute_lost = 'ignore'"),
    ("ck_accounts_number_reset", "UPDATE accounts SET number_reset = 'daily'"),
    ("ck_clients_billing_cycle", "UPDATE clients SET billing_cycle = 'hourly'"),
    ("ck_clients_anchor_day", "UPDATE clients SET anchor_day = 0"),
    ("ck_clients_anchor_day", "UPDATE clients SET anchor_day = 32"),
    ("ck_clients_anchor_day", "UPDATE clients SET billing_cycle = 'weekly', anchor_day = 8"),
    ("ck_clients_currency", "UPDATE clients SET currency = 'dollar'"),
    ("ck_clients_net_days", "UPDATE clients SET net_days = -1"),
    ("ck_clients_review_hours", "UPDATE clients SET review_hours = 2161"),
    ("ck_clients_review_by_person", "UPDATE clients SET review_by_person = true, review_hours = 1"),
    ("ck_clients_archived", "UPDATE clients SET archived_at = now()"),
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
            " number = 'INV-000001', sequence = 1, series_year = 0, finalized_at = now(),"
            " issued_on = now(), due_on = now()"
        ),
    ),
    ("ck_invoices_currency", "UPDATE invoices SET currency = 'US1'"),
    ("ck_invoices_total", "UPDATE invoices SET total = total + 1"),
    ("ck_invoices_amount_paid", "UPDATE invoices SET amount_paid = -1"),
    ("ck_invoices_finalized", "UPDATE invoices SET number = 'INV-000001'"),
    ("ck_invoices_finalized", "UPDATE invoices SET issued_on = '2026-06-01'"),
    ("ck_invoices_finalized", "UPDATE invoices SET status = 'open'"),
    ("ck_invoices_finalized", "UPDATE invoices SET sequence = 1"),
    ("ck_invoices_finalized", "UPDATE invoices SET series_year = 0"),
    ("ck_invoices_corrections", "UPDATE invoices SET amount_credited = -1"),
    ("ck_invoices_corrections", "UPDATE invoices SET amount_refunded = -1"),
    ("ck_invoices_corrections", "UPDATE invoices SET amount_written_off = -1"),
    ("ck_invoices_written_off", "UPDATE invoices SET amount_written_off = 1"),
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
        (
            "INSERT INTO number_series (account_id, document, next_number)"
            " SELECT id, 'invoice', 0 FROM accounts"
        ),
    ),
    (
        "ck_number_series_next_number",
        (
            "INSERT INTO number_series (account_id, document, first_number, next_number)"
            " SELECT id, 'invoice', 100, 99 FROM accounts"
        ),
    ),
    (
        "ck_number_series_document",
        (
            "INSERT INTO number_series (account_id, document, next_number)"
            " SELECT id, 'receipt', 1 FROM accounts"
        ),
    ),
    (
        "pk_number_series",
        (
            "INSERT INTO number_series (account_id, document, year, next_number)"
            " SELECT id, 'invoice', 2026, 1 FROM accounts, generate_series(1, 2)"
        ),
    ),
    (
        "ck_tax_rates_percent",
        (
            "INSERT INTO tax_rates (account_id, name, percent, inclusive, valid_from)"
            " SELECT id, 'VAT', 100.01, false, now() FROM accounts"
        ),
    ),
    (
        "ck_tax_rates_dates",
        (
            "INSERT INTO tax_rates (account_id, name, percent, inclusive, valid_from, valid_to)"
            " SELECT id, 'VAT', 7, false, '2026-01-01', '2026-01-01' FROM accounts"
        ),
    ),
    *(
        (
            f"ck_auto_top_ups_{name}",
            (
                "INSERT INTO auto_top_ups (account_id, client_id, currency, threshold, target,"
                f" declines) SELECT account_id, id, {values} FROM clients"
            ),
        )
        for name, values in (
            ("currency", "'USD', 100, 200, 0"),
            ("amounts", "'usd', 0, 200, 0"),
            ("amounts", "'usd', 200, 200, 0"),
            ("declines", "'usd', 100, 200, -1"),
        )
    ),
    *(
        (
            f"ck_credit_grants_{name}",
            (
                "INSERT INTO credit_grants (account_id, client_id, requested_by, currency, amount,"
                f" remaining) SELECT account_id, id, 'test', {values} FROM clients"
            ),
        )
        for name, values in (
            ("currency", "'USD', 10, 10"),
            ("remaining", "'usd', 0, 0"),
            ("remaining", "'usd', 10, 11"),
            ("remaining", "'usd', 10, -1"),
        )
    ),
    (
        "ck_credit_grant_uses_amount",
        (
            "INSERT INTO credit_grant_uses (invoice_id, grant_id, amount)"
            " SELECT id, uuid7(), 0 FROM invoices"
        ),
    ),
]


def test_every_constraint_refuses_what_breaks_it(client: Client, refused: Refuse) -> None:
    assert client.id is not None
    for constraint, statement in BROKEN:
        assert constraint in str(refused(statement)), statement


FINALIZED = (
    "number = 'INV-000001', sequence = 1, series_year = 0, finalized_at = now(),"
    " issued_on = now(), due_on = now()"
)


@pytest.mark.parametrize(
    ("constraint", "assignments"),
    [
        ("ck_invoices_owed", "status = 'open', credit_applied = total"),
        ("ck_invoices_owed", "status = 'open', amount_paid = total + 1"),
        ("ck_invoices_paid", "status = 'paid', paid_at = now()"),
        ("ck_invoices_paid", "status = 'paid', amount_paid = total"),
        # A refund without a credit note opens it again.
        (
            "ck_invoices_paid",
            "status = 'paid', paid_at = now(), amount_paid = total, amount_refunded = 1",
        ),
        ("ck_invoices_given_back", "status = 'open', amount_refunded = 1"),
        ("ck_invoices_given_back", "status = 'open', amount_paid = 2, amount_refunded = 3"),
        # What it took over of a debt was nobody's money.
        (
            "ck_invoices_given_back",
            "status = 'open', credit_applied = -2, amount_paid = 3, amount_refunded = 2",
        ),
        (
            "ck_invoices_given_back",
            "status = 'open', amount_paid = 3, amount_refunded = 2, amount_lost = 2",
        ),
        ("ck_invoices_review", "status = 'open', review_ends_at = now()"),
    ],
)
def test_a_finalized_invoice_owes_something_or_is_paid(
    client: Client, refused: Refuse, constraint: str, assignments: str
) -> None:
    assert client.id is not None

    assert constraint in str(refused(f"UPDATE invoices SET {assignments}, {FINALIZED}"))


WRITTEN_OFF = f"""
    UPDATE invoices SET status = 'open', {FINALIZED};
    UPDATE invoices SET status = 'uncollectible', {{}}
"""


@pytest.mark.parametrize(
    "assignments",
    [
        "written_off_at = now()",  # Of nothing.
        "amount_written_off = total",  # At no time.
        "amount_written_off = total - 1, written_off_at = now()",  # And a part still due.
    ],
)
def test_what_is_given_up_is_all_that_is_due(
    client: Client, refused: Refuse, assignments: str
) -> None:
    assert client.id is not None

    assert "ck_invoices_written_off" in str(refused(WRITTEN_OFF.format(assignments)))


def test_a_number_in_a_series_is_given_once(
    engine: Engine, session: Session, account: Account, client: Client, refused: Refuse
) -> None:
    a_charge(engine, client, date(2026, 6, 2))
    perform(engine, draft_invoice, account, client_id=client.id)
    session.execute(
        text(
            f"UPDATE invoices SET status = 'open', {FINALIZED} WHERE id = (SELECT min(id::text)::uuid FROM invoices)"
        )
    )
    other = FINALIZED.replace("INV-000001", "INV-1")

    reason = refused(f"UPDATE invoices SET status = 'open', {other} WHERE status = 'draft'")
    assert "uq_invoices_account_id_series_year_sequence" in str(reason)

    next_year = other.replace("series_year = 0", "series_year = 2027")
    session.execute(
        text(f"UPDATE invoices SET status = 'open', {next_year} WHERE status = 'draft'")
    )


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
    "table",
    [
        *("charges", "invoices", "billing_periods", "ledger_entries", "billing_runs"),
        *("auto_top_ups", "credit_grants"),
    ],
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
        "auto_top_ups": "currency, threshold, target",
        "credit_grants": "currency, amount, remaining, requested_by",
    }
    values = {
        "charges": "now(), 'Work', 1, 1, 'usd'",
        "invoices": "'usd', 1, 1",
        "billing_periods": "'2020-01-01', '2020-02-01', now(), now()",
        "ledger_entries": "'finalize', 'usd', now()",
        "billing_runs": "now()",
        "auto_top_ups": "'usd', 1, 2",
        "credit_grants": "'usd', 1, 1, 'test'",
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
