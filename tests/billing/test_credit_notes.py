from collections import Counter
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing.credit_notes import (
    CREDITABLE,
    CreditedInvoice,
    CreditNote,
    Destination,
    Settlement,
    note_of_amount,
    note_of_lines,
    require_creditable,
    settle_note,
)
from billing.errors import InvalidInput, RuleViolation
from billing.invoice_states import InvoiceStatus
from billing.tax import TaxableLine, TaxedLine, TaxRate, tax_invoice

VAT, CITY = UUID(int=20), UUID(int=3)


def rate(number: int, percent: str, *, inclusive: bool = False) -> TaxRate:
    return TaxRate(
        id=UUID(int=number),
        name=f"Tax {number}",
        percent=Decimal(percent),
        inclusive=inclusive,
        valid_from=date(2020, 1, 1),
    )


RATES = [rate(20, "20"), rate(3, "2.875"), rate(6, "6", inclusive=True), rate(99, "100")]


ANY_SIGN = st.integers(-40, 60) | st.integers(-(10**9), 10**12)


@st.composite
def invoices(draw: st.DrawFn, amounts: st.SearchStrategy[int] = ANY_SIGN) -> CreditedInvoice:
    """Of small amounts and large ones, with discounts, and worth something in all."""
    rates = st.lists(st.sampled_from(RATES), unique=True, max_size=3).map(tuple)
    lines = draw(st.lists(st.builds(TaxableLine, amounts, rates), min_size=1, max_size=6))
    invoice = CreditedInvoice(tax_invoice(lines).lines)
    if invoice.left < 0:
        corrected = [TaxableLine(-line.amount, line.rates) for line in lines]
        return CreditedInvoice(tax_invoice(corrected).lines)
    if invoice.left == 0:
        return CreditedInvoice([*invoice.lines, TaxedLine(1, {})])
    return invoice


# A part of what is left in thousandths, or lines by their positions.
STEPS = st.lists(
    st.integers(1, 1_000) | st.frozensets(st.integers(0, 5), min_size=1, max_size=4), max_size=8
)


def credited_in_steps(
    invoice: CreditedInvoice, steps: Sequence[int | frozenset[int]]
) -> tuple[CreditedInvoice, list[CreditNote]]:
    """Take the steps, leaving out those that are refused."""
    notes: list[CreditNote] = []
    for step in steps:
        try:
            if isinstance(step, int):
                note = note_of_amount(invoice, -(-invoice.left * step // 1_000))
            else:
                note = note_of_lines(invoice, step)
        except (InvalidInput, RuleViolation):
            continue
        notes.append(note)
        invoice = invoice.after(note)
    return invoice, notes


def taxes_of(lines: Sequence[TaxedLine] | Sequence[CreditNote]) -> dict[UUID, int]:
    sums: Counter[UUID] = Counter()
    for line in lines:
        for of, tax in line.taxes.items():
            sums[of] += tax
    return dict(sums)


def half_away(value: Fraction) -> int:
    away = int(abs(value) + Fraction(1, 2))
    return away if value >= 0 else -away


def in_amounts(total: int, tax: int, *amounts: int) -> list[tuple[int, int]]:
    """Net and tax of each note of these amounts on an invoice of one line."""
    invoice = CreditedInvoice([TaxedLine(total - tax, {VAT: tax})])
    notes = []
    for amount in amounts:
        note = note_of_amount(invoice, amount)
        notes.append((note.net, note.taxes[VAT]))
        invoice = invoice.after(note)
    return notes


@pytest.mark.parametrize(
    ("total", "tax", "amounts", "notes"),
    [
        (12_000, 2_000, [12_000], [(10_000, 2_000)]),
        (12_000, 2_000, [6_000, 6_000], [(5_000, 1_000), (5_000, 1_000)]),
        # A third of 100 is 33.33: the sums are rounded, 33.33, 66.67 and 100.
        (300, 100, [100, 100, 100], [(67, 33), (66, 34), (67, 33)]),
        # Cent by cent, a sixth each: never more than half a cent from a sixth of the sum.
        (12, 2, [1] * 12, [(1, 0), (1, 0), (0, 1), (1, 0), (1, 0), (1, 0)] * 2),
        # A half goes away from zero: 0.5, 1.
        (4, 2, [1, 1, 1, 1], [(0, 1), (1, 0), (0, 1), (1, 0)]),
        # No tax at all, at a rate of nothing.
        (500, 0, [200, 300], [(200, 0), (300, 0)]),
        # Tax alone, where a discount without tax took the rest.
        (100, 100, [30, 70], [(0, 30), (0, 70)]),
        # Less tax than nothing: a correction at another rate.
        (80, -20, [40, 40], [(50, -10), (50, -10)]),
    ],
)
def test_a_note_of_an_amount_bears_tax_in_proportion(
    total: int, tax: int, amounts: list[int], notes: list[tuple[int, int]]
) -> None:
    assert in_amounts(total, tax, *amounts) == notes


@given(invoices(), STEPS)
def test_notes_of_any_kind_end_at_exactly_the_invoice(
    invoice: CreditedInvoice, steps: list[int | frozenset[int]]
) -> None:
    last, notes = credited_in_steps(invoice, [*steps, 1_000])

    assert last.left == 0
    assert sum(note.amount for note in notes) == invoice.left
    assert sum(note.net for note in notes) == sum(line.net for line in invoice.lines)
    assert taxes_of(notes) == taxes_of(invoice.lines)


@given(invoices(), STEPS)
def test_no_note_takes_nothing_or_more_than_is_left(
    invoice: CreditedInvoice, steps: list[int | frozenset[int]]
) -> None:
    last, notes = credited_in_steps(invoice, steps)

    assert all(note.amount > 0 for note in notes)
    assert last.left == invoice.left - sum(note.amount for note in notes) >= 0
    assert last.named == {position for note in notes for position in note.named}
    assert last.lines is invoice.lines


@given(invoices(), st.lists(st.integers(1, 1_000), max_size=8))
def test_taxes_credited_by_amounts_are_their_part_of_the_invoices_taxes_rounded_once(
    invoice: CreditedInvoice, steps: list[int]
) -> None:
    _, notes = credited_in_steps(invoice, steps)

    credited = 0
    for count, note in enumerate(notes, start=1):
        credited += note.amount
        part = Fraction(credited, invoice.left)
        assert taxes_of(notes[:count]) == {
            of: half_away(tax * part) for of, tax in taxes_of(invoice.lines).items()
        }


@given(st.integers(2, 2_000), st.integers(0, 2_000), st.integers(1, 40))
def test_many_small_notes_are_as_good_as_a_few_large_ones(total: int, tax: int, size: int) -> None:
    tax = min(tax, total)
    small = [min(size, total - taken) for taken in range(0, total, size)]

    for taken, credited in zip(
        accumulate(small), accumulate(tax for _, tax in in_amounts(total, tax, *small)), strict=True
    ):
        assert credited == half_away(Fraction(tax * taken, total))


@given(invoices(st.integers(1, 10**9)), st.frozensets(st.integers(0, 5), min_size=1))
def test_lines_are_credited_as_they_were_billed(
    invoice: CreditedInvoice, numbers: frozenset[int]
) -> None:
    positions = {number % len(invoice.lines) for number in numbers}
    named = [line for position, line in enumerate(invoice.lines) if position in positions]

    note = note_of_lines(invoice, positions)

    assert note.amount == sum(line.gross for line in named)
    assert note.net == sum(line.net for line in named)
    assert {of: tax for of, tax in note.taxes.items() if tax} == {
        of: tax for of, tax in taxes_of(named).items() if tax
    }
    assert note.named == positions


@given(invoices())
def test_all_lines_together_are_the_whole_invoice(invoice: CreditedInvoice) -> None:
    note = note_of_lines(invoice, frozenset(range(len(invoice.lines))))

    assert note.amount == invoice.left
    assert note.taxes == taxes_of(invoice.lines)


MIXED = CreditedInvoice(
    [
        TaxedLine(1_000, {VAT: 200}),
        TaxedLine(1_000, {}),
        TaxedLine(2_000, {VAT: 400, CITY: 60}),
        TaxedLine(-500, {}),
    ]
)


def steps(invoice: CreditedInvoice, *wanted: int | set[int]) -> list[tuple[int, dict[str, int]]]:
    """Amount and taxes of each note: of an amount, or of lines."""
    notes = []
    for one in wanted:
        note = note_of_amount(invoice, one) if isinstance(one, int) else note_of_lines(invoice, one)
        notes.append((note.amount, {"vat": note.taxes[VAT], "city": note.taxes[CITY]}))
        invoice = invoice.after(note)
    return notes


# The invoice is 4,160, of which 600 VAT and 60 city tax.
@pytest.mark.parametrize(
    ("wanted", "notes"),
    [
        ([{0}, {2}], [(1_200, {"vat": 200, "city": 0}), (2_460, {"vat": 400, "city": 60})]),
        ([{1, 0}], [(2_200, {"vat": 200, "city": 0})]),
        ([{2, 3}], [(1_960, {"vat": 400, "city": 60})]),
        # After a line an amount takes of the others only: 1,480 of 2,960.
        ([{0}, 1_480], [(1_200, {"vat": 200, "city": 0}), (1_480, {"vat": 200, "city": 30})]),
        # After an amount a line has only a part left: half of it.
        ([2_080, {0}], [(2_080, {"vat": 300, "city": 30}), (600, {"vat": 100, "city": 0})]),
        (
            [2_080, {0}, 1_480],
            [
                (2_080, {"vat": 300, "city": 30}),
                (600, {"vat": 100, "city": 0}),
                (1_480, {"vat": 200, "city": 30}),
            ],
        ),
        # One amount and then all that is left by name.
        (
            [1_040, {0, 1, 2, 3}],
            [(1_040, {"vat": 150, "city": 15}), (3_120, {"vat": 450, "city": 45})],
        ),
    ],
)
def test_amounts_and_lines_may_be_credited_in_any_order(
    wanted: list[int | set[int]], notes: list[tuple[int, dict[str, int]]]
) -> None:
    assert steps(MIXED, *wanted) == notes


def test_the_last_note_takes_the_tax_of_lines_that_cancel_each_other() -> None:
    invoice = CreditedInvoice(
        [TaxedLine(100, {}), TaxedLine(50, {VAT: 10}), TaxedLine(-60, {})], credited=0
    )

    note = note_of_lines(invoice, {0})

    assert (note.amount, note.net, note.taxes) == (100, 90, {VAT: 10})
    assert invoice.after(note).left == 0


@pytest.mark.parametrize("amount", [0, -1])
def test_a_note_is_of_something(amount: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        note_of_amount(MIXED, amount)

    assert (refused.value.field, refused.value.code) == ("amount", "invalid")


@pytest.mark.parametrize(
    ("credited", "amount", "left"), [(0, 4_161, "4,160"), (4_000, 161, "160"), (4_159, 2, "1")]
)
def test_notes_never_exceed_the_invoice(credited: int, amount: int, left: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        note_of_amount(CreditedInvoice(MIXED.lines, credited), amount)

    assert (refused.value.field, refused.value.code) == ("amount", "amount_exceeds_invoice")
    assert left in refused.value.message


@pytest.mark.parametrize(
    ("positions", "code", "message"),
    [
        (set(), "invalid", "one or more lines of the invoice"),
        ({4}, "invalid", "one or more lines of the invoice"),
        ({-1}, "invalid", "one or more lines of the invoice"),
        ({0, 17}, "invalid", "one or more lines of the invoice"),
        # A discount alone would be a charge.
        ({3}, "invalid", "more than zero"),
        # Without the discount they are worth 500 more than the invoice.
        ({0, 1, 2}, "amount_exceeds_invoice", "name its discounts too"),
    ],
)
def test_lines_that_cannot_be_credited_are_refused(
    positions: set[int], code: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        note_of_lines(MIXED, positions)

    assert (refused.value.field, refused.value.code) == ("lines", code)


def test_what_the_discount_takes_cannot_be_credited_after_an_amount_either() -> None:
    with pytest.raises(InvalidInput) as refused:
        note_of_lines(MIXED.after(note_of_amount(MIXED, 4_159)), {0, 1, 2})

    assert refused.value.code == "amount_exceeds_invoice"


@pytest.mark.parametrize("again", [{0}, {0, 1}])
def test_a_line_is_named_once(again: set[int]) -> None:
    invoice = MIXED.after(note_of_lines(MIXED, {0}))

    with pytest.raises(RuleViolation) as refused:
        note_of_lines(invoice, again)

    assert refused.value.code == "line_already_credited"


@pytest.mark.parametrize(
    "invoice",
    [
        CreditedInvoice(MIXED.lines, 4_160),
        CreditedInvoice([TaxedLine(0, {VAT: 0})]),
        # Negative: it is a credit note itself.
        CreditedInvoice([TaxedLine(-100, {VAT: -20})]),
        CreditedInvoice([]),
    ],
    ids=["credited", "zero", "negative", "empty"],
)
def test_an_invoice_that_has_nothing_left_takes_no_note(invoice: CreditedInvoice) -> None:
    with pytest.raises(RuleViolation) as by_amount:
        note_of_amount(invoice, 1)
    with pytest.raises(RuleViolation) as by_lines:
        note_of_lines(invoice, {0})

    assert by_amount.value.code == by_lines.value.code == "nothing_to_credit"


def test_a_line_of_which_amounts_left_nothing_takes_no_note() -> None:
    invoice = CreditedInvoice([TaxedLine(1, {}), TaxedLine(999, {})], credited=600)

    with pytest.raises(RuleViolation) as refused:
        note_of_lines(invoice, {0})

    assert refused.value.code == "nothing_to_credit"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("draft", "invoice_not_finalized"),
        ("void", "invoice_not_open"),
    ],
)
def test_only_what_was_finalized_and_is_not_void_is_credited(status: str, code: str) -> None:
    with pytest.raises(RuleViolation) as refused:
        require_creditable(InvoiceStatus(status))

    assert refused.value.code == code
    assert {*InvoiceStatus} - CREDITABLE == {"draft", "void"}
    for creditable in CREDITABLE:
        require_creditable(creditable)


@pytest.mark.parametrize(
    ("amount", "due", "paid", "to", "settlement"),
    [
        # Paid is by card and outside. What is due is lowered first, wherever the rest was to go.
        (500, 4_000, (0, 0), "card", (500, 0)),
        (4_000, 4_000, (0, 0), "outside", (4_000, 0)),
        (4_900, 4_000, (900, 0), "credit", (4_000, 900)),
        (4_900, 4_000, (900, 0), "card", (4_000, 900)),
        (4_900, 4_000, (0, 900), "outside", (4_000, 900)),
        # To credit goes anything, whoever paid.
        (4_900, 0, (0, 0), "credit", (0, 4_900)),
        (4_900, 0, (4_900, 0), "credit", (0, 4_900)),
        # 1,500 of credit and 3,400 by card: as much as the card paid.
        (3_400, 0, (3_400, 0), "card", (0, 3_400)),
        # What cards paid may go back by bank as well; what was paid by bank not to a card.
        (4_900, 0, (2_000, 2_900), "outside", (0, 4_900)),
        (2_000, 0, (2_000, 2_900), "card", (0, 2_000)),
        # 1,000 of the card's went back by bank.
        (2_400, 0, (3_400, -1_000), "card", (0, 2_400)),
        (2_400, 0, (3_400, -1_000), "outside", (0, 2_400)),
    ],
)
def test_a_note_lowers_what_is_due_and_the_rest_goes_where_it_was_asked(
    amount: int, due: int, paid: tuple[int, int], to: str, settlement: tuple[int, int]
) -> None:
    assert settle_note(
        amount, due=due, kept=4_900, paid_by_card=paid[0], paid_outside=paid[1], to=Destination(to)
    ) == Settlement(*settlement)


@pytest.mark.parametrize(
    ("amount", "due", "paid", "to", "most"),
    [
        # Credit paid 1,500.
        (3_401, 0, (3_400, 0), "card", "3,400"),
        (4_900, 0, (3_400, 0), "card", "3,400"),
        (4_900, 0, (3_400, 0), "outside", "3,400"),
        # Credit paid all of it.
        (1, 0, (0, 0), "card", "0"),
        (1, 0, (0, 0), "outside", "0"),
        # Paid by bank: a card takes nothing that it did not pay.
        (2_001, 0, (2_000, 2_900), "card", "2,000"),
        (1, 0, (0, 4_900), "card", "0"),
        (4_901, 0, (2_000, 2_900), "outside", "4,900"),
        # Went back by bank already.
        (2_401, 0, (3_400, -1_000), "card", "2,400"),
        (1, 0, (3_400, -3_400), "card", "0"),
        (1, 0, (3_400, -3_400), "outside", "0"),
        # More than ever came in, however it happened.
        (1, 0, (3_400, -3_500), "card", "0"),
        (1, 0, (3_400, -3_500), "outside", "0"),
        # Only what is over what is due counts.
        (4_000, 1_000, (2_999, 0), "card", "2,999"),
    ],
)
def test_what_credit_paid_returns_to_credit_only(
    amount: int, due: int, paid: tuple[int, int], to: str, most: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        settle_note(
            amount,
            due=due,
            kept=4_900,
            paid_by_card=paid[0],
            paid_outside=paid[1],
            to=Destination(to),
        )

    assert (refused.value.field, refused.value.code) == ("to", "amount_exceeds_paid")
    assert f"at most {most} minor units" in refused.value.message


AMOUNTS = st.integers(0, 10**6)
PARTS = st.lists(st.tuples(st.integers(1, 10**6), st.sampled_from(Destination)), max_size=8)


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, PARTS)
@example(0, 1_500, 3_400, 0, [(3_400, Destination.OUTSIDE), (1_500, Destination.CARD)])
def test_no_money_goes_back_that_did_not_come_in_and_what_credit_paid_is_credit_again(
    due: int, by_credit: int, by_card: int, outside: int, parts: list[tuple[int, Destination]]
) -> None:
    left = due + by_credit + by_card + outside
    went = Counter[str]()
    for part, to in [*parts, (left, Destination.CREDIT)]:
        amount = min(part, left)
        if amount == 0:
            continue
        try:
            settlement = settle_note(
                amount,
                due=due,
                kept=by_credit + by_card + outside - went.total(),
                paid_by_card=by_card - went["card"],
                paid_outside=outside - went["outside"],
                to=to,
            )
        except InvalidInput:
            continue
        assert settlement.lowers_due + settlement.returned == amount
        assert settlement.returned == 0 or settlement.lowers_due == due
        due -= settlement.lowers_due
        left -= amount
        went[to] += settlement.returned

    assert (due, left) == (0, 0)
    assert went["card"] <= by_card
    assert went["card"] + went["outside"] <= by_card + outside
    assert went["credit"] >= by_credit


@pytest.mark.parametrize("to", Destination)
@pytest.mark.parametrize(("kept", "most"), [(600, "600"), (0, "0"), (-200, "0")])
def test_what_a_bank_took_back_goes_nowhere(kept: int, most: str, to: Destination) -> None:
    with pytest.raises(InvalidInput) as refused:
        settle_note(1_101, due=500, kept=kept, paid_by_card=1_000, paid_outside=0, to=to)

    assert (refused.value.field, refused.value.code) == ("to", "amount_exceeds_paid")
    assert f"at most {most} minor units" in refused.value.message


def test_what_is_due_is_never_below_zero() -> None:
    with pytest.raises(ValueError, match="never below zero"):
        settle_note(1, due=-1, kept=0, paid_by_card=0, paid_outside=0, to=Destination.CREDIT)


def test_destinations_are_stored_by_these_names() -> None:
    assert {*Destination} == {"credit", "card", "outside"}
