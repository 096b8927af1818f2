import io
from datetime import date
from decimal import Decimal

import pytest

from cli.charge_files import BadRow, ChargeRow, UnreadableFile, read_rows
from tests.cli.conftest import HEADER

GOOD = "acme,2026-05-31,FNSKU labelling,120,0.2750,usd,r-1"


def rows(text: str | bytes) -> list[ChargeRow | BadRow]:
    return list(read_rows(io.BytesIO(text if isinstance(text, bytes) else text.encode())))


def test_a_row_is_read_with_its_exact_decimals() -> None:
    assert rows(f"{HEADER}\n{GOOD}\n") == [
        ChargeRow(
            line=2,
            client="acme",
            charged_on=date(2026, 5, 31),
            description="FNSKU labelling",
            quantity=Decimal(120),
            unit_price=Decimal("0.2750"),
            currency="usd",
            external_ref="r-1",
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        f"\ufeff{HEADER}\n{GOOD}\n",
        f"{HEADER}\r\n{GOOD}\r\n",
        f"{HEADER}\n{GOOD}",
        f"{HEADER}\n\n{GOOD}\n\n",
        f"{HEADER}\n acme , 2026-05-31 , FNSKU labelling , 120 , 0.2750 , USD , r-1 \n".lower(),
        "\n".join('"' + line.replace(",", '","') + '"' for line in (HEADER, GOOD)),
    ],
    ids=["byte order mark", "CRLF", "no last newline", "blank lines", "spaces", "quotes"],
)
def test_what_spreadsheets_write_is_read_alike(text: str) -> None:
    (row,) = rows(text)
    assert isinstance(row, ChargeRow)
    assert (row.client, row.quantity, row.external_ref) == ("acme", Decimal(120), "r-1")


def test_columns_may_stand_in_any_order() -> None:
    (row,) = rows(
        "external_ref,currency,client,unit_price,quantity,charged_on,description\n"
        "r-9,gbp,acme,-1.5,2,2026-01-02,Correction\n"
    )
    assert isinstance(row, ChargeRow)
    assert (row.external_ref, row.unit_price) == ("r-9", Decimal("-1.5"))


def test_lines_are_those_of_the_file_where_quoted_text_has_newlines() -> None:
    text = (
        f"{HEADER}\n"
        'acme,2026-05-01,"Bundling,\nset of 2\n(fragile)",1,1,usd,r-1\n'
        "acme,2026-05-01,Inspection,0,1,usd,r-2\n"
        "\n"
        'acme,2026-05-32,"two\nlines",1,1,usd,r-3\n'
    )
    first, second, third = rows(text)
    assert isinstance(first, ChargeRow)
    assert first.line == 2
    assert first.description == "Bundling,\nset of 2\n(fragile)"
    assert isinstance(second, BadRow)
    assert second.line == 5
    assert isinstance(third, BadRow)
    assert third == BadRow(7, "charged_on: there is no day 2026-05-32")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",2026-05-31,Work,1,1,usd,r", "client: must not be empty"),
        ("  ,2026-05-31,Work,1,1,usd,r", "client: must not be empty"),
        ("acme,,Work,1,1,usd,r", "charged_on: must be a date such as 2026-01-31"),
        ("acme,31.05.2026,Work,1,1,usd,r", "charged_on: must be a date such as 2026-01-31"),
        ("acme,20260531,Work,1,1,usd,r", "charged_on: must be a date such as 2026-01-31"),
        ("acme,2026-W05-1,Work,1,1,usd,r", "charged_on: must be a date such as 2026-01-31"),
        ("acme,2026-05-31T00:00,Work,1,1,usd,r", "charged_on: must be a date"),
        ("acme,2026-02-30,Work,1,1,usd,r", "charged_on: there is no day 2026-02-30"),
        ("acme,0026-05-31,Work,1,1,usd,r", "charged_on: must be from 1970-01-01"),
        ("acme,9999-12-31,Work,1,1,usd,r", "charged_on: must be from 1970-01-01 to 2199-12-31"),
        ("acme,2026-05-31,,1,1,usd,r", "description: must not be empty"),
        (f"acme,2026-05-31,{'x' * 1001},1,1,usd,r", "description: must be at most 1,000"),
        ("acme,2026-05-31,a\x00b,1,1,usd,r", "description: must not hold a zero byte"),
        ("acme,2026-05-31,Work,,1,usd,r", "quantity: must be a plain decimal number"),
        ("acme,2026-05-31,Work,0,1,usd,r", "quantity: must be above zero"),
        ("acme,2026-05-31,Work,-2,1,usd,r", "quantity: must be above zero"),
        ("acme,2026-05-31,Work,1e3,1,usd,r", "quantity: must be a plain decimal number"),
        ("acme,2026-05-31,Work,NaN,1,usd,r", "quantity: must be a plain decimal number"),
        ("acme,2026-05-31,Work,1000000000.5,1,usd,r", "quantity: must be a number no further"),
        ("acme,2026-05-31,Work,0.0000001,1,usd,r", "quantity: must have at most 6 decimals"),
        ("acme,2026-05-31,Work,1,,usd,r", "unit_price: must be a plain decimal number"),
        ("acme,2026-05-31,Work,1,$4,usd,r", "unit_price: must be a plain decimal number"),
        ('acme,2026-05-31,Work,1,"1,50",usd,r', "unit_price: must be a plain decimal number"),
        ("acme,2026-05-31,Work,1,0.123456789,usd,r", "unit_price: must have at most 8 decimals"),
        ("acme,2026-05-31,Work,999999999,999999999,usd,r", "unit_price: times the quantity"),
        ("acme,2026-05-31,Work,1,1,,r", "currency: must be an active ISO 4217"),
        ("acme,2026-05-31,Work,1,1,xyz,r", "currency: must be an active ISO 4217"),
        ("acme,2026-05-31,Work,1,1,usd,", "external_ref: must not be empty"),
        (f"acme,2026-05-31,Work,1,1,usd,{'r' * 1001}", "external_ref: must be at most 255"),
        ("acme,2026-05-31,Work,1,1,usd", "has 6 fields, the header names 7"),
        ("acme,2026-05-31,Work,1,1,usd,r,more", "has 8 fields, the header names 7"),
        (",,,,,,", "client: must not be empty"),
        ('acme,2026-05-31,"Work" done,1,1,usd,r', "not CSV: "),
        ('acme,2026-05-31,"never closed,1,1,usd,r', "not CSV: "),
    ],
)
def test_a_bad_row_says_its_line_and_what_is_wrong(row: str, reason: str) -> None:
    good, bad = rows(f"{HEADER}\n{GOOD}\n{row}\n")
    assert isinstance(good, ChargeRow)
    assert isinstance(bad, BadRow)
    assert bad.line == 3
    assert bad.reason.startswith(reason)


def test_a_row_after_one_that_is_not_csv_is_read_again() -> None:
    bad, good = rows(f'{HEADER}\nacme,2026-05-31,"Work" done,1,1,usd,r\n{GOOD}\n')
    assert isinstance(bad, BadRow)
    assert isinstance(good, ChargeRow)
    assert good.line == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", r"line 1 must name the columns: client,charged_on"),
        (b"\n", r"line 1 must name the columns"),
        (
            b"client,charged_on,description,quantity,price,currency\n",
            r"line 1, columns: missing unit_price, external_ref; unknown price$",
        ),
        (f"{HEADER},client\n".encode(), r"columns: twice client$"),
        (f"{HEADER},\n".encode(), r"columns: unknown \(empty\)$"),
        (
            f"{HEADER}\n{GOOD}\nacm\xe9,2026-05-31,Work,1,1,usd,r\n".encode("latin-1"),
            r"line 3 is not UTF-8 text \(byte 0xe9 at position 4 of the line\)",
        ),
        (HEADER.encode("utf-16"), r"line 1 is not UTF-8 text"),
    ],
    ids=["empty", "blank", "missing", "twice", "unnamed", "latin-1", "utf-16"],
)
def test_a_file_that_cannot_be_trusted_is_refused_as_a_whole(text: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=reason):
        rows(text)
