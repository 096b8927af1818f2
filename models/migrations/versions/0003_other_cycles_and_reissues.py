"""Weekly and semimonthly cycles; voids that settle what was paid, and reissues."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("ck_clients_billing_cycle"), "clients")
    op.create_check_constraint(
        op.f("ck_clients_billing_cycle"),
        "clients",
        "billing_cycle IN ('manual', 'monthly', 'semimonthly', 'weekly')",
    )
    op.drop_constraint(op.f("ck_clients_anchor_day"), "clients")
    op.create_check_constraint(
        op.f("ck_clients_anchor_day"),
        "clients",
        "anchor_day BETWEEN 1 AND 31 AND (billing_cycle <> 'weekly' OR anchor_day <= 7)",
    )
    op.add_column("charges", sa.Column("copy_of", sa.Uuid(), nullable=True))
    op.create_index(
        "uq_charges_copy_of",
        "charges",
        ["copy_of"],
        unique=True,
        postgresql_where="copy_of IS NOT NULL",
    )
    op.create_foreign_key(op.f("fk_charges_copy_of"), "charges", "charges", ["copy_of"], ["id"])
    op.add_column("invoices", sa.Column("reissued_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_invoices_reissued"), "invoices", "reissued_at IS NULL OR status = 'void'"
    )
    op.drop_constraint(op.f("ck_credit_entries_kind"), "credit_entries")
    op.create_check_constraint(
        op.f("ck_credit_entries_kind"),
        "credit_entries",
        "kind IN ('deposit', 'adjustment', 'applied', 'returned', 'settled', 'negative_invoice',"
        " 'carried', 'overpayment', 'unexpected')",
    )
    op.create_index(
        "uq_credit_entries_settled",
        "credit_entries",
        ["invoice_id"],
        unique=True,
        postgresql_where="kind = 'settled'",
    )
