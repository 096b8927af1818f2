"""Tax rates: named percents, each valid for a while."""

from datetime import date
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from billing.tax import MAX_PERCENT, TaxRate
from models.base import Base, CreatedAt, Percent, PrimaryKey


class TaxRateRow(Base):
    """One of an account's rates. Only its end ever changes: a new percent is a new rate."""

    __tablename__ = "tax_rates"
    __table_args__ = (
        Index("ix_tax_rates_account_id_id", "account_id", "id"),
        CheckConstraint(f"percent BETWEEN 0 AND {MAX_PERCENT}", name="percent"),
        CheckConstraint("valid_from < valid_to", name="dates"),
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]
    percent: Mapped[Percent]
    inclusive: Mapped[bool]
    valid_from: Mapped[date]
    valid_to: Mapped[date | None]
    created_at: Mapped[CreatedAt]

    @property
    def rate(self) -> TaxRate:
        """The rate as the rules know it."""
        return TaxRate(
            id=self.id,
            name=self.name,
            percent=self.percent,
            inclusive=self.inclusive,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
        )
