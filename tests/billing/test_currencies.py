import pytest

from billing.currencies import MINOR_UNITS, currency_code, decimals
from billing.errors import InvalidInput


@pytest.mark.parametrize(
    ("currency", "places"),
    [
        ("usd", 2),
        ("eur", 2),
        ("mga", 2),  # Its subunit is a fifth, which ISO writes with two decimals all the same.
        ("huf", 2),  # Some payment providers count these three otherwise; ISO does not.
        ("twd", 2),
        ("isk", 0),
        ("jpy", 0),
        ("krw", 0),
        ("clp", 0),
        ("ugx", 0),
        ("xof", 0),
        ("kwd", 3),
        ("bhd", 3),
        ("iqd", 3),
        ("tnd", 3),
    ],
)
def test_decimals_are_those_of_iso_4217(currency: str, places: int) -> None:
    assert decimals(currency) == places


def test_every_active_currency_is_there_once() -> None:
    # List One has 165 codes with a minor unit; ten of them are funds and units of account.
    assert len(MINOR_UNITS) == 155
    assert all(
        len(code) == 3 and code.isascii() and code.isalpha() and code.islower()
        for code in MINOR_UNITS
    )


@pytest.mark.parametrize("code", ["clf", "che", "uyw", "xad", "xau", "xdr", "xts", "xxx"])
def test_funds_metals_and_test_codes_are_left_out(code: str) -> None:
    assert code not in MINOR_UNITS


@pytest.mark.parametrize(
    ("gone", "now"), [("bgn", "eur"), ("ang", "xcg"), ("zwl", "zwg"), ("sll", "sle")]
)
def test_withdrawn_currencies_are_replaced(gone: str, now: str) -> None:
    assert gone not in MINOR_UNITS
    assert now in MINOR_UNITS


@pytest.mark.parametrize("text", ["usd", "USD", "Usd"])
def test_codes_are_kept_in_lower_case(text: str) -> None:
    assert currency_code(text) == "usd"


@pytest.mark.parametrize("text", ["", "us", "usdt", " usd", "usd\n", "bgn", "\u212aRW", "xxx"])
def test_anything_else_is_refused_by_the_name_of_its_field(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        currency_code(text, "client.currency")

    assert refused.value.field == "client.currency"


def test_decimals_of_an_unknown_currency_are_refused() -> None:
    with pytest.raises(InvalidInput):
        decimals("btc")
