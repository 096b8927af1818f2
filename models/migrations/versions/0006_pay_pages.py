"""Pages on which clients pay: an attempt may be one, open at Stripe until the client has paid."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_CHECKS = {
    "payment_attempts": {
        "next_ask": "(next_ask_at IS NOT NULL) = (state IN ('pending', 'processing', 'unknown')"
        " OR state = 'needs_action' AND checkout_expires_at IS NOT NULL)",
        "checkout": "(payment_method IS NULL) = (checkout_expires_at IS NOT NULL)"
        " AND (checkout_session IS NULL) = (checkout_url IS NULL)"
        " AND (checkout_session IS NULL OR checkout_expires_at IS NOT NULL)",
    },
    "mails": {
        "kind": "kind IN ('invoice_ready', 'receipt', 'payment_failed', 'authentication_needed',"
        " 'card_expiring')",
    },
}

# What was asked of Stripe stays as it was asked, also until when a page can be used.
_FROZEN = """
CREATE OR REPLACE FUNCTION check_attempt_change() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF (OLD.invoice_id, OLD.ordinal, OLD.amount, OLD.currency, OLD.customer, OLD.payment_method,
        OLD.idempotency_key, OLD.checkout_expires_at) IS DISTINCT FROM
       (NEW.invoice_id, NEW.ordinal, NEW.amount, NEW.currency, NEW.customer, NEW.payment_method,
        NEW.idempotency_key, NEW.checkout_expires_at) THEN
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
"""


def upgrade() -> None:
    op.add_column("payment_attempts", sa.Column("checkout_session", sa.Text(), nullable=True))
    op.add_column("payment_attempts", sa.Column("checkout_url", sa.Text(), nullable=True))
    op.add_column(
        "payment_attempts",
        sa.Column("checkout_expires_at", sa.DateTime(timezone=True), nullable=True),
    )
    op.alter_column("payment_attempts", "payment_method", existing_type=sa.TEXT(), nullable=True)
    op.create_index(
        "uq_payment_attempts_checkout_session",
        "payment_attempts",
        ["checkout_session"],
        unique=True,
    )
    op.drop_constraint(op.f("ck_payment_attempts_next_ask"), "payment_attempts")
    op.drop_constraint(op.f("ck_mails_kind"), "mails")
    for table, checks in _CHECKS.items():
        for name, condition in checks.items():
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition)
    op.execute(_FROZEN)
