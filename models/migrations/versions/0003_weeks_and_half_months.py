"""Weekly and semimonthly cycles."""

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
