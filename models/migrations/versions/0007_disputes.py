"""Disputes: payments that the client's bank questions, takes back and may give back."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_DROPPED = {
    "credit_entries": ["kind"],
    "ledger_entries": ["event"],
    "ledger_postings": ["ledger_account"],
}

_CHECKS = {
    "accounts": {"dispute_lost": "dispute_lost IN ('reopen', 'write_off')"},
    "invoices": {"amount_lost": "amount_lost BETWEEN 0 AND GREATEST(amount_paid, 0)"},
    "credit_entries": {
        "kind": "kind IN ('deposit', 'adjustment', 'applied', 'returned', 'settled',"
        " 'negative_invoice', 'carried', 'overpayment', 'unexpected', 'granted', 'expired',"
        " 'credit_note', 'refund', 'refund_failed', 'paid_out', 'dispute')",
    },
    "ledger_entries": {
        "event": "event IN ('finalize', 'void', 'apply_credit', 'carry', 'card_payment',"
        " 'outside_payment', 'deposit', 'grant', 'expiry', 'adjustment', 'credit_refund',"
        " 'credit_note', 'refund', 'refund_failed', 'write_off', 'recovery', 'dispute_opened',"
        " 'dispute_won', 'dispute_lost')",
    },
    "ledger_postings": {
        "ledger_account": "ledger_account IN ('receivable', 'revenue', 'tax', 'credit',"
        " 'promotion', 'adjustment', 'stripe', 'outside', 'bad_debt', 'disputed', 'dispute_loss')",
    },
}

# What the code promises, the database insists on.
_TRIGGERS = """
CREATE TRIGGER disputes_kept BEFORE DELETE OR TRUNCATE ON disputes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What the bank took is taken, and its last word is its last.
CREATE FUNCTION check_dispute_change() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF (OLD.account_id, OLD.client_id, OLD.payment_id, OLD.invoice_id, OLD.stripe_dispute,
        OLD.currency) IS DISTINCT FROM
       (NEW.account_id, NEW.client_id, NEW.payment_id, NEW.invoice_id, NEW.stripe_dispute,
        NEW.currency)
       OR OLD.opened_at IS NOT NULL
          AND (OLD.amount, OLD.opened_at) IS DISTINCT FROM (NEW.amount, NEW.opened_at) THEN
        RAISE EXCEPTION 'dispute % is of what it is of', OLD.stripe_dispute
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.state <> OLD.state AND (OLD.state, NEW.state) NOT IN (
        ('inquiry', 'closed'), ('inquiry', 'open'), ('closed', 'open'), ('open', 'won'),
        ('open', 'lost')) THEN
        RAISE EXCEPTION 'a dispute that is % never becomes %', OLD.state, NEW.state
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $fn$;

CREATE TRIGGER disputes_go_on BEFORE UPDATE ON disputes
    FOR EACH ROW EXECUTE FUNCTION check_dispute_change();
"""


def upgrade() -> None:
    op.create_table(
        "disputes",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=True),
        sa.Column("stripe_dispute", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disputed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reopened", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("written_off", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("taken_back", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "state IN ('inquiry', 'closed', 'open', 'won', 'lost')", name=op.f("ck_disputes_state")
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_disputes_currency")),
        sa.CheckConstraint("amount > 0", name=op.f("ck_disputes_amount")),
        sa.CheckConstraint(
            "(opened_at IS NOT NULL) = (state IN ('open', 'won', 'lost'))",
            name=op.f("ck_disputes_opened"),
        ),
        sa.CheckConstraint(
            "(closed_at IS NOT NULL) = (state IN ('closed', 'won', 'lost'))",
            name=op.f("ck_disputes_closed"),
        ),
        sa.CheckConstraint(
            "reopened >= 0 AND written_off >= 0 AND taken_back >= 0"
            " AND reopened + written_off + taken_back"
            " = CASE WHEN state = 'lost' THEN amount ELSE 0 END",
            name=op.f("ck_disputes_lost"),
        ),
        sa.CheckConstraint(
            "invoice_id IS NOT NULL OR reopened + written_off = 0",
            name=op.f("ck_disputes_invoice"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_disputes_account_id_client_id"),
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
            name=op.f("fk_disputes_client_id_invoice_id_currency"),
        ),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payments.id"], name=op.f("fk_disputes_payment_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_disputes")),
    )
    op.create_index("ix_disputes_account_id_id", "disputes", ["account_id", "id"], unique=False)
    op.create_index("ix_disputes_client_id_id", "disputes", ["client_id", "id"], unique=False)
    op.create_index("ix_disputes_invoice_id", "disputes", ["invoice_id"], unique=False)
    op.create_index("ix_disputes_payment_id", "disputes", ["payment_id"], unique=False)
    op.create_index("uq_disputes_stripe_dispute", "disputes", ["stripe_dispute"], unique=True)
    op.add_column(
        "accounts", sa.Column("dispute_lost", sa.Text(), server_default="reopen", nullable=False)
    )
    op.add_column(
        "invoices",
        sa.Column("amount_lost", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.add_column("credit_entries", sa.Column("dispute_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_credit_entries_dispute_id"), "credit_entries", "disputes", ["dispute_id"], ["id"]
    )
    op.add_column("ledger_entries", sa.Column("dispute_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_ledger_entries_dispute_id"), "ledger_entries", "disputes", ["dispute_id"], ["id"]
    )
    op.create_index(
        "uq_ledger_entries_dispute_id_event",
        "ledger_entries",
        ["dispute_id", "event"],
        unique=True,
    )
    for table, names in _DROPPED.items():
        for name in names:
            op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    for table, checks in _CHECKS.items():
        for name, condition in checks.items():
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
    op.execute(_TRIGGERS)
