from datetime import date, timedelta
from itertools import permutations
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.credit_lots import CreditLot, LotKind, LotUse, expiries, given_back, spend, spent

TODAY = date(2026, 11, 22)
TOMORROW = TODAY + timedelta(days=1)
DAYS = st.dates(TODAY - timedelta(days=3), TODAY + timedelta(days=3))
AMOUNTS = st.integers(0, 500)


def granted(key: int, remaining: int, expires_on: date | None = None) -> CreditLot:
    return CreditLot(
        lot_id=UUID(int=key),
        kind=LotKind.PROMOTIONAL,
        remaining=remaining,
        expires_on=expires_on,
    )


def paid(key: int, remaining: int) -> CreditLot:
    return CreditLot(lot_id=UUID(int=key), kind=LotKind.PAID, remaining=remaining)


@st.composite
def lots_of_a_balance(draw: st.DrawFn) -> list[CreditLot]:
    drawn = draw(st.lists(st.tuples(st.booleans(), AMOUNTS, st.none() | DAYS), max_size=6))
    lots = [
        granted(key, remaining, expires_on) if is_granted else paid(key, remaining)
        for key, (is_granted, remaining, expires_on) in enumerate(drawn)
    ]
    return draw(st.permutations(lots))


def used(uses: tuple[LotUse, ...]) -> dict[int, int]:
    return {use.lot_id.int: use.amount for use in uses}


def total(things: tuple[LotUse, ...] | list[LotUse]) -> int:
    return sum(use.amount for use in things)


def in_hand(lots: list[CreditLot] | tuple[CreditLot, ...]) -> int:
    return sum(lot.remaining for lot in lots)


def goes_before(one: CreditLot, other: CreditLot) -> bool:
    if one.kind != other.kind:
        return one.kind == LotKind.PROMOTIONAL
    if one.expires_on != other.expires_on:
        return other.expires_on is None or (
            one.expires_on is not None and one.expires_on < other.expires_on
        )
    return one.lot_id < other.lot_id


LOTS = [
    paid(1, 100),
    granted(2, 100),
    granted(3, 100, date(2027, 1, 31)),
    granted(4, 100, TOMORROW),
    paid(5, 100),
    granted(6, 100, date(2027, 1, 31)),
    granted(7, 100),
]


@pytest.mark.parametrize(
    ("amount", "uses"),
    [
        (0, {}),
        (1, {4: 1}),
        (100, {4: 100}),
        # The same day: the older first.
        (250, {4: 100, 3: 100, 6: 50}),
        # Without a date after all with one, and before paid credit.
        (480, {4: 100, 3: 100, 6: 100, 2: 100, 7: 80}),
        (501, {4: 100, 3: 100, 6: 100, 2: 100, 7: 100, 1: 1}),
        (650, {4: 100, 3: 100, 6: 100, 2: 100, 7: 100, 1: 100, 5: 50}),
        # As much as there is.
        (9_999, {4: 100, 3: 100, 6: 100, 2: 100, 7: 100, 1: 100, 5: 100}),
    ],
)
def test_promotional_credit_goes_before_paid_then_what_expires_soonest_then_the_oldest(
    amount: int, uses: dict[int, int]
) -> None:
    found = used(spend(LOTS, amount, TODAY))

    assert found == uses
    assert [*found] == [*uses]


def test_the_order_in_which_lots_are_read_does_not_matter() -> None:
    lots = [lot for lot in LOTS if lot.lot_id.int in {1, 3, 5, 6}]
    for order in permutations(lots):
        assert used(spend(order, 150, TODAY)) == {3: 100, 6: 50}
        assert used(spend(order, 250, TODAY)) == {3: 100, 6: 100, 1: 50}


@pytest.mark.parametrize(
    ("expires_on", "usable"),
    [
        (TODAY - timedelta(days=1), 0),
        (TODAY, 0),  # On its date.
        (TOMORROW, 100),
        (None, 100),
    ],
)
def test_promotional_credit_expires_on_its_date(expires_on: date | None, usable: int) -> None:
    lot = granted(1, 100, expires_on)

    assert total(spend([lot], 500, TODAY)) == usable
    assert total(expiries([lot], TODAY)) == 100 - usable


def test_paid_credit_never_expires() -> None:
    assert expiries([paid(1, 100)], date.max) == ()
    with pytest.raises(ValueError, match="never expires"):
        CreditLot(lot_id=UUID(int=1), kind=LotKind.PAID, remaining=100, expires_on=TOMORROW)


def test_only_what_remains_expires_and_only_once() -> None:
    lots = [granted(1, 70, TODAY), granted(2, 0, TODAY), granted(3, 5, TOMORROW), paid(4, 9)]

    gone = expiries(lots, TODAY)

    assert used(gone) == {1: 70}
    assert expiries(spent(lots, gone), TODAY) == ()


def test_what_a_void_gives_back_after_its_date_expires_again_at_once() -> None:
    lots = (granted(1, 100, TOMORROW), paid(2, 100))
    uses = spend(lots, 150, TODAY)
    later = TODAY + timedelta(days=30)
    at_night = spent(lots, uses)
    at_night = spent(at_night, expiries(at_night, later))

    returned = given_back(at_night, uses)

    assert used(expiries(returned, later)) == {1: 100}
    assert spent(returned, expiries(returned, later)) == (granted(1, 0, TOMORROW), paid(2, 100))
    # Before its date it is simply there again.
    assert given_back(spent(lots, uses), uses) == lots


@given(lots_of_a_balance(), AMOUNTS, DAYS)
def test_credit_is_spent_as_far_as_it_goes_and_never_below_zero(
    lots: list[CreditLot], amount: int, today: date
) -> None:
    uses = spend(lots, amount, today)

    live = [lot for lot in lots if lot.expires_on is None or lot.expires_on > today]
    assert total(uses) == min(amount, in_hand(live))
    assert all(use.amount > 0 for use in uses)
    assert len({use.lot_id for use in uses}) == len(uses)
    # Refused if one went below zero.
    assert in_hand(spent(lots, uses)) == in_hand(lots) - total(uses)


@given(lots_of_a_balance(), AMOUNTS, DAYS)
def test_no_lot_is_touched_while_one_that_goes_before_it_has_some_left(
    lots: list[CreditLot], amount: int, today: date
) -> None:
    uses = spend(lots, amount, today)

    left = {lot.lot_id: lot for lot in spent(lots, uses) if not lot.is_expired(today)}
    for use in uses:
        for lot in left.values():
            assert not goes_before(lot, left[use.lot_id]) or lot.remaining == 0


@given(lots_of_a_balance(), AMOUNTS, AMOUNTS, DAYS)
def test_spending_twice_is_spending_the_sum(
    lots: list[CreditLot], one: int, other: int, today: date
) -> None:
    first = spend(lots, one, today)
    second = spend(spent(lots, first), other, today)

    both = spend(lots, one + other, today)
    assert spent(spent(lots, first), second) == spent(lots, both)


@given(lots_of_a_balance(), DAYS, AMOUNTS)
def test_what_has_expired_pays_nothing_and_all_of_it_goes(
    lots: list[CreditLot], today: date, amount: int
) -> None:
    gone = expiries(lots, today)

    assert spend(lots, amount, today) == spend(spent(lots, gone), amount, today)
    assert total(gone) + total(spend(lots, in_hand(lots), today)) == in_hand(lots)


@given(lots_of_a_balance(), AMOUNTS, DAYS)
def test_giving_back_undoes_spending(lots: list[CreditLot], amount: int, today: date) -> None:
    uses = spend(lots, amount, today)

    assert given_back(spent(lots, uses), uses) == tuple(lots)


@given(
    st.lists(
        st.tuples(st.sampled_from(["deposit", "grant", "carry", "apply", "expire"]), AMOUNTS, DAYS)
    )
)
def test_a_balance_is_its_lots_less_what_it_owes_and_one_of_them_is_zero(
    story: list[tuple[str, int, date]],
) -> None:
    lots: tuple[CreditLot, ...] = ()
    balance = owed = 0
    for key, (event, amount, day) in enumerate(story):
        match event:
            case "deposit":
                lots, balance = (*lots, paid(key, amount)), balance + amount
            case "grant":
                lots, balance = (*lots, granted(key, amount, day)), balance + amount
            case "carry":
                owed, balance = owed + amount, balance - amount
            case "apply":
                uses = spend(lots, amount, TODAY)
                lots, balance = spent(lots, uses), balance - total(uses)
        gone = expiries(lots, TODAY)
        lots, balance = spent(lots, gone), balance - total(gone)
        covered = spend(lots, owed, TODAY)
        lots, owed = spent(lots, covered), owed - total(covered)

        assert balance == in_hand(lots) - owed
        assert owed == 0 or in_hand(lots) == 0


def test_less_than_nothing_is_never_spent_nor_left() -> None:
    with pytest.raises(ValueError, match="not below zero"):
        spend([paid(1, 100)], -1, TODAY)
    with pytest.raises(ValueError, match="never below zero"):
        paid(1, -1)
    with pytest.raises(ValueError, match="never below zero"):
        spent([paid(1, 100)], [LotUse(UUID(int=1), 60), LotUse(UUID(int=1), 41)])


def test_a_lot_of_another_balance_is_refused() -> None:
    with pytest.raises(ValueError, match="another balance"):
        spent([paid(1, 100)], [LotUse(UUID(int=2), 1)])
    with pytest.raises(ValueError, match="another balance"):
        given_back([paid(1, 100)], [LotUse(UUID(int=2), 1)])


def test_the_kinds_of_lots_are_stored_by_these_names() -> None:
    assert {*LotKind} == {"promotional", "paid"}
