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
class TaxedLine:
    """A line's amount without tax, and its share of each rate's tax by the rate's id."""

    net: int
    taxes: Mapping[UUID, int]

    @property
    def gross(self) -> int:
        """The line's part of the invoice's total."""
        return self.net + sum(self.taxes.values())


@dataclass(frozen=True, slots=True)
class RateTotal:
    """What an invoice bears of one rate: ``tax``, taken of lines of ``net`` in all."""

    rate: TaxRate
    net: int
    tax: int


@dataclass(frozen=True, slots=True)
class InvoiceTaxes:
    """An invoice's lines as they came, and its rates in the order in which they first appear."""

    lines: tuple[TaxedLine, ...]
    rates: tuple[RateTotal, ...]

    @property
    def subtotal(self) -> int:
        """The lines without tax."""
        return sum(line.net for line in self.lines)

    @property
    def tax(self) -> int:
        """The tax of all rates."""
        return sum(total.tax for total in self.rates)

    @property
    def total(self) -> int:
        """What the client pays: subtotal + tax, by definition."""
        return self.subtotal + self.tax


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
    rates: dict[UUID, TaxRate] = {}
    # Exempt lines apart from the others: each rate is rounded on those that bear it.
    bearers: dict[tuple[UUID, bool], list[int]] = {}
    for position, line in enumerate(lines):
        for rate in line.rates:
            known = rates.setdefault(rate.id, rate)
            if (known.percent, known.inclusive) != (rate.percent, rate.inclusive):
                raise ValueError(f"two different rates bear the id {rate.id}")
            bearers.setdefault((rate.id, line.is_exempt), []).append(position)
    # In millionths: each rate, and what a line's amount is of its base.
    levies = {rate.id: rate.millionths for rate in rates.values()}
    parts = [_ONE + sum(levies[rate.id] for rate in line.rates if rate.inclusive) for line in lines]
    nets = [line.amount for line in lines]
    taxes: list[dict[UUID, int]] = [{} for _ in lines]
    for (rate_id, is_exempt), positions in bearers.items():
        whole = lcm(*(parts[position] for position in positions))
        shares = _shares(
            [
                lines[position].amount * levies[rate_id] * (whole // parts[position])
                for position in positions
            ],
            whole,
        )
        for position, share in zip(positions, shares, strict=True):
            if rates[rate_id].inclusive:
                nets[position] -= share
            if not is_exempt:
                taxes[position][rate_id] = share
    return InvoiceTaxes(
        tuple(TaxedLine(net, by_rate) for net, by_rate in zip(nets, taxes, strict=True)),
        tuple(
            RateTotal(
                rate,
                net=sum(nets[position] for position in bearers[rate.id, False]),
                tax=sum(taxes[position][rate.id] for position in bearers[rate.id, False]),
            )
            for rate in rates.values()
            if (rate.id, False) in bearers
        ),
    )


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
    # Sorting is stable: of equal remainders, the earliest comes first.
    largest_first = sorted(range(len(split)), key=lambda position: -split[position][1])
    for position in largest_first[:missing]:
        shares[position] += 1
    return [sign * share for share in shares]
