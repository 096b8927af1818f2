"""Stripe accounts of their own for accounts, and how fast each is asked."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_MERCHANT = ["stripe_merchants.account_id", "stripe_merchants.id"]

_TRIGGERS = """
CREATE TRIGGER stripe_merchants_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON stripe_merchants
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Asked elsewhere, it would be charged again: nobody there knows of it.
CREATE FUNCTION check_attempt_stays() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    RAISE EXCEPTION 'attempt % stays at the Stripe account that it was made at', OLD.id
        USING ERRCODE = 'restrict_violation';
END $fn$;

CREATE TRIGGER payment_attempts_stay BEFORE UPDATE ON payment_attempts
    FOR EACH ROW WHEN ((OLD.merchant_id, OLD.statement_suffix)
                       IS DISTINCT FROM (NEW.merchant_id, NEW.statement_suffix))
    EXECUTE FUNCTION check_attempt_stays();
"""


def upgrade() -> None:
    _create_merchants()
    _create_limits()
    cards = ("billing_methods", "backup_methods")
    for table in ("accounts", *cards, "payment_attempts", "webhook_events"):
        op.add_column(table, sa.Column("merchant_id", sa.Uuid(), nullable=True))
    op.add_column("payment_attempts", sa.Column("statement_suffix", sa.Text(), nullable=True))
    op.create_foreign_key(
        op.f("fk_accounts_id_merchant_id"), "accounts", "stripe_merchants",
        ["id", "merchant_id"], ["account_id", "id"],
    )  # fmt: skip
    for table in (*cards, "payment_attempts"):
        op.create_foreign_key(
            op.f(f"fk_{table}_account_id_merchant_id"), table, "stripe_merchants",
            ["account_id", "merchant_id"], ["account_id", "id"],
        )  # fmt: skip
    op.create_foreign_key(
        op.f("fk_webhook_events_merchant_id"),
        "webhook_events",
        "stripe_merchants",
        ["merchant_id"],
        ["id"],
    )
    op.drop_constraint(op.f("uq_webhook_events_provider_event_id"), "webhook_events")
    op.create_unique_constraint(
        op.f("uq_webhook_events_provider_event_id_merchant_id"),
        "webhook_events",
        ["provider", "event_id", "merchant_id"],
        postgresql_nulls_not_distinct=True,
    )
    op.execute(_TRIGGERS)


def _create_merchants() -> None:
    op.create_table(
        "stripe_merchants",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("continues", sa.Uuid(), nullable=True),
        sa.Column("stripe_account", sa.Text(), nullable=True),
        sa.Column("sealed_key", sa.Text(), nullable=True),
        sa.Column("sealed_webhook_secret", sa.Text(), nullable=True),
        sa.Column("key_hint", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(stripe_account IS NULL) <> (sealed_key IS NULL)",
            name=op.f("ck_stripe_merchants_way"),
        ),
        sa.CheckConstraint(
            "(sealed_key IS NULL) = (sealed_webhook_secret IS NULL)"
            " AND (sealed_key IS NULL) = (key_hint IS NULL)",
            name=op.f("ck_stripe_merchants_own_key"),
        ),
        sa.CheckConstraint(
            "continues IS NULL OR sealed_key IS NOT NULL",
            name=op.f("ck_stripe_merchants_continues"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_stripe_merchants_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_merchants")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_stripe_merchants_account_id_id")),
        sa.ForeignKeyConstraint(
            ["account_id", "continues"],
            _MERCHANT,
            name=op.f("fk_stripe_merchants_account_id_continues"),
        ),
    )
    op.create_index(
        "uq_stripe_merchants_stripe_account",
        "stripe_merchants",
        ["stripe_account"],
        unique=True,
        postgresql_where="stripe_account IS NOT NULL",
    )


def _create_limits() -> None:
    op.create_table(
        "stripe_limits",
        sa.Column("merchant_id", sa.Uuid(), nullable=False),
        sa.Column(
            "next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("merchant_id", name=op.f("pk_stripe_limits")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "stripe_lanes",
        sa.Column("merchant_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("is_bulk", sa.Boolean(), nullable=False),
        sa.Column("taken_until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["merchant_id"],
            ["stripe_limits.merchant_id"],
            name=op.f("fk_stripe_lanes_merchant_id"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_stripe_lanes_account_id")
        ),
        sa.PrimaryKeyConstraint(
            "merchant_id", "account_id", "is_bulk", name=op.f("pk_stripe_lanes")
        ),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "stripe_turns",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("merchant_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_stripe_turns_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["merchant_id"],
            ["stripe_limits.merchant_id"],
            name=op.f("fk_stripe_turns_merchant_id"),
        ),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_stripe_turns")),
    )
