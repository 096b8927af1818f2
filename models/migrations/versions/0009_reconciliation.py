"""Reconciliation with Stripe's record."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "reconciliations",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payments", sa.Integer(), server_default="0", nullable=False),
        sa.Column("refunds", sa.Integer(), server_default="0", nullable=False),
        sa.Column("disputes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("comparing", sa.Text(), nullable=True),
        sa.Column(
            "merchants_left", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False
        ),
        sa.Column("listed_after", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint('since < "until"', name=op.f("ck_reconciliations_window")),
        sa.CheckConstraint(
            "comparing IN ('payments', 'refunds', 'disputes')",
            name=op.f("ck_reconciliations_comparing"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_reconciliations_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliations")),
    )
    op.create_index("ix_reconciliations_account_id_id", "reconciliations", ["account_id", "id"])
    op.create_table(
        "reconciliation_differences",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("reconciliation_id", sa.Uuid(), nullable=False),
        sa.Column("difference", sa.Text(), nullable=False),
        sa.Column("stripe_id", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=True),
        sa.Column("client_id", sa.Uuid(), nullable=True),
        sa.Column("invoice_id", sa.Uuid(), nullable=True),
        sa.Column("merchant_id", sa.Uuid(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("ours", sa.Text(), nullable=True),
        sa.Column("theirs", sa.Text(), nullable=True),
        sa.Column("our_amount", sa.BigInteger(), nullable=True),
        sa.Column("their_amount", sa.BigInteger(), nullable=True),
        sa.Column("repaired", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("rechecked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "difference IN ('payment_unheard', 'outcome_unheard', 'payment_unknown',"
            " 'payment_missing', 'payment_amount', 'refund_unheard', 'refund_made_elsewhere',"
            " 'refund_missing', 'refund_contradicted', 'refund_amount', 'dispute_unheard',"
            " 'dispute_missing', 'dispute_contradicted', 'dispute_amount')",
            name=op.f("ck_reconciliation_differences_difference"),
        ),
        *(
            sa.ForeignKeyConstraint(
                [column],
                [f"{table}.id"],
                name=op.f(f"fk_reconciliation_differences_{column}"),
            )
            for column, table in (
                ("reconciliation_id", "reconciliations"),
                ("client_id", "clients"),
                ("invoice_id", "invoices"),
                ("merchant_id", "stripe_merchants"),
            )
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliation_differences")),
    )
    op.create_index(
        "uq_reconciliation_differences_subject",
        "reconciliation_differences",
        ["reconciliation_id", "difference", "stripe_id"],
        unique=True,
    )
    op.create_index(
        "ix_reconciliation_differences_standing",
        "reconciliation_differences",
        ["stripe_id"],
        postgresql_where=sa.text("rechecked_at IS NULL AND NOT repaired"),
    )
    op.create_table(
        "reconciliation_records",
        sa.Column("reconciliation_id", sa.Uuid(), nullable=False),
        sa.Column("compared", sa.Text(), nullable=False),
        sa.Column("stripe_id", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Uuid(), nullable=True),
        sa.Column("is_doubted", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "compared IN ('payments', 'refunds', 'disputes')",
            name=op.f("ck_reconciliation_records_compared"),
        ),
        *(
            sa.ForeignKeyConstraint(
                [column], [f"{table}.id"], name=op.f(f"fk_reconciliation_records_{column}")
            )
            for column, table in (
                ("reconciliation_id", "reconciliations"),
                ("merchant_id", "stripe_merchants"),
            )
        ),
        sa.PrimaryKeyConstraint(
            "reconciliation_id",
            "compared",
            "stripe_id",
            name=op.f("pk_reconciliation_records"),
        ),
    )
    op.create_index(
        "ix_reconciliation_records_doubted",
        "reconciliation_records",
        ["reconciliation_id", "compared", "stripe_id"],
        postgresql_where=sa.text("is_doubted"),
    )
