"""What credit and card will pay of invoices that are still to be finalized."""

from dataclasses import dataclass, field
from datetime import date

from billing.card_amounts import minimum_charge, to_stripe
from billing.credit import credit_to_apply
from billing.errors import InvalidInput


@dataclass(slots=True)
class ForecastInvoice:
    """An invoice that is open or will be. ``due`` is what ``credit``, which is signed, leaves."""

    due_on: date
    due: int
    credit: int = 0

    def on_card(self, currency: str) -> int:
        """What a card is charged for it in minor units; too little for one is carried instead."""
        try:
            to_stripe(self.due, currency)
            return self.due if self.due >= minimum_charge(currency) else 0
        except InvalidInput:
            return 0


@dataclass(slots=True)
class CreditForecast:
    """One client's balance in one currency, in minor units, and its open invoices.

    It moves as the real one does while invoices are finalized one after another.
    """

    balance: int = 0
    invoices: list[ForecastInvoice] = field(default_factory=list)

    def finalize(self, total: int, due_on: date) -> ForecastInvoice:
        """An invoice of ``total`` is finalized: it uses credit, takes a debit in, or gives credit."""
        if total < 0:
            self.balance -= total
            for older in sorted(self.invoices, key=lambda one: one.due_on):
                if self.balance > 0:
                    self._apply(older)
            return ForecastInvoice(due_on, 0, credit=total)
        invoice = ForecastInvoice(due_on, total)
        self._apply(invoice)
        self.invoices.append(invoice)
        return invoice

    def _apply(self, invoice: ForecastInvoice) -> None:
        used = credit_to_apply(self.balance, invoice.due)
        invoice.credit += used
        invoice.due -= used
        self.balance -= used
