"""The trial balance: what stands on each account of the books."""

from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models import LedgerEntry, LedgerPosting, TaxRateRow


@dataclass(frozen=True, slots=True)
class Balance:
    """One ledger account in one currency. Amounts are in minor units, both sides positive.

    Tax has an account for each rate, by its id and name.
    """

    ledger_account: str
    currency: str
    debits: int
    credits: int
    tax_rate_id: UUID | None = None
    tax_rate_name: str | None = None

    @property
    def balance(self) -> int:
        """Debits less credits."""
        return self.debits - self.credits


def trial_balance(
    session: Session, account_id: UUID, *, first: date | None = None, last: date | None = None
) -> list[Balance]:
    """Every ledger account that was posted to on these days, by currency and name; tax by rate.

    Days are effective ones, and both are in it. Without the first it is what stands on each account
    at the end of the last. In each currency all debits equal all credits, by the database's own
    check.
    """
    amount = LedgerPosting.amount
    postings = (
        select(
            LedgerPosting.ledger_account,
            LedgerPosting.currency,
            func.coalesce(func.sum(amount).filter(amount > 0), 0),
            func.coalesce(-func.sum(amount).filter(amount < 0), 0),
            TaxRateRow.id,
            TaxRateRow.name,
        )
        .join(LedgerEntry, LedgerEntry.id == LedgerPosting.entry_id)
        .outerjoin(TaxRateRow, TaxRateRow.id == LedgerPosting.tax_rate_id)
        .where(LedgerEntry.account_id == account_id)
        .group_by(LedgerPosting.currency, LedgerPosting.ledger_account, TaxRateRow.id)
        .order_by(LedgerPosting.currency, LedgerPosting.ledger_account, TaxRateRow.id)
    )
    if first is not None:
        postings = postings.where(LedgerEntry.effective_on >= first)
    if last is not None:
        postings = postings.where(LedgerEntry.effective_on <= last)
    return [
        Balance(name, currency, int(debits), int(credited), rate_id, rate)
        for name, currency, debits, credited, rate_id, rate in session.execute(postings)
    ]
