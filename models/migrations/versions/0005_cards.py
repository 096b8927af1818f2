"""Cards: what each is, a second one behind it, and pages on which clients leave them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_EXPIRY = {
    "exp_month": "exp_month BETWEEN 1 AND 12",
    "expiry": "(exp_month IS NULL) = (exp_year IS NULL)",
    "checked": "checked_at IS NOT NULL OR kind IS NULL",
}

_TRIGGERS = """
CREATE TRIGGER card_setups_kept BEFORE DELETE OR TRUNCATE ON card_setups
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


def upgrade() -> None:
    # Of those there are, any may have been sent.
    op.add_column(
        "payment_attempts",
        sa.Column("is_unsent", sa.Boolean(), server_default="false", nullable=False),
    )
    op.add_column(
        "clients",
        sa.Column("customers_lost", sa.Integer(), server_default="0", nullable=False),
    )
    for column in _what_a_card_is():
        op.add_column("billing_methods", column)
    for name, condition in _EXPIRY.items():
        op.create_check_constraint(op.f(f"ck_billing_methods_{name}"), "billing_methods", condition)
    op.create_table(
        "backup_methods",
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("stripe_customer", sa.Text(), nullable=False),
        sa.Column("payment_method", sa.Text(), nullable=False),
        sa.Column("stopped_for", sa.Text(), nullable=True),
        *_what_a_card_is(),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        *(
            sa.CheckConstraint(condition, name=op.f(f"ck_backup_methods_{name}"))
            for name, condition in _EXPIRY.items()
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_backup_methods_account_id_client_id"),
        ),
        sa.PrimaryKeyConstraint("client_id", name=op.f("pk_backup_methods")),
    )
    for table in ("billing_methods", "backup_methods"):
        for name in ("payment_method", "stripe_customer"):
            op.create_index(f"ix_{table}_{name}", table, [name], unique=False)
    op.create_table(
        "card_setups",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("checkout_session", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("return_url", sa.Text(), nullable=False),
        sa.Column("payment_method", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('default', 'backup')", name=op.f("ck_card_setups_role")),
        sa.CheckConstraint(
            "state IN ('open', 'completed', 'expired')", name=op.f("ck_card_setups_state")
        ),
        sa.CheckConstraint(
            "(checkout_session IS NULL) = (url IS NULL)", name=op.f("ck_card_setups_url")
        ),
        sa.CheckConstraint(
            "(state = 'completed') = (payment_method IS NOT NULL)",
            name=op.f("ck_card_setups_payment_method"),
        ),
        sa.CheckConstraint(
            "(state = 'open') = (ended_at IS NULL)", name=op.f("ck_card_setups_ended")
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_card_setups_account_id_client_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_card_setups")),
    )
    op.create_index(
        "uq_card_setups_checkout_session", "card_setups", ["checkout_session"], unique=True
    )
    op.create_index(
        "uq_card_setups_open",
        "card_setups",
        ["client_id", "role"],
        unique=True,
        postgresql_where="state = 'open'",
    )
    op.create_index(
        "ix_card_setups_expires_at",
        "card_setups",
        ["expires_at"],
        unique=False,
        postgresql_where="state = 'open'",
    )
    op.add_column("clients", sa.Column("stripe_customer", sa.Text(), nullable=True))
    op.create_index(
        "ix_clients_stripe_customer",
        "clients",
        ["stripe_customer"],
        unique=False,
        postgresql_where="stripe_customer IS NOT NULL",
    )
    op.add_column(
        "clients",
        sa.Column("use_backup_card", sa.Boolean(), server_default="false", nullable=False),
    )
    op.add_column("payment_attempts", sa.Column("card_brand", sa.Text(), nullable=True))
    op.add_column("payment_attempts", sa.Column("card_last4", sa.Text(), nullable=True))
    op.drop_constraint(op.f("ck_mails_kind"), "mails")
    op.create_check_constraint(
        op.f("ck_mails_kind"),
        "mails",
        "kind IN ('invoice_ready', 'receipt', 'payment_failed', 'card_expiring')",
    )
    op.execute(_TRIGGERS)


def _what_a_card_is() -> list[sa.Column[object]]:
    return [
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("last4", sa.Text(), nullable=True),
        sa.Column("exp_month", sa.Integer(), nullable=True),
        sa.Column("exp_year", sa.Integer(), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
    ]
