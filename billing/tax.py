"""Tax: the rates that a line bears, and what an invoice's taxes come to.

A rate is exclusive, on top of the price, or inclusive, a part of it. Several on a line add and
never compound: each is taken of the line's base, which is the amount / (1 + the sum of the line's
inclusive percents), so the amount itself where there are none. A line of 12,600 at 20 % and 6 %
inclusive and 5 % exclusive has a base of 10,000 and bears 2,000, 600 and 500.

All is exact until each rate is rounded, once, on the sum of its lines. Lines bear shares of that,
and a line's net is what its inclusive shares leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from math import lcm
from uuid import UUID

from billing.errors import InvalidInput
from billing.money import rounded_quotient
from billing.texts import MAX_SHORT, require_text

PERCENT_PLACES = 4
"""Decimals a percent may have, as in Stripe (https://docs.stripe.com/billing/taxes/tax-rates)."""

MAX_PERCENT = Decimal(100)
"""Largest percent of one rate."""

# The millionths of one: a percent with four decimals is a whole number of them.
_ONE = 10 ** (PERCENT_PLACES + 2)

# Not the context of the thread, which others may have set to fewer digits than a percent has.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxRate:
    """One tax at one rate. Percent and kind never change: a new percent is a new rate.

    ``percent`` is out of 100, with up to four decimals; 0 is a rate like any other, and is shown.
    ``inclusive`` says that prices contain it. It is valid from ``valid_from`` to before
    ``valid_to``, like a period, so that the next rate starts on the day this one ends; None is
    without end.
    """

    id: UUID
    name: str
    percent: Decimal
    inclusive: bool
    valid_from: date
    valid_to: date | None = None

    def __post_init__(self) -> None:
        """Refuse what is no rate.

        Raises:
            InvalidInput: The name is blank or too long, the percent is not 0 to ``MAX_PERCENT``
                or too fine, or no day is valid. The error names the field.
        """
        require_text("name", self.name, MAX_SHORT)
        if not self.percent.is_finite() or not 0 <= self.percent <= MAX_PERCENT:
            raise InvalidInput("percent", f"must be a number from 0 to {MAX_PERCENT}")
        # Zeros at the end carry nothing: 20.00000 is as good as 20.
        scaled = _EXACT.scaleb(self.percent, PERCENT_PLACES)
        if scaled != scaled.to_integral_value():
            raise InvalidInput("percent", f"must have at most {PERCENT_PLACES} decimals")
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            raise InvalidInput("valid_to", "must be after valid_from: it is the first day without")

    @property
    def millionths(self) -> int:
        """The rate as a part of one: 200,000 for 20 %."""
        return int(_EXACT.scaleb(self.percent, PERCENT_PLACES))

    def is_valid_on(self, day: date) -> bool:
        """Whether work of that day bears it."""
        return self.valid_from <= day and (self.valid_to is None or day < self.valid_to)


@dataclass(frozen=True, slots=True)
class TaxableLine:
    """A line to tax: its amount as it was priced, signed, in minor units, and its rates.

    ``is_exempt`` says that it bears none of them, and that none is left in its price.
    """

    amount: int
    rates: tuple[TaxRate, ...] = ()
    is_exempt: bool = False

    def __post_init__(self) -> None:
        """Refuse to take a tax twice.

        Raises:
            ValueError: A rate is there twice.
        """
        if len({rate.id for rate in self.rates}) < len(self.rates):
            raise ValueError("a line bears a rate once")


@dataclass(frozen=True, slots=True)
class TaxableGroup:
    """Lines of one invoice that bear the same rates: one or more amounts, and their positions.

    Positions ascend, and each is one line's of the invoice.
    """

    amounts: Sequence[int]
    positions: Sequence[int]
    rates: tuple[TaxRate, ...] = ()
    is_exempt: bool = False


@dataclass(frozen=True, slots=True)
class TaxedLine:
    """A line's amount without tax, and its share of each rate's tax by the rate's id."""

    net: int
    taxes: Mapping[UUID, int]

    @property
    def gross(self) -> int:
        """The line's part of the invoice's total."""
        return self.net + sum(self.taxes.values())


@dataclass(frozen=True, slots=True)
class TaxedGroup:
    """The same of each line of a group, in their order."""

    nets: Sequence[int]
    taxes: Mapping[UUID, Sequence[int]]


@dataclass(frozen=True, slots=True)
class RateTotal:
    """What an invoice bears of one rate: ``tax``, taken of lines of ``net`` in all."""

    rate: TaxRate
    net: int
    tax: int


@dataclass(frozen=True, slots=True)
class InvoiceTotals:
    """``subtotal``, the lines without tax, and the rates in the order in which they first appear."""

    subtotal: int
    rates: tuple[RateTotal, ...]

    @property
    def tax(self) -> int:
        """The tax of all rates."""
        return sum(total.tax for total in self.rates)

    @property
    def total(self) -> int:
        """What the client pays: subtotal + tax, by definition."""
        return self.subtotal + self.tax


@dataclass(frozen=True, slots=True)
class InvoiceTaxes(InvoiceTotals):
    """An invoice's totals, and its lines as they came."""

    lines: tuple[TaxedLine, ...]


@dataclass(frozen=True, slots=True)
class GroupedTaxes(InvoiceTotals):
    """An invoice's totals, and the groups of its lines as they came."""

    groups: tuple[TaxedGroup, ...]


def rates_on(rates: Iterable[TaxRate], charged_on: date) -> tuple[TaxRate, ...]:
    """Those of a charge's rates that are valid on its date, each once, in their order.

    The charge's date decides, not the invoice's: work done before a rate changed bears the old
    one, however late it is billed. None where no rate is valid that day: nothing is guessed.
    """
    return tuple(rate for rate in dict.fromkeys(rates) if rate.is_valid_on(charged_on))


def tax_invoice(lines: Sequence[TaxableLine]) -> InvoiceTaxes:
    """The taxes of an invoice of these lines, of any sign.

    Each rate's tax is rounded once, half away from zero, and shared over its lines by largest
    remainder; of equal remainders the earliest line's counts. So each share is less than one unit
    off, the lines' order changes no total, and an invoice with every amount negated cancels this
    one line by line.

    A line of an exempt client bears no tax. What its price contains of it is taken out, so its net
    is what another client would see: left in, it would be paid all the same, and kept as revenue. Shops that are asked for this do the same
    (https://github.com/woocommerce/woocommerce/pull/17273).

    Raises:
        ValueError: Two rates bear the same id.
    """
    alike: dict[tuple[tuple[TaxRate, ...], bool], list[int]] = {}
    for position, line in enumerate(lines):
        alike.setdefault((line.rates, line.is_exempt), []).append(position)
    groups = [
        TaxableGroup([lines[one].amount for one in positions], positions, rates, is_exempt)
        for (rates, is_exempt), positions in alike.items()
    ]
    taxed = tax_groups(groups)
    by_position = {
        position: TaxedLine(
            done.nets[place], {rate_id: shares[place] for rate_id, shares in done.taxes.items()}
        )
        for group, done in zip(groups, taxed.groups, strict=True)
        for place, position in enumerate(group.positions)
    }
    in_order = tuple(by_position[position] for position in range(len(lines)))
    return InvoiceTaxes(taxed.subtotal, taxed.rates, in_order)


def tax_groups(groups: Sequence[TaxableGroup]) -> GroupedTaxes:
    """The same, of lines that come in groups: by far less work where many bear the same rates.

    Raises:
        ValueError: Two rates bear the same id.
    """
    rates: dict[UUID, TaxRate] = {}
    # Exempt lines apart from the others: each rate is rounded on those that bear it.
    bearers: dict[tuple[UUID, bool], list[int]] = {}
    for number in sorted(range(len(groups)), key=lambda number: groups[number].positions[0]):
        group = groups[number]
        for rate in group.rates:
            known = rates.setdefault(rate.id, rate)
            if (known.percent, known.inclusive) != (rate.percent, rate.inclusive):
                raise ValueError(f"two different rates bear the id {rate.id}")
            bearers.setdefault((rate.id, group.is_exempt), []).append(number)
    # In millionths: each rate, and what a line's amount is of its base.
    levies = {rate.id: rate.millionths for rate in rates.values()}
    parts = [
        _ONE + sum(levies[rate.id] for rate in group.rates if rate.inclusive) for group in groups
    ]
    nets: list[Sequence[int]] = [group.amounts for group in groups]
    taxes: list[dict[UUID, Sequence[int]]] = [{} for _ in groups]
    for (rate_id, is_exempt), numbers in bearers.items():
        whole = lcm(*(parts[number] for number in numbers))
        levied = [
            [amount * factor for amount in groups[number].amounts]
            for number in numbers
            for factor in [levies[rate_id] * (whole // parts[number])]
        ]
        shares = _shares_of_groups(levied, [groups[number].positions for number in numbers], whole)
        for number, of_group in zip(numbers, shares, strict=True):
            if rates[rate_id].inclusive:
                pairs = zip(nets[number], of_group, strict=True)
                nets[number] = [net - share for net, share in pairs]
            if not is_exempt:
                taxes[number][rate_id] = of_group
    return GroupedTaxes(
        sum(map(sum, nets)),
        tuple(
            RateTotal(
                rate,
                net=sum(sum(nets[number]) for number in bearers[rate.id, False]),
                tax=sum(sum(taxes[number][rate.id]) for number in bearers[rate.id, False]),
            )
            for rate in rates.values()
            if (rate.id, False) in bearers
        ),
        tuple(TaxedGroup(net, by_rate) for net, by_rate in zip(nets, taxes, strict=True)),
    )


def _shares_of_groups(
    numerators: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], denominator: int
) -> list[list[int]]:
    """The shares of the lines of all groups together, in the order of their positions."""
    if len(numerators) == 1:
        return [_shares(numerators[0], denominator)]
    lines = sorted(
        (position, number, numerator)
        for number, (of_group, where) in enumerate(zip(numerators, positions, strict=True))
        for numerator, position in zip(of_group, where, strict=True)
    )
    shares: list[list[int]] = [[] for _ in numerators]
    dealt = _shares([numerator for _, _, numerator in lines], denominator)
    for (_, number, _), share in zip(lines, dealt, strict=True):
        shares[number].append(share)
    return shares


def _shares(numerators: Sequence[int], denominator: int) -> list[int]:
    """The quotients as integers that sum to their exact sum, rounded once.

    Each is rounded down, and the largest remainders get what is missing. Rounding down treats the
    two signs differently, so what sums to below zero is shared as its opposite; what sums to zero,
    as the first that is not zero has it.
    """
    total = sum(numerators)
    leading = total or next(filter(None, numerators), 0)
    sign = -1 if leading < 0 else 1
    split = [divmod(sign * numerator, denominator) for numerator in numerators]
    shares = [share for share, _ in split]
    missing = rounded_quotient(sign * total, denominator) - sum(shares)
    if missing:
        remainders = [remainder for _, remainder in split]
        # Sorting is stable, also in reverse: of equal remainders, the earliest comes first.
        largest_first = sorted(range(len(split)), key=remainders.__getitem__, reverse=True)
        for position in largest_first[:missing]:
            shares[position] += 1
    return shares if sign == 1 else [-share for share in shares]
