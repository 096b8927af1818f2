"""Chains of periods as a calendar on the wall has them, to compare with."""

from collections.abc import Iterator
from datetime import date
from functools import partial

from hypothesis import strategies as st

from billing.cycles import BillingCycle, Cadence, Period

monthly = partial(Cadence, BillingCycle.MONTHLY)
weekly = partial(Cadence, BillingCycle.WEEKLY)
SEMIMONTHLY = Cadence(BillingCycle.SEMIMONTHLY)

CADENCES = st.one_of(
    st.integers(1, 31).map(monthly), st.integers(1, 7).map(weekly), st.just(SEMIMONTHLY)
)


def chain_from(start: date, cadence: Cadence) -> Iterator[Period]:
    """The endless chain of periods from ``start``, each beginning where the last one ended."""
    while True:
        period = cadence.period_from(start)
        yield period
        start = period.end
