"""What Stripe takes as an amount. Its decimals and minimums are its own, not ISO's.

Source: docs.stripe.com/currencies, "Supported presentment currencies", "Zero-decimal currencies",
"Special cases" and "Minimum charge amount by currency". Kept apart from Duecourse's own table: that
one says what is sent, this one what is taken.
"""

from collections.abc import Mapping
from types import MappingProxyType

from gateways.sandbox.stripe.errors import invalid_request

_ZERO = "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf"
_THREE = "bhd jod kwd omr tnd"
ZERO_DECIMAL = frozenset(_ZERO.split())
THREE_DECIMAL = frozenset(_THREE.split())
# Zero-decimal by ISO, two-decimal in the API, and only whole units can be charged.
WHOLE_HUNDREDS = frozenset({"isk", "ugx"})

_MINIMUMS = {
    30: "gbp",
    50: "ars aud brl cad chf cop eur idr ils inr jpy krw nzd php rub sgd usd zar",
    200: "aed myr pln ron",
    250: "dkk",
    300: "nok sek",
    400: "hkd",
    1_000: "mxn thb",
    1_500: "czk",
    17_500: "huf",
}
MINIMUM: Mapping[str, int] = MappingProxyType(
    {code: least for least, codes in _MINIMUMS.items() for code in codes.split()}
)
MAXIMUM = 99_999_999

_OTHER = """
    afn amd aoa awg azn bam bbd bdt bmd bnd bob bsd bwp byn bzd cdf cny crc cve dop dzd egp etb
    fjd fkp gel gip gmd gtq gyd hnl htg jmd kes kgs khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd
    mmk mnt mop mur mvr mwk mzn nad ngn nio npr pab pen pgk pkr qar rsd sar sbd scr shp sle srd
    szl tjs try ttd twd tzs uah uyu uzs wst xcd xcg yer zmw
"""
CURRENCIES = frozenset({*ZERO_DECIMAL, *THREE_DECIMAL, *WHOLE_HUNDREDS, *MINIMUM, *_OTHER.split()})


def check_currency(currency: str) -> str:
    """The code in lower case.

    Raises:
        ApiError: Stripe does not charge in it.
    """
    code = currency.lower()
    if code not in CURRENCIES:
        raise invalid_request(
            f"Invalid currency: {currency}. Stripe currently supports these currencies: "
            + ", ".join(sorted(CURRENCIES)),
            param="currency",
        )
    return code


def check_amount(amount: int, currency: str) -> None:
    """Whether a card can be charged that much, in Stripe's units.

    Raises:
        ApiError: Too small, too large, or not a multiple of what the currency takes.
    """
    if amount < 1:
        raise invalid_request(
            "This value must be greater than or equal to 1.",
            code="parameter_invalid_integer",
            param="amount",
        )
    least = MINIMUM.get(currency, 1)
    if amount < least:
        raise invalid_request(
            f"Amount must be at least {money(least, currency)}",
            code="amount_too_small",
            param="amount",
        )
    if amount > MAXIMUM:
        raise invalid_request(
            f"Amount must be no more than {money(MAXIMUM, currency)}",
            code="amount_too_large",
            param="amount",
        )
    step = 10 if currency in THREE_DECIMAL else 100 if currency in WHOLE_HUNDREDS else 1
    if amount % step:
        raise invalid_request(
            f"Invalid amount: {currency.upper()} amounts must be evenly divisible by {step}",
            param="amount",
        )


def money(amount: int, currency: str) -> str:
    """An amount as Stripe's messages write it: ``12.50 usd``, ``500 jpy``."""
    decimals = 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2
    return f"{amount / 10**decimals:.{decimals}f} {currency}"
