from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.amendments import (
    Amendment,
    AmendmentStep,
    ChangedAmendment,
    NewAmendment,
    RemovedAmendment,
    amend,
    amend_again,
    removed_by_void,
    require_billed,
    require_original,
)
from billing.errors import InvalidInput, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.money import MAX_AMOUNT

OPEN = [None, InvoiceStatus.DRAFT]
BILLED = [InvoiceStatus.OPEN, InvoiceStatus.PAID, InvoiceStatus.UNCOLLECTIBLE]
AMOUNTS = st.integers(-2_000, 2_000)
SETTLED = st.lists(
    st.tuples(AMOUNTS, st.sampled_from([*BILLED, InvoiceStatus.VOID])), max_size=4
).map(lambda drawn: [amendment(index, *one) for index, one in enumerate(drawn)])


def amendment(key: int, amount: int, status: InvoiceStatus | str | None) -> Amendment:
    return Amendment(UUID(int=key), amount, None if status is None else InvoiceStatus(status))


@st.composite
def histories(draw: st.DrawFn) -> list[Amendment]:
    """The amendments of one charge: any that are settled, and one at most that is open."""
    settled = draw(SETTLED)
    pending = draw(
        st.none() | st.builds(amendment, st.just(99), AMOUNTS.filter(bool), st.sampled_from(OPEN))
    )
    return draw(st.permutations([*settled, *([] if pending is None else [pending])]))


def after(amendments: Sequence[Amendment], step: AmendmentStep | None) -> list[Amendment]:
    """The amendments once ``step`` was done."""
    match step:
        case None:
            return [*amendments]
        case NewAmendment(amount):
            keys = {one.charge_id.int for one in amendments}
            return [*amendments, amendment(next(k for k in count() if k not in keys), amount, None)]
        case ChangedAmendment(charge_id, amount):
            return [
                replace(one, amount=amount) if one.charge_id == charge_id else one
                for one in amendments
            ]
        case RemovedAmendment(charge_id):
            return [one for one in amendments if one.charge_id != charge_id]


def net(original: int, amendments: Sequence[Amendment]) -> int:
    """What a client has been or will be billed for a charge: all but what was voided."""
    return original + sum(one.amount for one in amendments if one.invoice_status != "void")


@pytest.mark.parametrize(
    ("value", "step"),
    [
        (1_000, None),
        (1_200, NewAmendment(200)),
        (700, NewAmendment(-300)),
        (0, NewAmendment(-1_000)),  # Deleted.
        (-500, NewAmendment(-1_500)),
    ],
)
def test_the_first_edit_opens_an_amendment_for_the_difference(
    value: int, step: AmendmentStep | None
) -> None:
    assert amend(1_000, [], value) == step


@pytest.mark.parametrize("status", OPEN)
@pytest.mark.parametrize(
    ("value", "step"),
    [
        (1_200, None),
        (1_500, ChangedAmendment(UUID(int=1), 500)),
        (700, ChangedAmendment(UUID(int=1), -300)),
        (0, ChangedAmendment(UUID(int=1), -1_000)),
        # Back to what was invoiced: nothing is left to bill.
        (1_000, RemovedAmendment(UUID(int=1))),
    ],
)
def test_an_amendment_that_is_still_open_or_on_a_draft_is_changed_in_place(
    value: int, step: AmendmentStep | None, status: InvoiceStatus | None
) -> None:
    assert amend(1_000, [amendment(1, 200, status)], value) == step


@pytest.mark.parametrize("status", BILLED)
@pytest.mark.parametrize(
    ("value", "step"),
    [
        (1_200, None),
        (1_500, NewAmendment(300)),
        # Back to the original's own value, of which 200 more were billed meanwhile.
        (1_000, NewAmendment(-200)),
        (0, NewAmendment(-1_200)),
    ],
)
def test_one_that_was_billed_stays_and_the_next_is_for_the_rest(
    value: int, step: AmendmentStep | None, status: InvoiceStatus
) -> None:
    assert amend(1_000, [amendment(1, 200, status)], value) == step


@pytest.mark.parametrize(
    ("value", "step"),
    [
        (1_000, None),
        (1_200, NewAmendment(200)),
        (0, NewAmendment(-1_000)),
    ],
)
def test_one_on_a_void_invoice_was_not_billed_and_counts_for_nothing(
    value: int, step: AmendmentStep | None
) -> None:
    assert amend(1_000, [amendment(1, 200, "void")], value) == step


def test_the_open_one_takes_what_the_billed_ones_leave() -> None:
    amendments = [
        amendment(1, 200, "paid"),
        amendment(2, -50, None),
        amendment(3, 900, "void"),
        amendment(4, -300, "open"),
    ]

    assert amend(1_000, amendments, 850) is None
    assert amend(1_000, amendments, 1_000) == ChangedAmendment(UUID(int=2), 100)
    assert amend(1_000, amendments, 900) == RemovedAmendment(UUID(int=2))


def test_an_open_amendment_of_nothing_is_removed() -> None:
    assert amend(1_000, [amendment(1, 0, None)], 1_000) == RemovedAmendment(UUID(int=1))


@given(AMOUNTS, histories(), AMOUNTS)
def test_the_charge_and_its_amendments_always_come_to_the_new_value(
    original: int, amendments: list[Amendment], value: int
) -> None:
    edited = after(amendments, amend(original, amendments, value))

    assert net(original, edited) == value


@given(AMOUNTS, histories(), AMOUNTS)
def test_the_same_edit_again_changes_nothing(
    original: int, amendments: list[Amendment], value: int
) -> None:
    edited = after(amendments, amend(original, amendments, value))

    assert amend(original, edited, value) is None


@given(AMOUNTS, histories(), AMOUNTS)
def test_an_edit_leaves_at_most_one_open_amendment_and_none_of_zero(
    original: int, amendments: list[Amendment], value: int
) -> None:
    edited = after(amendments, amend(original, amendments, value))

    pending = [one for one in edited if one.invoice_status in OPEN]
    assert len(pending) <= 1
    assert all(one.amount for one in pending)


@given(AMOUNTS, histories(), AMOUNTS)
def test_what_was_invoiced_is_never_touched(
    original: int, amendments: list[Amendment], value: int
) -> None:
    edited = after(amendments, amend(original, amendments, value))

    invoiced = [one for one in amendments if one.invoice_status not in OPEN]
    assert [one for one in edited if one.invoice_status not in OPEN] == invoiced


@given(AMOUNTS, st.lists(st.tuples(AMOUNTS, st.sampled_from([None, *InvoiceStatus]))))
def test_after_any_edits_and_billings_the_last_edit_holds(
    original: int, story: list[tuple[int, InvoiceStatus | None]]
) -> None:
    amendments: list[Amendment] = []
    for value, then in story:
        amendments = after(amendments, amend(original, amendments, value))
        assert net(original, amendments) == value
        # Its invoice goes on, or is never made.
        amendments = [
            replace(one, invoice_status=then) if one.invoice_status in OPEN else one
            for one in amendments
        ]


@pytest.mark.parametrize(
    ("original", "billed", "value", "amount"),
    [
        (MAX_AMOUNT, 0, 0, -MAX_AMOUNT),
        (0, 0, MAX_AMOUNT, MAX_AMOUNT),
        (MAX_AMOUNT, -MAX_AMOUNT, MAX_AMOUNT, MAX_AMOUNT),
    ],
)
def test_a_difference_may_be_as_large_as_a_line(
    original: int, billed: int, value: int, amount: int
) -> None:
    assert amend(original, [amendment(1, billed, "paid")], value) == NewAmendment(amount)


@pytest.mark.parametrize(
    ("original", "billed", "value"),
    [(MAX_AMOUNT, 0, -1), (-1, 0, MAX_AMOUNT), (MAX_AMOUNT, 1, 0)],
)
def test_a_larger_difference_is_refused(original: int, billed: int, value: int) -> None:
    for pending in ([], [amendment(2, 5, None)]):
        with pytest.raises(InvalidInput, match="of what was invoiced") as refused:
            amend(original, [amendment(1, billed, "paid"), *pending], value)
        assert refused.value.field == "amount"


@given(AMOUNTS, histories(), AMOUNTS.filter(bool))
def test_one_that_was_voided_is_billed_again_on_top_of_the_rest(
    original: int, amendments: list[Amendment], amount: int
) -> None:
    step = amend_again(original, amendments, amount)

    assert step is not None
    assert net(original, after(amendments, step)) == net(original, amendments) + amount
    assert isinstance(step, NewAmendment) == (not any(one.is_open for one in amendments))


def test_two_open_amendments_are_nobodys_state() -> None:
    with pytest.raises(ValueError, match="one open amendment at most"):
        amend(1_000, [amendment(1, 200, None), amendment(2, 300, "draft")], 1_000)


def test_an_amendment_itself_is_not_edited() -> None:
    with pytest.raises(RuleViolation, match=str(UUID(int=7))) as refused:
        require_original(UUID(int=7))

    assert refused.value.code == "edit_the_original"
    require_original(None)


@pytest.mark.parametrize("status", BILLED)
def test_a_charge_is_amended_while_its_invoice_stands(status: InvoiceStatus) -> None:
    require_billed(status)


def test_a_charge_of_a_void_invoice_has_nothing_to_amend() -> None:
    with pytest.raises(RuleViolation) as refused:
        require_billed(InvoiceStatus.VOID)

    assert refused.value.code == "charge_voided"


@pytest.mark.parametrize("status", BILLED)
def test_a_void_is_refused_once_an_amendment_of_its_charges_was_billed(
    status: InvoiceStatus,
) -> None:
    with pytest.raises(RuleViolation) as refused:
        removed_by_void([amendment(1, 200, None), amendment(2, -200, status)])

    assert refused.value.code == "charge_amended"


def test_a_void_removes_the_open_amendments_of_its_charges() -> None:
    amendments = [
        amendment(1, 200, None),
        amendment(2, 900, "void"),
        amendment(3, -50, "draft"),
    ]

    assert removed_by_void(amendments) == (UUID(int=1), UUID(int=3))
    assert removed_by_void([]) == ()
