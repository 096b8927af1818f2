"""The trial balance: what stands on each account of the books."""

from dataclasses import dataclass
from datetime import date
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models import LedgerEntry, LedgerPosting


@dataclass(frozen=True, slots=True)
class Balance:
    """One ledger account in one currency. Amounts are in minor units, both sides positive."""

    ledger_account: str
    currency: str
    debits: int
    credits: int

    @property
    def balance(self) -> int:
        """Debits less credits."""
        return self.debits - self.credits


def trial_balance(
    session: Session, account_id: UUID, *, first: date | None = None, last: date | None = None
) -> list[Balance]:
    """Every ledger account that was posted to on these days, by currency and name.

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
        )
        .join(LedgerEntry, LedgerEntry.id == LedgerPosting.entry_id)
        .where(LedgerEntry.account_id == account_id)
        .group_by(LedgerPosting.currency, LedgerPosting.ledger_account)
        .order_by(LedgerPosting.currency, LedgerPosting.ledger_account)
    )
    if first is not None:
        postings = postings.where(LedgerEntry.effective_on >= first)
    if last is not None:
        postings = postings.where(LedgerEntry.effective_on <= last)
    return [
        Balance(name, currency, int(debits), int(credited))
        for name, currency, debits, credited in session.execute(postings)
    ]
