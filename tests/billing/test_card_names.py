from datetime import date

import pytest

from billing.card_names import card_name, last_day


@pytest.mark.parametrize(
    ("brand", "last4", "name"),
    [
        ("visa", "4242", "Visa ending in 4242"),
        ("amex", "0005", "American Express ending in 0005"),
        ("STRIPE TEST BANK", "6789", "STRIPE TEST BANK ending in 6789"),
        ("unknown", "1111", "Card ending in 1111"),
        (None, "1111", "Card ending in 1111"),
        ("visa", None, "Visa"),
        (None, None, "Card"),
    ],
)
def test_a_card_is_called_by_its_brand_and_last_digits(
    brand: str | None, last4: str | None, name: str
) -> None:
    assert card_name(brand, last4) == name


@pytest.mark.parametrize(
    ("year", "month", "day"), [(2026, 6, 30), (2026, 12, 31), (2027, 2, 28), (2028, 2, 29)]
)
def test_a_card_is_good_until_its_months_last_day(year: int, month: int, day: int) -> None:
    assert last_day(year, month) == date(year, month, day)
