"""What the demo did, and whether everything in it agrees."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from billing.currencies import decimals
from cli.billing import BillReport
from cli.demo_checks import Agreement
from cli.demo_setup import Prepared, Sums
from cli.following_up import FollowUp
from models import Invoice, InvoiceLine
from tasks.audits import RULES, Difference
from tasks.trial_balances import Balance

STAGES = (
    "starting",
    "stopping",
    "in all",
    "importing",
    "cards and deposits",
    "billing",
    "charging and mailing",
)
"""What is timed, in the order in which it is told."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One invoice, its document, and the folder of the mail that told of it."""

    invoice: Invoice
    lines: list[InvoiceLine]
    document: Path
    mail: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """Everything that the demo did.

    ``expected`` is the independent sum over the files; ``revenue`` is in minor units by currency
    and description; ``mails`` is where the local SendGrid keeps what it took.
    """

    month: date
    boundary: date
    directory: Path
    prepared: Prepared
    url: str
    mails: Path
    pids: dict[str, int]
    billed: BillReport
    followed: FollowUp
    expected: Sums
    invoiced: Sums
    trial_balance: Sequence[Balance]
    agreements: Sequence[Agreement]
    differences: list[Difference]
    revenue: dict[str, Counter[str]]
    sample: Sample
    seconds: dict[str, float]

    @property
    def files_agree(self) -> bool:
        """Whether every client is invoiced, in every currency, what the files say."""
        return self.expected == self.invoiced

    @property
    def books_agree(self) -> bool:
        """Whether debits equal credits, and revenue what was invoiced, in every currency."""
        return all(
            self.sides(currency)[0] == self.sides(currency)[1]
            and self._revenue_booked(currency) == self._minor(self.invoiced, currency)
            for currency in self.currencies
        )

    @property
    def ok(self) -> bool:
        """Whether nothing at all is wrong."""
        return (
            self.files_agree
            and self.books_agree
            and all(one.ok for one in self.agreements)
            and not self.differences
            and not self.billed.found_a_problem
            and not self.followed.found_a_problem
            and not any(one.bad for one in self.prepared.imports.values())
        )

    @property
    def currencies(self) -> list[str]:
        """Every currency that the files or the invoices have."""
        return sorted({currency for _, currency in (*self.expected, *self.invoiced)})

    @property
    def by_currency(self) -> dict[str, dict[str, int]]:
        """In minor units: what the files say, what was invoiced, and what was booked."""
        return {
            currency: {
                "files": self._minor(self.expected, currency),
                "invoices": self._minor(self.invoiced, currency),
                "revenue_booked": self._revenue_booked(currency),
            }
            for currency in self.currencies
        }

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "ok": self.ok,
            "month": self.month,
            "billed_as_of": self.boundary,
            "directory": str(self.directory),
            "files": {name: str(path) for name, path in self.prepared.files.items()},
            "pids": self.pids,
            "imports": {name: one.as_json() for name, one in self.prepared.imports.items()},
            "cards": self.prepared.cards,
            "emails": self.prepared.emails,
            "paid_ahead": self.prepared.paid_ahead,
            "billed": self.billed.as_json(),
            "followed_up": self.followed.as_json(),
            "totals": self.by_currency,
            "files_agree": self.files_agree,
            "books_agree": self.books_agree,
            "agreements": [one.as_json() for one in self.agreements],
            "trial_balance": [asdict(line) for line in self.trial_balance],
            "audit": {
                "rules": len(RULES),
                "differences": [asdict(one) for one in self.differences],
            },
            "revenue": self.revenue,
            "sample": {
                "invoice": self.sample.invoice.number,
                "document": str(self.sample.document),
                "mail": None if self.sample.mail is None else str(self.sample.mail),
            },
            "seconds": {name: round(self.seconds[name], 3) for name in STAGES},
            "invoices_per_second": round(self.billed.invoices / self.billed.seconds, 1),
        }

    def sides(self, currency: str) -> tuple[int, int]:
        """The sums of a currency's debits and credits, in minor units."""
        lines = [line for line in self.trial_balance if line.currency == currency]
        return sum(line.debits for line in lines), sum(line.credits for line in lines)

    def _revenue_booked(self, currency: str) -> int:
        return sum(
            line.credits - line.debits
            for line in self.trial_balance
            if line.currency == currency and line.ledger_account == "revenue"
        )

    @staticmethod
    def _minor(sums: Sums, currency: str) -> int:
        total = sum(amount for (_, in_), amount in sums.items() if in_ == currency)
        return int(Decimal(total).scaleb(decimals(currency)))
