from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal, localcontext
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing.errors import InvalidInput
from billing.tax import (
    InvoiceTaxes,
    RateTotal,
    TaxableGroup,
    TaxableLine,
    TaxedLine,
    TaxRate,
    rates_on,
    tax_groups,
    tax_invoice,
)


def rate(
    number: int,
    percent: str,
    kind: str = "exclusive",
    valid_from: date = date(2020, 1, 1),
    valid_to: date | None = None,
) -> TaxRate:
    return TaxRate(
        id=UUID(int=number),
        name=f"Tax {number}",
        percent=Decimal(percent),
        inclusive=kind == "inclusive",
        valid_from=valid_from,
        valid_to=valid_to,
    )


VAT_20 = rate(1, "20")
VAT_5 = rate(2, "5")
CITY = rate(3, "0.125")
ZERO = rate(4, "0")
IN_20 = rate(5, "20", "inclusive")
IN_6 = rate(6, "6", "inclusive")
FULL = rate(7, "100")
IN_FULL = rate(8, "100", "inclusive")
FINEST = rate(9, "7.3333")
RATES = (VAT_20, VAT_5, CITY, ZERO, IN_20, IN_6, FULL, IN_FULL, FINEST)

LINES = st.builds(
    TaxableLine,
    # Small amounts too: they are where remainders tie.
    st.integers(-(10**12), 10**12) | st.integers(-20, 20),
    st.lists(st.sampled_from(RATES), unique=True, max_size=4).map(tuple),
)
INVOICES = st.lists(LINES, max_size=12)


def exact_tax(line: TaxableLine, of: TaxRate) -> Fraction:
    """By the definition: the rate of the base, which inclusive rates were taken out of."""
    if of not in line.rates:
        return Fraction(0)
    inclusive = [Fraction(one.percent) for one in line.rates if one.inclusive]
    base = Fraction(line.amount) / (1 + sum(inclusive, Fraction(0)) / 100)
    return base * Fraction(of.percent) / 100


def half_away(value: Fraction) -> int:
    away = int(abs(value) + Fraction(1, 2))
    return away if value >= 0 else -away


def negated(lines: list[TaxableLine]) -> list[TaxableLine]:
    return [TaxableLine(-line.amount, line.rates) for line in lines]


def totals(taxed: InvoiceTaxes) -> dict[str, tuple[int, int]]:
    return {total.rate.name: (total.net, total.tax) for total in taxed.rates}


# By amounts and rates of the lines, what each line's net and taxes are.
@pytest.mark.parametrize(
    ("lines", "taxed"),
    [
        ([(1_000, [VAT_20])], [(1_000, [200])]),
        ([(1_000, [])], [(1_000, [])]),
        # Rates add and do not compound: 5 % of 1,000, not of 1,200.
        ([(1_000, [VAT_20, VAT_5])], [(1_000, [200, 50])]),
        # Inclusive: taken out.
        ([(1_200, [IN_20])], [(1_000, [200])]),
        # 1,260 / 1.26; one after the other would be 1,260 / 1.2 / 1.06.
        ([(1_260, [IN_20, IN_6])], [(1_000, [200, 60])]),
        # What is on top is taken of the base as well, not of the price.
        ([(1_200, [IN_20, VAT_5])], [(1_000, [200, 50])]),
        ([(1_200, [VAT_5, IN_20])], [(1_000, [50, 200])]),
        # A rate that one line contains with another rate, and another line alone.
        ([(1_260, [IN_20, IN_6]), (1_200, [IN_20])], [(1_000, [200, 60]), (1_000, [200])]),
        # 100 / 1.2 is 83.33: the tax is rounded, the net is what it leaves.
        ([(100, [IN_20])], [(83, [17])]),
        # Rounded on the sum: three times 2 % would be 0.
        ([(20, [rate(1, "2")])] * 3, [(20, [1]), (20, [0]), (20, [0])]),
        # And three times 3 % would be 3: the first has the largest remainder, as have the others.
        ([(20, [rate(1, "3")])] * 3, [(20, [1]), (20, [1]), (20, [0])]),
        # A half goes away from zero, in both directions.
        ([(50, [rate(1, "1")])], [(50, [1])]),
        ([(-50, [rate(1, "1")])], [(-50, [-1])]),
        # Largest remainder first: 0.4, 0.7 and 1.6 sum to 2.7.
        (
            [(4, [rate(1, "10")]), (7, [rate(1, "10")]), (16, [rate(1, "10")])],
            [(4, [0]), (7, [1]), (16, [2])],
        ),
        # Of equal ones the earliest, also where all are negative.
        ([(5, [rate(1, "10")])] * 2, [(5, [1]), (5, [0])]),
        ([(-5, [rate(1, "10")])] * 2, [(-5, [-1]), (-5, [0])]),
        # A discount bears tax like any line: 19.9 - 19.9 + 1 is 1.
        (
            [(199, [rate(1, "10")]), (-199, [rate(1, "10")]), (10, [rate(1, "10")])],
            [(199, [20]), (-199, [-20]), (10, [1])],
        ),
        # Sums to nothing: the same either way round, with the signs changed.
        ([(5, [rate(1, "10")]), (-5, [rate(1, "10")])], [(5, [1]), (-5, [-1])]),
        ([(-5, [rate(1, "10")]), (5, [rate(1, "10")])], [(-5, [-1]), (5, [1])]),
        # Nothing to pay without tax, and yet tax to pay.
        ([(1_000, [VAT_20]), (-1_000, [])], [(1_000, [200]), (-1_000, [])]),
        # Work for nothing, and work at a rate of nothing.
        ([(0, [VAT_20, IN_6]), (700, [ZERO])], [(0, [0, 0]), (700, [0])]),
        # The finest percent: 7.3333 % of 10,000.00.
        ([(1_000_000, [FINEST])], [(1_000_000, [73_333])]),
        ([(5, [IN_FULL])], [(2, [3])]),
        ([], []),
    ],
)
def test_a_line_bears_its_share_of_each_rate(
    lines: list[tuple[int, list[TaxRate]]], taxed: list[tuple[int, list[int]]]
) -> None:
    result = tax_invoice([TaxableLine(amount, tuple(rates)) for amount, rates in lines])

    assert [
        (line.net, [line.taxes[one.id] for one in rates])
        for line, (_, rates) in zip(result.lines, lines, strict=True)
    ] == taxed


def test_a_rate_totals_the_lines_that_bear_it() -> None:
    result = tax_invoice(
        [
            TaxableLine(500, (VAT_5,)),
            TaxableLine(1_200, (IN_20, VAT_5)),
            TaxableLine(600, (IN_20,)),
            TaxableLine(-300, (VAT_5, ZERO)),
            TaxableLine(90),
        ]
    )

    assert result.rates == (
        RateTotal(VAT_5, net=1_200, tax=60),
        RateTotal(IN_20, net=1_500, tax=300),
        RateTotal(ZERO, net=-300, tax=0),
    )
    assert (result.subtotal, result.tax, result.total) == (1_790, 360, 2_150)
    assert [line.gross for line in result.lines] == [525, 1_250, 600, -315, 90]


@given(INVOICES)
def test_each_rate_is_rounded_once_on_the_sum_of_its_lines(lines: list[TaxableLine]) -> None:
    result = tax_invoice(lines)

    assert {total.rate: total.tax for total in result.rates} == {
        one: half_away(sum((exact_tax(line, one) for line in lines), Fraction(0)))
        for line in lines
        for one in line.rates
    }


@given(INVOICES)
def test_each_share_is_less_than_one_unit_off_and_they_sum_to_the_whole(
    lines: list[TaxableLine],
) -> None:
    result = tax_invoice(lines)

    for line, taxed in zip(lines, result.lines, strict=True):
        assert set(taxed.taxes) == {one.id for one in line.rates}
        for one in line.rates:
            assert abs(taxed.taxes[one.id] - exact_tax(line, one)) < 1
    for total in result.rates:
        assert total.tax == sum(line.taxes.get(total.rate.id, 0) for line in result.lines)
        assert total.net == sum(line.net for line in result.lines if total.rate.id in line.taxes)


@given(INVOICES)
def test_the_total_is_subtotal_and_tax_and_the_sum_of_the_lines(lines: list[TaxableLine]) -> None:
    result = tax_invoice(lines)

    assert result.total == result.subtotal + result.tax == sum(line.gross for line in result.lines)
    assert result.subtotal == sum(line.net for line in result.lines)
    assert result.tax == sum(total.tax for total in result.rates)
    on_top = sum(total.tax for total in result.rates if not total.rate.inclusive)
    # What is inclusive never changes what the client pays.
    assert result.total == sum(line.amount for line in lines) + on_top


@given(INVOICES)
@example([TaxableLine(5, (FULL,)), TaxableLine(-5, (FULL,))])
@example([TaxableLine(5, (rate(1, "10"),)), TaxableLine(-5, (rate(1, "10"),))])
def test_a_correction_cancels_line_by_line(lines: list[TaxableLine]) -> None:
    result, correction = tax_invoice(lines), tax_invoice(negated(lines))

    assert correction.lines == tuple(
        TaxedLine(-line.net, {one: -tax for one, tax in line.taxes.items()})
        for line in result.lines
    )
    assert correction.total + result.total == 0
    assert correction.tax + result.tax == 0


@given(INVOICES.flatmap(lambda lines: st.tuples(st.just(lines), st.permutations(lines))))
def test_the_order_of_lines_changes_no_total(
    orders: tuple[list[TaxableLine], list[TaxableLine]],
) -> None:
    one, other = (tax_invoice(lines) for lines in orders)

    assert (one.subtotal, one.tax, one.total) == (other.subtotal, other.tax, other.total)
    assert {total.rate: total.tax for total in one.rates} == {
        total.rate: total.tax for total in other.rates
    }


@given(lines=INVOICES, data=st.data())
def test_lines_may_come_in_groups_of_any_size_and_order(
    lines: list[TaxableLine], data: st.DataObject
) -> None:
    groups: dict[tuple[tuple[TaxRate, ...], int], list[int]] = {}
    for position, line in enumerate(lines):
        number = data.draw(st.integers(0, 2))
        groups.setdefault((line.rates, number), []).append(position)
    in_any_order = data.draw(st.permutations(list(groups.items())))

    taxed = tax_groups(
        [
            TaxableGroup([lines[one].amount for one in positions], positions, rates)
            for (rates, _), positions in in_any_order
        ]
    )

    expected = tax_invoice(lines)
    assert (taxed.subtotal, taxed.rates) == (expected.subtotal, expected.rates)
    for (_, positions), group in zip(in_any_order, taxed.groups, strict=True):
        for place, position in enumerate(positions):
            taxes = {one: shares[place] for one, shares in group.taxes.items()}
            assert TaxedLine(group.nets[place], taxes) == expected.lines[position]


@given(st.integers(0, 99), st.integers(1, 40), st.sampled_from([VAT_20, VAT_5, IN_20, CITY]))
def test_the_earliest_of_equal_lines_bear_the_odd_units(
    amount: int, count: int, of: TaxRate
) -> None:
    result = tax_invoice([TaxableLine(amount, (of,))] * count)

    shares = [line.taxes[of.id] for line in result.lines]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] - shares[-1] <= 1


def exempted(lines: Sequence[TaxableLine]) -> list[TaxableLine]:
    """The same lines of an exempt client."""
    return [replace(line, is_exempt=True) for line in lines]


def test_an_exempt_client_bears_no_tax() -> None:
    result = tax_invoice(
        exempted([TaxableLine(1_000, (VAT_20,)), TaxableLine(200), TaxableLine(5, (ZERO,))])
    )

    assert result.lines == (TaxedLine(1_000, {}), TaxedLine(200, {}), TaxedLine(5, {}))
    assert result.rates == ()
    assert (result.subtotal, result.tax, result.total) == (1_205, 0, 1_205)


def test_an_exempt_client_does_not_pay_the_tax_that_a_price_contains() -> None:
    result = tax_invoice(exempted([TaxableLine(1_260, (IN_20, IN_6, VAT_5))]))

    assert result.lines == (TaxedLine(1_000, {}),)
    assert result.total == 1_000


@given(INVOICES)
def test_an_exempt_client_pays_the_subtotal_of_any_other(lines: list[TaxableLine]) -> None:
    exempt, other = tax_invoice(exempted(lines)), tax_invoice(lines)

    assert exempt.total == exempt.subtotal == other.subtotal
    assert [line.net for line in exempt.lines] == [line.net for line in other.lines]


@given(INVOICES, INVOICES)
def test_exempt_lines_change_nothing_for_the_others(
    exempt: list[TaxableLine], others: list[TaxableLine]
) -> None:
    """As where a client that was exempt has a correction of before on its invoice."""
    together = tax_invoice([*exempted(exempt), *others])

    assert together.lines == (
        *tax_invoice(exempted(exempt)).lines,
        *tax_invoice(others).lines,
    )
    assert {one.rate: one for one in together.rates} == {
        one.rate: one for one in tax_invoice(others).rates
    }


def test_taxes_ignore_the_decimal_context_of_the_thread() -> None:
    with localcontext(prec=1):
        result = tax_invoice([TaxableLine(10**12, (rate(1, "99.9999"),))])

    assert result.tax == 999_999_000_000


def test_a_line_bears_a_rate_once() -> None:
    with pytest.raises(ValueError, match="once"):
        TaxableLine(100, (VAT_20, VAT_5, VAT_20))


@pytest.mark.parametrize("other", [rate(1, "21"), rate(1, "20", "inclusive")])
def test_a_rate_is_the_same_on_every_line(other: TaxRate) -> None:
    with pytest.raises(ValueError, match="two different rates"):
        tax_invoice([TaxableLine(100, (VAT_20,)), TaxableLine(100, (other,))])


def test_a_rate_that_was_since_renamed_or_ended_is_still_the_same() -> None:
    ended = rate(1, "20.00", valid_to=date(2026, 7, 1))

    result = tax_invoice([TaxableLine(100, (VAT_20,)), TaxableLine(100, (ended,))])

    assert totals(result) == {"Tax 1": (200, 40)}


@pytest.mark.parametrize(
    ("charged_on", "percents"),
    [
        (date(2026, 6, 30), ["19", "1"]),
        # Half-open: the old one's end is the new one's first day.
        (date(2026, 7, 1), ["16", "1"]),
        (date(2026, 12, 31), ["16", "1"]),
        (date(2027, 1, 1), ["1"]),
        (date(2020, 1, 1), ["19"]),
        (date(2019, 12, 31), []),
        (date(2199, 12, 31), ["1"]),
    ],
)
def test_a_charge_bears_the_rates_that_are_valid_on_its_date(
    charged_on: date, percents: list[str]
) -> None:
    rates = [
        rate(1, "19", valid_to=date(2026, 7, 1)),
        rate(2, "16", valid_from=date(2026, 7, 1), valid_to=date(2027, 1, 1)),
        rate(3, "1", valid_from=date(2020, 1, 2)),
    ]

    assert [str(one.percent) for one in rates_on(rates, charged_on)] == percents


def test_rates_keep_their_order_and_are_chosen_once() -> None:
    assert rates_on([VAT_5, VAT_20, VAT_5, CITY], date(2026, 1, 1)) == (VAT_5, VAT_20, CITY)


@pytest.mark.parametrize("percent", ["0", "100", "20.0000000000", "0.0001", "99.9999", "1E+2"])
def test_a_percent_has_up_to_four_decimals(percent: str) -> None:
    assert rate(1, percent).millionths == Fraction(percent) * 10_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("percent", Decimal(percent))
            for percent in (
                "100.0001",
                "-0.0001",
                "20.00001",
                "1E-999999999999",
                "NaN",
                "sNaN",
                "Infinity",
            )
        ),
        ("valid_to", date(2020, 1, 1)),
        ("valid_to", date(2019, 12, 31)),
        ("name", " "),
        ("name", "x" * 256),
    ],
    ids=str,
)
def test_what_is_no_rate_names_its_field(field: str, value: object) -> None:
    valid = {
        "id": UUID(int=1),
        "name": "VAT",
        "percent": Decimal(20),
        "inclusive": False,
        "valid_from": date(2020, 1, 1),
    }

    with pytest.raises(InvalidInput) as refused:
        TaxRate(**{**valid, field: value})  # type: ignore[arg-type]  # a table of fields

    assert refused.value.field == field


def test_a_rate_may_be_valid_for_a_single_day() -> None:
    one_day = rate(1, "20", valid_from=date(2026, 1, 1), valid_to=date(2026, 1, 2))

    days = [date(2025, 12, 31), date(2026, 1, 1), date(2026, 1, 2)]
    assert [one_day.is_valid_on(day) for day in days] == [False, True, False]


def test_rates_of_any_mix_stay_exact_on_the_largest_invoices() -> None:
    # Denominators of 1.2, 1.06, 1.26, 2 and 2.26 at once.
    mixes = [(IN_20,), (IN_6,), (IN_20, IN_6), (IN_FULL, IN_20), (IN_FULL, IN_20, IN_6)]
    lines = [TaxableLine(10**12 - number, mixes[number % 5]) for number in range(500)]

    result = tax_invoice(lines)

    assert result.total == sum(line.amount for line in lines)
    assert Counter(one for line in lines for one in line.rates).keys() == {IN_20, IN_6, IN_FULL}
    for total in result.rates:
        assert total.tax == half_away(
            sum((exact_tax(line, total.rate) for line in lines), Fraction(0))
        )
