from collections import Counter
from datetime import date, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.aging import AgeBucket, AgedDebt, OpenItem, age, bucket_of

ANNA, BERT = UUID(int=1), UUID(int=2)
TODAY = date(2026, 11, 22)

ITEMS = st.lists(
    st.builds(
        OpenItem,
        client_id=st.sampled_from([ANNA, BERT, UUID(int=3)]),
        currency=st.sampled_from(["usd", "eur", "jpy"]),
        due_on=st.dates(TODAY - timedelta(days=200), TODAY + timedelta(days=60)),
        amount_due=st.integers(1, 10**18),
    ),
    max_size=20,
)


def debt(**amounts: int) -> AgedDebt:
    return AgedDebt({bucket: amounts.get(bucket.name.lower(), 0) for bucket in AgeBucket})


@pytest.mark.parametrize(
    ("due_on", "as_of", "bucket"),
    [
        (date(2027, 11, 22), TODAY, "current"),
        (date(2026, 11, 23), TODAY, "current"),
        # The due date is the last day to pay.
        (date(2026, 11, 22), TODAY, "current"),
        (date(2026, 11, 21), TODAY, "1-30"),
        (date(2026, 10, 23), TODAY, "1-30"),
        (date(2026, 10, 22), TODAY, "31-60"),
        (date(2026, 9, 23), TODAY, "31-60"),
        (date(2026, 9, 22), TODAY, "61-90"),
        (date(2026, 8, 24), TODAY, "61-90"),
        (date(2026, 8, 23), TODAY, "90+"),
        (date(1997, 1, 1), TODAY, "90+"),
        # Days are counted, not months: over the end of a February, short or long.
        (date(2026, 2, 1), date(2026, 3, 3), "1-30"),
        (date(2028, 2, 1), date(2028, 3, 3), "31-60"),
        (date(2026, 12, 31), date(2027, 1, 30), "1-30"),
        (date(2026, 12, 31), date(2027, 1, 31), "31-60"),
    ],
)
def test_an_invoice_ages_by_the_days_past_its_due_date(
    due_on: date, as_of: date, bucket: str
) -> None:
    assert bucket_of(due_on, as_of) == bucket


def test_each_bucket_has_its_days() -> None:
    days = Counter(bucket_of(TODAY - timedelta(days=day), TODAY) for day in range(-9, 200))

    assert days == {"current": 10, "1-30": 30, "31-60": 30, "61-90": 30, "90+": 109}


def test_debts_are_listed_by_client_and_currency_with_totals_by_currency() -> None:
    aging = age(
        [
            OpenItem(BERT, "usd", date(2026, 11, 22), 4_900),
            OpenItem(ANNA, "usd", date(2026, 11, 1), 100),
            OpenItem(ANNA, "usd", date(2026, 11, 8), 20),
            OpenItem(ANNA, "usd", date(2026, 1, 1), 3),
            OpenItem(ANNA, "jpy", date(2026, 10, 1), 700),
            OpenItem(BERT, "usd", date(2026, 9, 1), 50),
        ],
        TODAY,
    )

    assert aging.debts == {
        (BERT, "usd"): debt(current=4_900, days_61_90=50),
        (ANNA, "usd"): debt(days_1_30=120, over_90=3),
        (ANNA, "jpy"): debt(days_31_60=700),
    }
    assert aging.totals == {
        "usd": debt(current=4_900, days_1_30=120, days_61_90=50, over_90=3),
        "jpy": debt(days_31_60=700),
    }
    assert aging.totals["usd"].total == 5_073
    assert list(aging.debts) == [(BERT, "usd"), (ANNA, "usd"), (ANNA, "jpy")]
    assert list(aging.totals) == ["usd", "jpy"]


def test_nobody_owes_anything() -> None:
    aging = age([], TODAY)

    assert (aging.debts, aging.totals) == ({}, {})


@given(ITEMS)
def test_totals_are_the_sums_of_the_debts_and_these_of_the_items(items: list[OpenItem]) -> None:
    aging = age(items, TODAY)

    for (client_id, currency), owed in aging.debts.items():
        assert owed.total == sum(
            item.amount_due
            for item in items
            if (item.client_id, item.currency) == (client_id, currency)
        )
    for currency, owed in aging.totals.items():
        for bucket in AgeBucket:
            assert owed.amounts[bucket] == sum(
                one.amounts[bucket] for (_, of), one in aging.debts.items() if of == currency
            )
    assert sum(owed.total for owed in aging.totals.values()) == sum(
        item.amount_due for item in items
    )


@given(ITEMS)
def test_every_bucket_is_there_in_order(items: list[OpenItem]) -> None:
    aging = age(items, TODAY)

    for owed in [*aging.debts.values(), *aging.totals.values()]:
        assert list(owed.amounts) == ["current", "1-30", "31-60", "61-90", "90+"]


@given(ITEMS.flatmap(lambda items: st.tuples(st.just(items), st.permutations(items))))
def test_the_order_of_items_changes_no_amount(
    orders: tuple[list[OpenItem], list[OpenItem]],
) -> None:
    one, other = (age(items, TODAY) for items in orders)

    assert one == other


@pytest.mark.parametrize("amount_due", [0, -1])
def test_what_is_settled_is_no_open_item(amount_due: int) -> None:
    with pytest.raises(ValueError, match="something due"):
        OpenItem(ANNA, "usd", TODAY, amount_due)
