"""Credit, cards and mail: what happens to an invoice after it is finalized."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_QUEUES = "INSERT INTO queues (name) VALUES ('payments'), ('mail')"

# Until now a negative invoice was credit in the books alone: its client gets it in hand.
_CREDIT_OF_NEGATIVE_INVOICES = """
WITH negative AS (
    SELECT account_id, client_id, currency, id, -total AS amount, finalized_at FROM invoices
     WHERE status = 'paid' AND total < 0
), balances AS (
    INSERT INTO credit_balances (account_id, client_id, currency, balance)
    SELECT account_id, client_id, currency, sum(amount) FROM negative
     GROUP BY account_id, client_id, currency
    RETURNING client_id, currency
)
INSERT INTO credit_entries (client_id, currency, kind, amount, invoice_id, requested_by, created_at)
SELECT client_id, currency, 'negative_invoice', amount, id, 'migration', finalized_at
  FROM negative JOIN balances USING (client_id, currency)
"""

# What the code promises, the database insists on.
_TRIGGERS = """
CREATE TRIGGER credit_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payments_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON payments
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payment_attempts_kept BEFORE DELETE OR TRUNCATE ON payment_attempts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What was asked of Stripe stays as it was asked; an outcome is never taken back.
CREATE FUNCTION check_attempt_change() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF (OLD.invoice_id, OLD.ordinal, OLD.amount, OLD.currency, OLD.customer, OLD.payment_method,
        OLD.idempotency_key) IS DISTINCT FROM
       (NEW.invoice_id, NEW.ordinal, NEW.amount, NEW.currency, NEW.customer, NEW.payment_method,
        NEW.idempotency_key) THEN
        RAISE EXCEPTION 'payment attempt % was asked of Stripe as it stands', OLD.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.state <> OLD.state
       AND (OLD.state = 'succeeded'
            OR OLD.state IN ('declined', 'canceled') AND NEW.state <> 'succeeded') THEN
        RAISE EXCEPTION 'a payment attempt that is % never becomes %', OLD.state, NEW.state
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $fn$;

CREATE TRIGGER payment_attempts_settled BEFORE UPDATE ON payment_attempts
    FOR EACH ROW EXECUTE FUNCTION check_attempt_change();
"""


def upgrade() -> None:
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "received_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "provider IN ('stripe', 'sendgrid')", name=op.f("ck_webhook_events_provider")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_events")),
        sa.UniqueConstraint(
            "provider", "event_id", name=op.f("uq_webhook_events_provider_event_id")
        ),
    )
    op.create_table(
        "billing_methods",
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("stripe_customer", sa.Text(), nullable=False),
        sa.Column("payment_method", sa.Text(), nullable=False),
        sa.Column("stopped_for", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_billing_methods_account_id_client_id"),
        ),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_billing_methods")),
    )
    op.create_table(
        "credit_balances",
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("balance", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_credit_balances_currency")),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_credit_balances_account_id_client_id"),
        ),
        sa.PrimaryKeyConstraint("client_id", "currency", name=op.f("pk_credit_balances")),
    )
    op.create_table(
        "payment_attempts",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("customer", sa.Text(), nullable=False),
        sa.Column("payment_method", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("payment_intent", sa.Text(), nullable=True),
        sa.Column("decline_code", sa.Text(), nullable=True),
        sa.Column("decline_class", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("asks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("first_asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_ask_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(next_ask_at IS NOT NULL) = (state IN ('pending', 'processing', 'unknown'))",
            name=op.f("ck_payment_attempts_next_ask"),
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_payment_attempts_currency")),
        sa.CheckConstraint(
            "decline_class IN ('soft', 'hard', 'needs_authentication', 'needs_new_card')",
            name=op.f("ck_payment_attempts_decline_class"),
        ),
        sa.CheckConstraint(
            "origin IN ('automatic', 'staff', 'client')", name=op.f("ck_payment_attempts_origin")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'processing', 'unknown', 'needs_action', 'succeeded', 'declined', 'canceled')",
            name=op.f("ck_payment_attempts_state"),
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_payment_attempts_amount")),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_payment_attempts_account_id_client_id"),
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
            name=op.f("fk_payment_attempts_client_id_invoice_id_currency"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_attempts")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_payment_attempts_idempotency_key")),
        sa.UniqueConstraint(
            "invoice_id", "ordinal", name=op.f("uq_payment_attempts_invoice_id_ordinal")
        ),
    )
    op.create_index(
        "ix_payment_attempts_next_ask_at",
        "payment_attempts",
        ["next_ask_at"],
        unique=False,
        postgresql_where="next_ask_at IS NOT NULL",
    )
    op.create_index(
        "ix_payment_attempts_unsettled_client_id",
        "payment_attempts",
        ["client_id"],
        unique=False,
        postgresql_where="state IN ('pending', 'processing', 'unknown')",
    )
    op.create_index(
        "uq_payment_attempts_payment_intent", "payment_attempts", ["payment_intent"], unique=True
    )
    op.create_index(
        "uq_payment_attempts_still_open",
        "payment_attempts",
        ["invoice_id"],
        unique=True,
        postgresql_where="state IN ('needs_action', 'pending', 'processing', 'unknown')",
    )
    op.create_table(
        "payments",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=True),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("applied", sa.BigInteger(), nullable=False),
        sa.Column("paid_on", sa.Date(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("flagged", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(source = 'card') = (attempt_id IS NOT NULL)", name=op.f("ck_payments_card")
        ),
        sa.CheckConstraint(
            "(source = 'outside') = (method IS NOT NULL)", name=op.f("ck_payments_outside")
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_payments_currency")),
        sa.CheckConstraint(
            "method IN ('bank_transfer', 'cash', 'check', 'card_elsewhere', 'other')",
            name=op.f("ck_payments_method"),
        ),
        sa.CheckConstraint("source IN ('card', 'outside')", name=op.f("ck_payments_source")),
        sa.CheckConstraint(
            "amount > 0 AND applied BETWEEN 0 AND amount", name=op.f("ck_payments_amount")
        ),
        sa.CheckConstraint(
            "applied = 0 OR invoice_id IS NOT NULL", name=op.f("ck_payments_applied")
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_payments_account_id_client_id"),
        ),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["payment_attempts.id"], name=op.f("fk_payments_attempt_id")
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
            name=op.f("fk_payments_client_id_invoice_id_currency"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
    )
    op.create_index("ix_payments_account_id_id", "payments", ["account_id", "id"], unique=False)
    op.create_index("ix_payments_client_id_id", "payments", ["client_id", "id"], unique=False)
    op.create_index("ix_payments_invoice_id", "payments", ["invoice_id"], unique=False)
    op.create_index("uq_payments_attempt_id", "payments", ["attempt_id"], unique=True)
    op.create_table(
        "credit_entries",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=True),
        sa.Column("payment_id", sa.Uuid(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "kind IN ('deposit', 'adjustment', 'applied', 'returned', 'negative_invoice', 'carried', 'overpayment', 'unexpected')",
            name=op.f("ck_credit_entries_kind"),
        ),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_credit_entries_amount")),
        sa.ForeignKeyConstraint(
            ["client_id", "currency"],
            ["credit_balances.client_id", "credit_balances.currency"],
            name=op.f("fk_credit_entries_client_id_currency"),
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
            name=op.f("fk_credit_entries_client_id_invoice_id_currency"),
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payments.id"], name=op.f("fk_credit_entries_payment_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_entries")),
    )
    op.create_index(
        "ix_credit_entries_client_id_id", "credit_entries", ["client_id", "id"], unique=False
    )
    op.create_index("ix_credit_entries_invoice_id", "credit_entries", ["invoice_id"], unique=False)
    op.create_index(
        "uq_credit_entries_returned",
        "credit_entries",
        ["invoice_id"],
        unique=True,
        postgresql_where="kind = 'returned'",
    )
    op.create_table(
        "mails",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject_key", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("sending", sa.Integer(), server_default="1", nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("invoice_ids", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column(
            "told",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("payment_id", sa.Uuid(), nullable=True),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('invoice_ready', 'receipt', 'payment_failed')", name=op.f("ck_mails_kind")
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'claimed', 'accepted', 'delivered', 'bounced', 'refused', 'unknown', 'suppressed')",
            name=op.f("ck_mails_state"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_mails_account_id_client_id"),
        ),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["payment_attempts.id"], name=op.f("fk_mails_attempt_id")
        ),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_mails_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mails")),
        sa.UniqueConstraint(
            "kind",
            "subject_key",
            "recipient",
            "sending",
            name=op.f("uq_mails_kind_subject_key_recipient_sending"),
        ),
    )
    op.create_index("ix_mails_account_id_id", "mails", ["account_id", "id"], unique=False)
    op.create_index("ix_mails_client_id_id", "mails", ["client_id", "id"], unique=False)
    op.create_index(
        "ix_mails_invoice_ids", "mails", ["invoice_ids"], unique=False, postgresql_using="gin"
    )
    op.add_column(
        "accounts", sa.Column("auto_collect", sa.Boolean(), server_default="true", nullable=False)
    )
    op.add_column(
        "accounts",
        sa.Column(
            "dunning_days",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default="[3, 5, 7, 7]",
            nullable=False,
        ),
    )
    op.add_column(
        "accounts",
        sa.Column(
            "notifications",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
    )
    op.add_column("clients", sa.Column("auto_collect", sa.Boolean(), nullable=True))
    op.add_column(
        "clients",
        sa.Column(
            "notifications",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
    )
    op.add_column(
        "invoices", sa.Column("auto_collect", sa.Boolean(), server_default="false", nullable=False)
    )
    op.add_column(
        "invoices", sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "invoices", sa.Column("attempt_count", sa.Integer(), server_default="0", nullable=False)
    )
    op.add_column(
        "invoices", sa.Column("failures", sa.Integer(), server_default="0", nullable=False)
    )
    op.create_index(
        "ix_invoices_next_attempt_at",
        "invoices",
        ["next_attempt_at"],
        unique=False,
        postgresql_where="next_attempt_at IS NOT NULL",
    )
    op.create_index(
        "ix_invoices_open",
        "invoices",
        ["client_id", "currency", "due_on"],
        unique=False,
        postgresql_where="status = 'open'",
    )
    op.add_column("ledger_entries", sa.Column("payment_id", sa.Uuid(), nullable=True))
    op.create_index("ix_ledger_entries_invoice_id", "ledger_entries", ["invoice_id"], unique=False)
    op.create_index("uq_ledger_entries_payment_id", "ledger_entries", ["payment_id"], unique=True)
    op.create_foreign_key(
        op.f("fk_ledger_entries_payment_id"), "ledger_entries", "payments", ["payment_id"], ["id"]
    )
    op.drop_constraint(op.f("ck_ledger_entries_event"), "ledger_entries")
    op.create_check_constraint(
        op.f("ck_ledger_entries_event"),
        "ledger_entries",
        "event IN ('finalize', 'void', 'apply_credit', 'carry', 'card_payment', 'outside_payment', 'deposit', 'adjustment')",
    )
    op.drop_constraint(op.f("ck_ledger_postings_ledger_account"), "ledger_postings")
    op.create_check_constraint(
        op.f("ck_ledger_postings_ledger_account"),
        "ledger_postings",
        "ledger_account IN ('receivable', 'revenue', 'credit', 'adjustment', 'stripe', 'outside')",
    )
    op.create_check_constraint(
        op.f("ck_invoices_next_attempt_at"),
        "invoices",
        "next_attempt_at IS NULL OR (status = 'open' AND auto_collect)",
    )
    op.create_check_constraint(
        op.f("ck_invoices_attempts"), "invoices", "attempt_count >= 0 AND failures >= 0"
    )
    op.drop_index("uq_ledger_entries_invoice_event", "ledger_entries")
    op.create_index(
        "uq_ledger_entries_invoice_event",
        "ledger_entries",
        ["invoice_id", "event"],
        unique=True,
        postgresql_where="event IN ('finalize', 'void')",
    )
    op.execute(_QUEUES)
    op.execute(_CREDIT_OF_NEGATIVE_INVOICES)
    op.execute(_TRIGGERS)
