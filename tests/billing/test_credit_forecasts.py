from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.credit_forecasts import CreditForecast, ForecastInvoice

JUNE = date(2026, 6, 15)


@pytest.mark.parametrize(
    ("balance", "total", "credit", "due", "left"),
    [
        (0, 1000, 0, 1000, 0),
        (400, 1000, 400, 600, 0),
        (1500, 1000, 1000, 0, 500),
        # A debit comes in whole, but never where nothing is due.
        (-30, 1000, -30, 1030, 0),
        (-30, 0, 0, 0, -30),
        (100, 0, 0, 0, 100),
        (100, -250, -250, 0, 350),
        (-30, -250, -250, 0, 220),
    ],
)
def test_what_an_invoice_makes_of_a_balance(
    balance: int, total: int, credit: int, due: int, left: int
) -> None:
    forecast = CreditForecast(balance)

    invoice = forecast.finalize(total, JUNE)

    assert (invoice.credit, invoice.due, forecast.balance) == (credit, due, left)


def test_what_a_negative_invoice_gives_pays_open_ones_oldest_due_first() -> None:
    before = ForecastInvoice(date(2026, 5, 1), 300)
    forecast = CreditForecast(0, [before])
    first = forecast.finalize(500, JUNE)

    forecast.finalize(-400, JUNE)

    assert (before.due, first.due, forecast.balance) == (0, 400, 0)


def test_a_debit_is_not_added_to_invoices_that_were_open_before() -> None:
    before = ForecastInvoice(date(2026, 5, 1), 300)
    forecast = CreditForecast(-500, [before])

    forecast.finalize(-100, JUNE)

    assert (before.due, forecast.balance) == (300, -400)


@pytest.mark.parametrize(
    ("due", "currency", "charged"),
    [(50, "usd", 50), (49, "usd", 0), (0, "usd", 0), (1005, "kwd", 0), (100, "kpw", 0)],
)
def test_a_card_is_charged_what_stripe_takes(due: int, currency: str, charged: int) -> None:
    assert ForecastInvoice(JUNE, due).on_card(currency) == charged


@given(st.integers(-500, 500), st.lists(st.integers(-300, 300), max_size=6))
def test_nothing_is_lost_between_the_balance_and_the_invoices(
    balance: int, totals: list[int]
) -> None:
    forecast = CreditForecast(balance)

    invoices = [forecast.finalize(total, JUNE) for total in totals]

    used = sum(one.credit for one in invoices)
    assert forecast.balance + used == balance
    assert sum(one.due for one in invoices) == sum(totals) - used
