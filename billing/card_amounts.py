"""Amounts as Stripe counts them: its currencies, its decimals, its minimums.

Source: https://docs.stripe.com/currencies, "Supported presentment currencies", "Zero-decimal
currencies", "Special cases" and "Minimum charge amount by currency", read in September 2026. The
three-decimal currencies are on its list for some countries' accounts only; their rule is that of
the page's section "Three-decimal currencies" of December 2022, kept at
https://web.archive.org/web/20221231002856/https://stripe.com/docs/currencies.

They differ from ISO 4217 in three places: the ariary (mga) has no decimals, and the krona (isk)
and the Uganda shilling (ugx) are written with two, always 00. The forint (huf) and the Taiwan
dollar (twd) are charged with two decimals like any other; they lose them in payouts only.
"""

from collections.abc import Mapping
from types import MappingProxyType

from billing.currencies import currency_code, decimals
from billing.errors import InvalidInput

_CODES_BY_DECIMALS = {
    0: "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf",
    2: """
        aed afn amd aoa ars aud awg azn bam bbd bdt bmd bnd bob brl bsd bwp byn bzd cad cdf chf
        cny cop crc cve czk dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl htg
        huf idr ils inr isk jmd kes kgs khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd mmk mnt mop
        mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub
        sar sbd scr sek sgd shp sle srd szl thb tjs try ttd twd tzs uah ugx usd uyu uzs wst xcd
        xcg yer zar zmw
    """,
    3: "bhd jod kwd omr tnd",
}

STRIPE_DECIMALS: Mapping[str, int] = MappingProxyType(
    {code: places for places, codes in _CODES_BY_DECIMALS.items() for code in codes.split()}
)
"""Each currency that Stripe charges to the decimals of its amounts there."""

_CODES_BY_MINIMUM = {
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

MINIMUMS: Mapping[str, int] = MappingProxyType(
    {code: least for least, codes in _CODES_BY_MINIMUM.items() for code in codes.split()}
)
"""Stripe's smallest charge, in our minor units, for an account that is paid out in the currency."""


def minimum_charge(currency: str) -> int:
    """The smallest amount to try at a card, in minor units.

    For a currency without a minimum of its own, the smallest that Stripe can be sent: there the
    minimum of the account's payout currency applies at Stripe's rate, which only Stripe knows.

    Raises:
        InvalidInput: Stripe does not charge in it.
    """
    code = _charged(currency)
    return MINIMUMS.get(code, _step(code))


def to_stripe(amount: int, currency: str) -> int:
    """Minor units as Stripe's ``amount``: 1234 of usd is 1234, 5 of isk is 500.

    Raises:
        InvalidInput: Stripe does not charge in the currency, or not to that fraction of it.
    """
    code = _charged(currency)
    step = _step(code)
    if amount % step:
        raise InvalidInput(
            "amount", f"must be a multiple of {step} {code.upper()} minor units to go on a card"
        )
    return _shifted(amount, STRIPE_DECIMALS[code] - decimals(code))


def from_stripe(amount: int, currency: str) -> int:
    """Stripe's ``amount`` as minor units: 1234 of usd is 1234, 500 of isk is 5.

    Takes every amount that minor units can hold, also one that ``to_stripe`` would not send:
    money that arrived is written down.

    Raises:
        InvalidInput: Stripe does not charge in the currency, or minor units cannot hold it.
    """
    code = _charged(currency)
    places = decimals(code) - STRIPE_DECIMALS[code]
    if amount % _power_of_ten(-places):
        raise InvalidInput("amount", f"has a fraction of a unit, which {code.upper()} has not")
    return _shifted(amount, places)


def _charged(currency: str) -> str:
    code = currency_code(currency)
    if code not in STRIPE_DECIMALS:
        raise InvalidInput("currency", f"Stripe charges no cards in {code.upper()}")
    return code


def _step(code: str) -> int:
    """What an amount must be a multiple of, in minor units, for Stripe to take it."""
    # Of three decimals, Stripe wants the last to be 0.
    return _power_of_ten(decimals(code) - min(STRIPE_DECIMALS[code], 2))


def _shifted(amount: int, places: int) -> int:
    """The amount with so many more decimals; fewer where negative, and then those are zeros."""
    return amount * _power_of_ten(places) // _power_of_ten(-places)


def _power_of_ten(exponent: int) -> int:
    """Ten to the exponent, but 1 where that would be a fraction."""
    return int(10 ** max(exponent, 0))
