"""Payments that Stripe knows no more."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "payment_attempts", sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True)
    )
