"""Differences from Stripe's record that somebody has acknowledged."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TRIGGERS = """
CREATE TRIGGER difference_acknowledgements_stay
    BEFORE DELETE OR TRUNCATE ON difference_acknowledgements
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Who knew what, when and why is told as it was; all that may come after is its withdrawal.
CREATE FUNCTION check_acknowledgement_stays() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    RAISE EXCEPTION 'acknowledgement % can be withdrawn once, and never be changed', OLD.id
        USING ERRCODE = 'restrict_violation';
END $fn$;

CREATE TRIGGER difference_acknowledgements_are_withdrawn_once
    BEFORE UPDATE ON difference_acknowledgements
    FOR EACH ROW WHEN (OLD.withdrawn_at IS NOT NULL
                       OR (OLD.id, OLD.difference_id, OLD.reason, OLD.acknowledged_by,
                           OLD.acknowledged_at)
                       IS DISTINCT FROM (NEW.id, NEW.difference_id, NEW.reason, NEW.acknowledged_by,
                                         NEW.acknowledged_at))
    EXECUTE FUNCTION check_acknowledgement_stays();
"""


def upgrade() -> None:
    op.create_table(
        "difference_acknowledgements",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("difference_id", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("acknowledged_by", sa.Text(), nullable=False),
        sa.Column(
            "acknowledged_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("withdrawn_by", sa.Text(), nullable=True),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(withdrawn_at IS NULL) = (withdrawn_by IS NULL)",
            name=op.f("ck_difference_acknowledgements_withdrawal"),
        ),
        sa.ForeignKeyConstraint(
            ["difference_id"],
            ["reconciliation_differences.id"],
            name=op.f("fk_difference_acknowledgements_difference_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_difference_acknowledgements")),
    )
    op.create_index(
        "uq_difference_acknowledgements_in_force",
        "difference_acknowledgements",
        ["difference_id"],
        unique=True,
        postgresql_where=sa.text("withdrawn_at IS NULL"),
    )
    op.add_column(
        "reconciliation_differences", sa.Column("acknowledgement_id", sa.Uuid(), nullable=True)
    )
    op.create_foreign_key(
        op.f("fk_reconciliation_differences_acknowledgement_id"),
        "reconciliation_differences",
        "difference_acknowledgements",
        ["acknowledgement_id"],
        ["id"],
    )
    op.execute(_TRIGGERS)
