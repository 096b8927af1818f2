"""What goes back of an invoice, and payments that Stripe knows no more."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_GIVEN_BACK = "amount_refunded + amount_lost <= GREATEST(credit_applied + amount_paid, 0)"


def upgrade() -> None:
    op.add_column(
        "payment_attempts", sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True)
    )
    _keep_what_goes_back()


def _keep_what_goes_back() -> None:
    """Keep it for all that is written from now on, whatever an invoice of before says.

    No release wrote one that breaks it. Where somebody did by hand, that must not stop the upgrade:
    such an invoice cannot be changed before it is put right.
    """
    op.execute(
        f"ALTER TABLE invoices ADD CONSTRAINT ck_invoices_given_back CHECK ({_GIVEN_BACK}) NOT VALID"
    )
    broken = sa.select(sa.literal(1)).where(sa.text(f"NOT ({_GIVEN_BACK})")).limit(1)
    if op.get_bind().scalar(broken.select_from(sa.table("invoices"))) is None:
        op.execute("ALTER TABLE invoices VALIDATE CONSTRAINT ck_invoices_given_back")
