"""Currencies and their decimals, by ISO 4217.

Source: ISO 4217 "List One: Current Currency & Funds" of its maintenance agency, SIX, up to
amendment 180 (Bulgaria's euro, 1 January 2026). Left out, because no client is billed in them:
funds and units of account (bov, che, chw, clf, cou, mxv, usn, uyi, uyw, xad, xdr, xsu, xua),
bond market units (xba to xbd), metals (xag, xau, xpd, xpt), the test code (xts), "no currency" (xxx).

A payment provider's decimals and minimums differ and are a table of their own.
"""

from collections.abc import Mapping
from types import MappingProxyType

from billing.errors import InvalidInput

_CODES_BY_DECIMALS = {
    0: "bif clp djf gnf isk jpy kmf krw pyg rwf ugx vnd vuv xaf xof xpf",
    2: """
        aed afn all amd aoa ars aud awg azn bam bbd bdt bmd bnd bob brl bsd btn bwp byn bzd
        cad cdf chf cny cop crc cup cve czk dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs gip
        gmd gtq gyd hkd hnl htg huf idr ils inr irr jmd kes kgs khr kpw kyd kzt lak lbp lkr lrd
        lsl mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab
        pen pgk php pkr pln qar ron rsd rub sar sbd scr sdg sek sgd shp sle sos srd ssp stn svc
        syp szl thb tjs tmt top try ttd twd tzs uah usd uyu uzs ved ves wst xcd xcg yer zar zmw
        zwg
    """,
    3: "bhd iqd jod kwd lyd omr tnd",
}

MINOR_UNITS: Mapping[str, int] = MappingProxyType(
    {code: places for places, codes in _CODES_BY_DECIMALS.items() for code in codes.split()}
)
"""Lower-case code to the number of decimals between its major and its minor unit."""


def currency_code(text: str, field: str = "currency") -> str:
    """The code in lower case, as it is stored.

    Raises:
        InvalidInput: It is no active ISO 4217 currency.
    """
    code = text.lower()
    # Lower case turns some other letters into ASCII (the kelvin sign becomes "k").
    if not text.isascii() or code not in MINOR_UNITS:
        raise InvalidInput(field, "must be an active ISO 4217 currency code, such as usd")
    return code


def decimals(currency: str) -> int:
    """How many decimals the currency's minor unit has: 2 for usd, 0 for jpy, 3 for kwd.

    Raises:
        InvalidInput: It is no active ISO 4217 currency.
    """
    return MINOR_UNITS[currency_code(currency)]
