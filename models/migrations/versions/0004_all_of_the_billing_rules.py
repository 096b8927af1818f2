"""All of the billing rules: reviews, pauses, tax, credit notes, refunds, grants and write-offs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_AMOUNT_DUE = (
    "CASE WHEN status = 'void' THEN 0 ELSE total - credit_applied - amount_paid"
    " - amount_credited + amount_refunded - amount_written_off END"
)

# Until now a number was always its prefix and its place in the one series.
_BACKFILL = """
ALTER TABLE invoices DISABLE TRIGGER USER;
UPDATE invoices SET sequence = substring(number FROM '[0-9]+$')::bigint, series_year = 0
 WHERE number IS NOT NULL;
ALTER TABLE invoices ENABLE TRIGGER USER;
ALTER TABLE invoice_lines DISABLE TRIGGER USER;
UPDATE invoice_lines SET net = amount;
ALTER TABLE invoice_lines ENABLE TRIGGER USER
"""

_DROPPED = {
    "number_series": ["document", "next_number"],
    "billing_periods": ["reason"],
    "credit_entries": ["kind"],
    "ledger_entries": ["event"],
    "ledger_postings": ["ledger_account"],
    "invoices": ["finalized", "owed", "paid"],
}

_CHECKS = {
    "accounts": {
        "dunning_final": "dunning_final IN ('open', 'uncollectible')",
        "review_hours": "review_hours BETWEEN 0 AND 2160",
        "invoice_date": "invoice_date IN ('boundary', 'finalization')",
        "number_reset": "number_reset IN ('never', 'yearly')",
    },
    "clients": {
        "review_hours": "review_hours BETWEEN 0 AND 2160",
        "review_by_person": "NOT review_by_person OR review_hours IS NULL",
        "archived": "archived_at IS NULL OR billing_cycle = 'manual'",
    },
    "number_series": {
        "document": "document IN ('invoice', 'credit_note')",
        "next_number": "first_number > 0 AND next_number >= first_number",
    },
    "billing_periods": {
        "reason": "reason IN ('before_activation', 'switched_to_manual', 'draft_deleted',"
        " 'charges_on_manual_draft', 'paused')",
    },
    "credit_entries": {
        "kind": "kind IN ('deposit', 'adjustment', 'applied', 'returned', 'settled',"
        " 'negative_invoice', 'carried', 'overpayment', 'unexpected', 'granted', 'expired',"
        " 'credit_note', 'refund', 'refund_failed', 'paid_out')",
    },
    "ledger_entries": {
        "event": "event IN ('finalize', 'void', 'apply_credit', 'carry', 'card_payment',"
        " 'outside_payment', 'deposit', 'grant', 'expiry', 'adjustment', 'credit_refund',"
        " 'credit_note', 'refund', 'refund_failed', 'write_off', 'recovery')",
    },
    "ledger_postings": {
        "ledger_account": "ledger_account IN ('receivable', 'revenue', 'tax', 'credit',"
        " 'promotion', 'adjustment', 'stripe', 'outside', 'bad_debt')",
        "tax_rate": "(ledger_account = 'tax') = (tax_rate_id IS NOT NULL)",
    },
    "payment_attempts": {
        "purpose": "purpose IN ('invoice', 'deposit', 'top_up')",
        "invoice": "(purpose = 'invoice') = (invoice_id IS NOT NULL)"
        " AND (purpose = 'invoice') = (ordinal IS NOT NULL)",
    },
    "invoices": {
        "finalized": "(status = 'draft') = (number IS NULL)"
        " AND (status = 'draft') = (finalized_at IS NULL)"
        " AND (status = 'draft') = (issued_on IS NULL)"
        " AND (status = 'draft' OR due_on IS NOT NULL)"
        " AND (status = 'draft') = (sequence IS NULL)"
        " AND (status = 'draft') = (series_year IS NULL)",
        "corrections": "amount_credited >= 0 AND amount_refunded >= 0 AND amount_written_off >= 0",
        "paid": "status <> 'paid' OR (paid_at IS NOT NULL AND amount_due = 0)",
        "owed": "status <> 'open' OR amount_due > 0",
        "written_off": "(status = 'uncollectible') = (amount_written_off > 0)"
        " AND (status <> 'uncollectible' OR amount_due = 0 AND written_off_at IS NOT NULL)",
        "review": "review_ends_at IS NULL OR status = 'draft'",
    },
}

# What the code promises, the database insists on.
_TRIGGERS = """
CREATE TRIGGER credit_notes_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_notes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refunds_kept BEFORE DELETE OR TRUNCATE ON refunds
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER credit_grants_kept BEFORE DELETE OR TRUNCATE ON credit_grants
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER tax_rates_kept BEFORE DELETE OR TRUNCATE ON tax_rates
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoice_taxes_locked BEFORE UPDATE OR DELETE OR TRUNCATE ON invoice_taxes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoice_taxes_added AFTER INSERT ON invoice_taxes
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_added_to_invoices();

CREATE FUNCTION check_tax_rate_change() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF (OLD.id, OLD.account_id, OLD.name, OLD.percent, OLD.inclusive, OLD.valid_from)
       IS DISTINCT FROM
       (NEW.id, NEW.account_id, NEW.name, NEW.percent, NEW.inclusive, NEW.valid_from) THEN
        RAISE EXCEPTION 'only the end of tax rate % changes: make a new one', OLD.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $fn$;

CREATE TRIGGER tax_rates_ended BEFORE UPDATE ON tax_rates
    FOR EACH ROW EXECUTE FUNCTION check_tax_rate_change();

-- What was asked for stays as it was asked; an outcome is never taken back, but by the bank.
CREATE FUNCTION check_refund_change() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF (OLD.payment_id, OLD.invoice_id, OLD.amount, OLD.currency, OLD.destination,
        OLD.idempotency_key, OLD.makes_note, OLD.note_amount, OLD.note_positions) IS DISTINCT FROM
       (NEW.payment_id, NEW.invoice_id, NEW.amount, NEW.currency, NEW.destination,
        NEW.idempotency_key, NEW.makes_note, NEW.note_amount, NEW.note_positions) THEN
        RAISE EXCEPTION 'refund % was asked for as it stands', OLD.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.state <> OLD.state
       AND (OLD.state = 'failed' OR OLD.state = 'succeeded' AND NEW.state <> 'failed') THEN
        RAISE EXCEPTION 'a refund that is % never becomes %', OLD.state, NEW.state
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $fn$;

CREATE TRIGGER refunds_settled BEFORE UPDATE ON refunds
    FOR EACH ROW EXECUTE FUNCTION check_refund_change();

-- A month that was closed stays as it was reported.
CREATE FUNCTION check_books_open() RETURNS trigger LANGUAGE plpgsql AS $fn$
DECLARE closed date;
BEGIN
    SELECT books_closed_through INTO closed
      FROM accounts JOIN added ON added.account_id = accounts.id
     WHERE added.effective_on <= books_closed_through LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the books are closed through %', closed
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $fn$;

CREATE TRIGGER ledger_entries_in_open_books AFTER INSERT ON ledger_entries
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_books_open();

-- Whoever posts holds the account's lock until it commits: by now all of it was posted before.
CREATE FUNCTION close_books() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF OLD.books_closed_through > NEW.books_closed_through OR NEW.books_closed_through IS NULL THEN
        RAISE EXCEPTION 'the books are closed through %, and stay closed', OLD.books_closed_through
            USING ERRCODE = 'restrict_violation';
    END IF;
    NEW.books_closed_at = clock_timestamp();
    RETURN NEW;
END $fn$;

CREATE TRIGGER accounts_close_books BEFORE UPDATE ON accounts
    FOR EACH ROW WHEN (OLD.books_closed_through IS DISTINCT FROM NEW.books_closed_through)
    EXECUTE FUNCTION close_books();

CREATE OR REPLACE FUNCTION check_invoice_change() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF TG_OP = 'INSERT' THEN
        RAISE EXCEPTION 'an invoice begins as a draft, not as %', NEW.status
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'invoice % is finalized: it can be voided, not deleted', OLD.number
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.status <> OLD.status AND (OLD.status, NEW.status) NOT IN (
        ('draft', 'open'), ('draft', 'paid'), ('open', 'paid'), ('open', 'void'),
        ('open', 'uncollectible'), ('paid', 'open'), ('uncollectible', 'paid'),
        ('uncollectible', 'void')) THEN
        RAISE EXCEPTION 'an invoice that is % never becomes %', OLD.status, NEW.status
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.status <> 'draft' AND
       (OLD.account_id, OLD.client_id, OLD.period_id, OLD.run_id, OLD.number, OLD.sequence,
        OLD.series_year, OLD.currency, OLD.subtotal, OLD.tax, OLD.total, OLD.issued_on, OLD.due_on,
        OLD.memo, OLD.po_number, OLD.bill_from, OLD.bill_to, OLD.created_at, OLD.finalized_at)
       IS DISTINCT FROM
       (NEW.account_id, NEW.client_id, NEW.period_id, NEW.run_id, NEW.number, NEW.sequence,
        NEW.series_year, NEW.currency, NEW.subtotal, NEW.tax, NEW.total, NEW.issued_on, NEW.due_on,
        NEW.memo, NEW.po_number, NEW.bill_from, NEW.bill_to, NEW.created_at, NEW.finalized_at) THEN
        RAISE EXCEPTION 'invoice % is finalized: what it says is frozen', OLD.number
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $fn$;
"""


def upgrade() -> None:
    op.create_table(
        "tax_rates",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("percent", sa.Numeric(precision=7, scale=4), nullable=False),
        sa.Column("inclusive", sa.Boolean(), nullable=False),
        sa.Column("valid_from", sa.Date(), nullable=False),
        sa.Column("valid_to", sa.Date(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("percent BETWEEN 0 AND 100", name=op.f("ck_tax_rates_percent")),
        sa.CheckConstraint("valid_from < valid_to", name=op.f("ck_tax_rates_dates")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_tax_rates_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tax_rates")),
    )
    op.create_index("ix_tax_rates_account_id_id", "tax_rates", ["account_id", "id"], unique=False)
    op.create_table(
        "auto_top_ups",
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("threshold", sa.BigInteger(), nullable=False),
        sa.Column("target", sa.BigInteger(), nullable=False),
        sa.Column("declines", sa.Integer(), server_default="0", nullable=False),
        sa.Column("declined_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_off", sa.Boolean(), server_default="false", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_auto_top_ups_currency")),
        sa.CheckConstraint("declines >= 0", name=op.f("ck_auto_top_ups_declines")),
        sa.CheckConstraint(
            "threshold > 0 AND target > threshold", name=op.f("ck_auto_top_ups_amounts")
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_auto_top_ups_account_id_client_id"),
        ),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_auto_top_ups")),
    )
    op.create_table(
        "credit_grants",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("remaining", sa.BigInteger(), nullable=False),
        sa.Column("expires_on", sa.Date(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_credit_grants_currency")),
        sa.CheckConstraint(
            "amount > 0 AND remaining BETWEEN 0 AND amount", name=op.f("ck_credit_grants_remaining")
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_credit_grants_account_id_client_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_grants")),
    )
    op.create_index(
        "ix_credit_grants_expires_on",
        "credit_grants",
        ["expires_on"],
        unique=False,
        postgresql_where="remaining > 0",
    )
    op.create_index(
        "ix_credit_grants_remaining",
        "credit_grants",
        ["client_id", "currency"],
        unique=False,
        postgresql_where="remaining > 0",
    )
    op.create_table(
        "credit_grant_uses",
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("grant_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_credit_grant_uses_amount")),
        sa.ForeignKeyConstraint(
            ["grant_id"], ["credit_grants.id"], name=op.f("fk_credit_grant_uses_grant_id")
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_credit_grant_uses_invoice_id")
        ),
        sa.PrimaryKeyConstraint("invoice_id", "grant_id", name=op.f("pk_credit_grant_uses")),
    )
    op.create_table(
        "credit_notes",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("series_year", sa.Integer(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("net", sa.BigInteger(), nullable=False),
        sa.Column("tax", sa.BigInteger(), nullable=False),
        sa.Column(
            "taxes",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("lowers_due", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("returned", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("returned_to", sa.Text(), nullable=True),
        sa.Column(
            "positions", sa.ARRAY(sa.Integer()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("voids", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("bill_from", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("bill_to", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("issued_on", sa.Date(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_credit_notes_currency")),
        sa.CheckConstraint(
            "returned_to IN ('credit', 'card', 'outside')", name=op.f("ck_credit_notes_returned_to")
        ),
        sa.CheckConstraint(
            "(returned > 0) = (returned_to IS NOT NULL)", name=op.f("ck_credit_notes_returned")
        ),
        sa.CheckConstraint(
            "amount > 0 AND amount = net + tax", name=op.f("ck_credit_notes_amount")
        ),
        sa.CheckConstraint(
            "lowers_due >= 0 AND returned >= 0 AND lowers_due + returned = CASE WHEN voids THEN 0 ELSE amount END",
            name=op.f("ck_credit_notes_settlement"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_credit_notes_account_id_client_id"),
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
            name=op.f("fk_credit_notes_client_id_invoice_id_currency"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_notes")),
        sa.UniqueConstraint("account_id", "number", name=op.f("uq_credit_notes_account_id_number")),
        sa.UniqueConstraint(
            "account_id",
            "series_year",
            "sequence",
            name=op.f("uq_credit_notes_account_id_series_year_sequence"),
        ),
    )
    op.create_index(
        "ix_credit_notes_account_id_id", "credit_notes", ["account_id", "id"], unique=False
    )
    op.create_index(
        "ix_credit_notes_client_id_id", "credit_notes", ["client_id", "id"], unique=False
    )
    op.create_index("ix_credit_notes_invoice_id", "credit_notes", ["invoice_id"], unique=False)
    op.create_index(
        "uq_credit_notes_voids",
        "credit_notes",
        ["invoice_id"],
        unique=True,
        postgresql_where="voids",
    )
    op.create_table(
        "invoice_taxes",
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("tax_rate_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("percent", sa.Numeric(precision=7, scale=4), nullable=False),
        sa.Column("inclusive", sa.Boolean(), nullable=False),
        sa.Column("net", sa.BigInteger(), nullable=False),
        sa.Column("tax", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_invoice_taxes_invoice_id")
        ),
        sa.ForeignKeyConstraint(
            ["tax_rate_id"], ["tax_rates.id"], name=op.f("fk_invoice_taxes_tax_rate_id")
        ),
        sa.PrimaryKeyConstraint("invoice_id", "tax_rate_id", name=op.f("pk_invoice_taxes")),
        sa.UniqueConstraint(
            "invoice_id", "position", name=op.f("uq_invoice_taxes_invoice_id_position")
        ),
    )
    op.create_table(
        "refunds",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=True),
        sa.Column("invoice_id", sa.Uuid(), nullable=True),
        sa.Column("credit_note_id", sa.Uuid(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("makes_note", sa.Boolean(), nullable=False),
        sa.Column("note_amount", sa.BigInteger(), nullable=True),
        sa.Column(
            "note_positions",
            sa.ARRAY(sa.Integer()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("stripe_refund", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("asks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("first_asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_ask_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("succeeded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "note_amount IS NULL OR makes_note AND note_amount >= amount",
            name=op.f("ck_refunds_note_amount"),
        ),
        sa.CheckConstraint(
            "(next_ask_at IS NOT NULL) = (state IN ('pending', 'processing', 'unknown'))",
            name=op.f("ck_refunds_next_ask"),
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_refunds_currency")),
        sa.CheckConstraint(
            "destination <> 'card' OR (payment_id IS NOT NULL AND idempotency_key IS NOT NULL)",
            name=op.f("ck_refunds_card"),
        ),
        sa.CheckConstraint(
            "destination IN ('credit', 'card', 'outside')", name=op.f("ck_refunds_destination")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'processing', 'unknown', 'succeeded', 'failed')",
            name=op.f("ck_refunds_state"),
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_refunds_amount")),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_refunds_account_id_client_id"),
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
            name=op.f("fk_refunds_client_id_invoice_id_currency"),
        ),
        sa.ForeignKeyConstraint(
            ["credit_note_id"], ["credit_notes.id"], name=op.f("fk_refunds_credit_note_id")
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payments.id"], name=op.f("fk_refunds_payment_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refunds")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_refunds_idempotency_key")),
    )
    op.create_index("ix_refunds_account_id_id", "refunds", ["account_id", "id"], unique=False)
    op.create_index("ix_refunds_client_id_id", "refunds", ["client_id", "id"], unique=False)
    op.create_index(
        "ix_refunds_next_ask_at",
        "refunds",
        ["next_ask_at"],
        unique=False,
        postgresql_where="next_ask_at IS NOT NULL",
    )
    op.create_index("ix_refunds_payment_id", "refunds", ["payment_id"], unique=False)
    op.create_index("uq_refunds_stripe_refund", "refunds", ["stripe_refund"], unique=True)
    op.create_index(
        "uq_refunds_unsettled",
        "refunds",
        ["invoice_id"],
        unique=True,
        postgresql_where="state IN ('pending', 'processing', 'unknown')",
    )
    op.add_column(
        "accounts",
        sa.Column("tax_rates", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column(
        "accounts", sa.Column("dunning_final", sa.Text(), server_default="open", nullable=False)
    )
    op.add_column(
        "accounts", sa.Column("review_hours", sa.Integer(), server_default="0", nullable=True)
    )
    op.add_column(
        "accounts", sa.Column("invoice_date", sa.Text(), server_default="boundary", nullable=False)
    )
    op.add_column(
        "accounts",
        sa.Column("number_format", sa.Text(), server_default="INV-{seq:06}", nullable=False),
    )
    op.add_column(
        "accounts",
        sa.Column("credit_note_format", sa.Text(), server_default="CN-{seq:06}", nullable=False),
    )
    op.add_column(
        "accounts", sa.Column("number_reset", sa.Text(), server_default="never", nullable=False)
    )
    op.add_column(
        "accounts",
        sa.Column("void_makes_credit_note", sa.Boolean(), server_default="false", nullable=False),
    )
    op.add_column(
        "accounts",
        sa.Column("billing_paused", sa.Boolean(), server_default="false", nullable=False),
    )
    op.add_column(
        "accounts",
        sa.Column("collection_paused", sa.Boolean(), server_default="false", nullable=False),
    )
    op.add_column("accounts", sa.Column("books_closed_through", sa.Date(), nullable=True))
    op.add_column(
        "accounts", sa.Column("books_closed_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.create_index(
        "ix_billing_periods_held",
        "billing_periods",
        ["account_id", "client_id"],
        unique=False,
        postgresql_where="state = 'held'",
    )
    op.add_column("charges", sa.Column("amends", sa.Uuid(), nullable=True))
    op.add_column("charges", sa.Column("tax_rates", sa.ARRAY(sa.Uuid()), nullable=True))
    op.add_column("charges", sa.Column("taxed_on", sa.Date(), nullable=True))
    op.add_column("charges", sa.Column("tax_exempt", sa.Boolean(), nullable=True))
    op.create_index(
        "ix_charges_amends",
        "charges",
        ["amends"],
        unique=False,
        postgresql_where="amends IS NOT NULL",
    )
    op.create_foreign_key(op.f("fk_charges_amends"), "charges", "charges", ["amends"], ["id"])
    op.add_column("clients", sa.Column("review_hours", sa.Integer(), nullable=True))
    op.add_column(
        "clients",
        sa.Column("review_by_person", sa.Boolean(), server_default="false", nullable=False),
    )
    op.add_column("clients", sa.Column("tax_rates", sa.ARRAY(sa.Uuid()), nullable=True))
    op.add_column(
        "clients", sa.Column("tax_exempt", sa.Boolean(), server_default="false", nullable=False)
    )
    op.add_column(
        "clients", sa.Column("billing_paused", sa.Boolean(), server_default="false", nullable=False)
    )
    op.add_column(
        "clients",
        sa.Column("collection_paused", sa.Boolean(), server_default="false", nullable=False),
    )
    op.add_column("clients", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("credit_entries", sa.Column("grant_id", sa.Uuid(), nullable=True))
    op.add_column("credit_entries", sa.Column("credit_note_id", sa.Uuid(), nullable=True))
    op.add_column("credit_entries", sa.Column("refund_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_credit_entries_grant_id"), "credit_entries", "credit_grants", ["grant_id"], ["id"]
    )
    op.create_foreign_key(
        op.f("fk_credit_entries_refund_id"), "credit_entries", "refunds", ["refund_id"], ["id"]
    )
    op.create_foreign_key(
        op.f("fk_credit_entries_credit_note_id"),
        "credit_entries",
        "credit_notes",
        ["credit_note_id"],
        ["id"],
    )
    op.add_column("invoice_lines", sa.Column("net", sa.BigInteger(), nullable=True))
    op.add_column(
        "invoice_lines", sa.Column("tax", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.add_column(
        "invoice_lines",
        sa.Column(
            "taxes",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
    )
    op.add_column("invoices", sa.Column("sequence", sa.BigInteger(), nullable=True))
    op.add_column("invoices", sa.Column("series_year", sa.Integer(), nullable=True))
    op.add_column(
        "invoices",
        sa.Column("amount_credited", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.add_column(
        "invoices",
        sa.Column("amount_refunded", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.add_column(
        "invoices",
        sa.Column("amount_written_off", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.add_column("invoices", sa.Column("memo", sa.Text(), nullable=True))
    op.add_column("invoices", sa.Column("po_number", sa.Text(), nullable=True))
    op.add_column(
        "invoices", sa.Column("review_ends_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "invoices", sa.Column("written_off_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "invoices",
        sa.Column(
            "superseded", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False
        ),
    )
    op.create_index(
        "ix_invoices_review_ends_at",
        "invoices",
        ["review_ends_at"],
        unique=False,
        postgresql_where="review_ends_at IS NOT NULL",
    )
    op.add_column("ledger_entries", sa.Column("credit_note_id", sa.Uuid(), nullable=True))
    op.add_column("ledger_entries", sa.Column("refund_id", sa.Uuid(), nullable=True))
    op.add_column("ledger_entries", sa.Column("grant_id", sa.Uuid(), nullable=True))
    op.create_index("ix_ledger_entries_grant_id", "ledger_entries", ["grant_id"], unique=False)
    op.create_index(
        "ix_ledger_entries_account_id_id", "ledger_entries", ["account_id", "id"], unique=False
    )
    op.create_index(
        "ix_ledger_entries_client_id_id", "ledger_entries", ["client_id", "id"], unique=False
    )
    op.create_index(
        "uq_ledger_entries_credit_note_id", "ledger_entries", ["credit_note_id"], unique=True
    )
    op.create_index(
        "uq_ledger_entries_refund_id_event", "ledger_entries", ["refund_id", "event"], unique=True
    )
    op.create_foreign_key(
        op.f("fk_ledger_entries_grant_id"), "ledger_entries", "credit_grants", ["grant_id"], ["id"]
    )
    op.create_foreign_key(
        op.f("fk_ledger_entries_refund_id"), "ledger_entries", "refunds", ["refund_id"], ["id"]
    )
    op.create_foreign_key(
        op.f("fk_ledger_entries_credit_note_id"),
        "ledger_entries",
        "credit_notes",
        ["credit_note_id"],
        ["id"],
    )
    op.add_column("ledger_postings", sa.Column("tax_rate_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_ledger_postings_tax_rate_id"),
        "ledger_postings",
        "tax_rates",
        ["tax_rate_id"],
        ["id"],
    )
    op.add_column(
        "number_series", sa.Column("year", sa.Integer(), server_default="0", nullable=False)
    )
    op.add_column(
        "number_series",
        sa.Column("first_number", sa.BigInteger(), server_default="1", nullable=False),
    )
    op.add_column(
        "payment_attempts",
        sa.Column("purpose", sa.Text(), server_default="invoice", nullable=False),
    )
    op.add_column(
        "payment_attempts",
        sa.Column(
            "told",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
    )
    op.alter_column("payment_attempts", "invoice_id", existing_type=sa.UUID(), nullable=True)
    op.alter_column("payment_attempts", "ordinal", existing_type=sa.INTEGER(), nullable=True)
    op.create_index(
        "uq_payment_attempts_still_open_for_credit",
        "payment_attempts",
        ["client_id", "purpose"],
        unique=True,
        postgresql_where="purpose <> 'invoice' AND state IN ('needs_action', 'pending', 'processing', 'unknown')",
    )
    op.execute(_BACKFILL)
    op.create_unique_constraint(
        op.f("uq_invoices_account_id_series_year_sequence"),
        "invoices",
        ["account_id", "series_year", "sequence"],
    )
    op.alter_column("invoice_lines", "net", nullable=False)
    op.drop_constraint(op.f("pk_number_series"), "number_series")
    op.create_primary_key(
        op.f("pk_number_series"), "number_series", ["account_id", "document", "year"]
    )
    for table, names in _DROPPED.items():
        for name in names:
            op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    op.drop_column("invoices", "amount_due")
    op.add_column(
        "invoices",
        sa.Column(
            "amount_due", sa.BigInteger(), sa.Computed(_AMOUNT_DUE, persisted=True), nullable=False
        ),
    )
    for table, checks in _CHECKS.items():
        for name, condition in checks.items():
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
    op.execute(_TRIGGERS)
