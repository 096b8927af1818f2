from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import postings as rules
from billing.postings import (
    ONCE_AN_INVOICE,
    POSTINGS_TABLE,
    LedgerAccount,
    LedgerEvent,
    Posting,
    Taxes,
    credit_applied_when_finalized,
    postings_for_adjusting,
    postings_for_applying_credit,
    postings_for_credit_note,
    postings_for_failed_refund,
    postings_for_finalizing,
    postings_for_granting,
    postings_for_losing_dispute,
    postings_for_opening_dispute,
    postings_for_paying_out_credit,
    postings_for_payment,
    postings_for_refund,
    postings_for_voiding,
    postings_for_writing_off,
    reversed_postings,
)

TOTALS = st.integers(-(10**18), 10**18)
SOME = st.integers(1, 10**18)
RATE, OTHER_RATE = UUID(int=1), UUID(int=2)
TAXES = st.dictionaries(st.sampled_from([RATE, OTHER_RATE]), TOTALS)
PAID_FROM = st.sampled_from([LedgerAccount.STRIPE, LedgerAccount.OUTSIDE])
GIVEN_TO = st.sampled_from([LedgerAccount.CREDIT, LedgerAccount.STRIPE, LedgerAccount.OUTSIDE])
RECEIVED_BY = st.sampled_from([LedgerAccount.STRIPE, LedgerAccount.OUTSIDE])


@st.composite
def payments(draw: st.DrawFn) -> tuple[int, int]:
    """What was received, and how much of it settles an invoice."""
    amount = draw(st.integers(1, 10**18))
    return amount, draw(st.integers(0, amount))


def balances(postings: Iterable[Posting]) -> dict[LedgerAccount, int]:
    sums = dict.fromkeys(LedgerAccount, 0)
    for posting in postings:
        sums[posting.account] += posting.amount
    return sums


def test_finalizing_debits_receivable_and_credits_revenue() -> None:
    assert postings_for_finalizing(4_900) == (
        Posting(LedgerAccount.RECEIVABLE, 4_900),
        Posting(LedgerAccount.REVENUE, -4_900),
    )


def test_a_negative_total_takes_revenue_back_and_becomes_credit() -> None:
    assert postings_for_finalizing(-500) == (
        Posting(LedgerAccount.REVENUE, 500),
        Posting(LedgerAccount.CREDIT, -500),
    )


def test_a_total_of_zero_posts_nothing() -> None:
    assert postings_for_finalizing(0) == ()


@st.composite
def credit_notes(draw: st.DrawFn) -> tuple[Posting, ...]:
    net, taxes = draw(st.integers(0, 10**18)), draw(st.dictionaries(st.just(RATE), SOME))
    amount = net + sum(taxes.values())
    lowers_due = draw(st.integers(0, amount))
    return postings_for_credit_note(
        net,
        taxes,
        lowers_due=lowers_due,
        returned=amount - lowers_due,
        returned_to=draw(GIVEN_TO),
    )


@st.composite
def voids(draw: st.DrawFn) -> tuple[Posting, ...]:
    """Of an open invoice: what credit and money settled of it is less than all."""
    total = draw(SOME)
    credit_applied = draw(st.integers(-(10**18), total))
    paid = draw(st.integers(0, total - credit_applied))
    lost = draw(st.integers(0, paid))
    return postings_for_voiding(total, credit_applied, paid - lost, draw(TAXES), lost)


@st.composite
def losses(draw: st.DrawFn) -> tuple[Posting, ...]:
    """An invoice is due again, or its money lost; the rest is the client's."""
    settled, taken_back = draw(SOME), draw(st.integers(0, 10**18))
    rule = draw(st.sampled_from(["reopened", "written_off"]))
    parts = {"reopened": 0, "written_off": 0, rule: settled}
    return postings_for_losing_dispute(**parts, taken_back=taken_back)


def received(event: LedgerEvent) -> st.SearchStrategy[tuple[Posting, ...]]:
    by = LedgerAccount.STRIPE if event == LedgerEvent.CARD_PAYMENT else LedgerAccount.OUTSIDE
    return payments().map(lambda paid: postings_for_payment(by, *paid))


POSTED: dict[LedgerEvent, st.SearchStrategy[tuple[Posting, ...]]] = {
    LedgerEvent.FINALIZE: st.builds(postings_for_finalizing, TOTALS, TAXES),
    LedgerEvent.VOID: voids(),
    LedgerEvent.APPLY_CREDIT: TOTALS.map(postings_for_applying_credit),
    LedgerEvent.CARRY: SOME.map(postings_for_applying_credit),
    LedgerEvent.CARD_PAYMENT: received(LedgerEvent.CARD_PAYMENT),
    LedgerEvent.OUTSIDE_PAYMENT: received(LedgerEvent.OUTSIDE_PAYMENT),
    LedgerEvent.DEPOSIT: st.builds(postings_for_payment, RECEIVED_BY, SOME, st.just(0)),
    LedgerEvent.GRANT: SOME.map(postings_for_granting),
    LedgerEvent.EXPIRY: SOME.map(postings_for_granting).map(reversed_postings),
    LedgerEvent.ADJUSTMENT: TOTALS.map(postings_for_adjusting),
    LedgerEvent.CREDIT_REFUND: st.builds(postings_for_paying_out_credit, PAID_FROM, SOME),
    LedgerEvent.CREDIT_NOTE: credit_notes(),
    LedgerEvent.REFUND: st.builds(postings_for_refund, GIVEN_TO, SOME),
    LedgerEvent.REFUND_FAILED: SOME.map(postings_for_failed_refund),
    LedgerEvent.WRITE_OFF: SOME.map(postings_for_writing_off),
    LedgerEvent.RECOVERY: SOME.map(postings_for_writing_off).map(reversed_postings),
    LedgerEvent.DISPUTE_OPENED: SOME.map(postings_for_opening_dispute),
    LedgerEvent.DISPUTE_WON: SOME.map(postings_for_opening_dispute).map(reversed_postings),
    LedgerEvent.DISPUTE_LOST: losses(),
}


@pytest.mark.parametrize("event", LedgerEvent)
@given(data=st.data())
def test_an_entry_balances_and_has_only_the_sides_of_the_table(
    event: LedgerEvent, data: st.DataObject
) -> None:
    postings = data.draw(POSTED[event])

    assert sum(posting.amount for posting in postings) == 0
    # One line an account, and a rate, and none of zero.
    assert len({(one.account, one.tax_rate_id) for one in postings}) == len(postings)
    assert all(posting.amount for posting in postings)
    assert any(row.allows(postings) for row in POSTINGS_TABLE if row.event == event)


def test_the_table_has_every_event_and_knows_every_function() -> None:
    assert {row.event for row in POSTINGS_TABLE} == {*LedgerEvent} == POSTED.keys()
    assert {row.event for row in POSTINGS_TABLE if not row.effective} == set()
    functions: set[Callable[..., object]] = {
        getattr(rules, name) for name in dir(rules) if name.startswith("postings_for_")
    }
    assert functions == {
        *(postings_for_finalizing, postings_for_voiding, postings_for_applying_credit),
        *(postings_for_payment, postings_for_adjusting, postings_for_granting),
        *(postings_for_paying_out_credit, postings_for_credit_note, postings_for_refund),
        *(postings_for_failed_refund, postings_for_writing_off),
        *(postings_for_opening_dispute, postings_for_losing_dispute),
    }


def test_a_side_that_is_not_in_the_table_is_seen() -> None:
    [row] = [row for row in POSTINGS_TABLE if row.event == LedgerEvent.WRITE_OFF]
    given_up = postings_for_writing_off(500)

    assert row.allows(given_up)
    assert not row.allows(reversed_postings(given_up))
    assert not row.allows(postings_for_granting(500))


def test_the_documents_show_the_same_table() -> None:
    shown = Path(__file__).parents[2] / "docs" / "postings.md"
    cells = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in shown.read_text().splitlines()
        if line.startswith("| ")
    ]

    assert cells == [
        ("event", "of", "debit", "credit", "effective"),
        *(
            (
                f"`{row.event}`",
                row.what,
                *(", ".join(side) for side in (row.debits, row.credits, row.effective)),
            )
            for row in POSTINGS_TABLE
        ),
    ]


@given(TOTALS, TAXES)
def test_the_books_show_what_is_due_and_what_was_earned_and_taxed(total: int, taxes: Taxes) -> None:
    sums = balances(postings_for_finalizing(total, taxes))
    credit_applied = credit_applied_when_finalized(total)

    assert sums[LedgerAccount.REVENUE] == sum(taxes.values()) - total
    assert sums[LedgerAccount.TAX] == -sum(taxes.values())
    assert sums[LedgerAccount.RECEIVABLE] == total - credit_applied >= 0
    # Credit that the client gains (a credit, so negative) is the negative amount applied.
    assert sums[LedgerAccount.CREDIT] == credit_applied <= 0


@given(st.integers(1, 10**18), TOTALS, TAXES)
def test_voiding_undoes_finalizing_and_the_credit_or_debit_that_was_applied(
    total: int, credit_applied: int, taxes: Taxes
) -> None:
    entries = [
        *postings_for_finalizing(total, taxes),
        *postings_for_applying_credit(credit_applied),
        *postings_for_voiding(total, credit_applied, taxes=taxes),
    ]

    assert set(balances(entries).values()) == {0}


def test_a_void_gives_credit_back_in_the_same_entry() -> None:
    assert postings_for_voiding(4_900, 1_500) == (
        Posting(LedgerAccount.REVENUE, 4_900),
        Posting(LedgerAccount.RECEIVABLE, -3_400),
        Posting(LedgerAccount.CREDIT, -1_500),
    )


def test_a_void_of_what_was_paid_in_part_leaves_that_as_credit() -> None:
    assert postings_for_voiding(4_900, 1_500, 900) == (
        Posting(LedgerAccount.REVENUE, 4_900),
        Posting(LedgerAccount.RECEIVABLE, -2_500),
        Posting(LedgerAccount.CREDIT, -2_400),
    )


def test_credit_settles_what_is_due_and_a_debit_adds_to_it() -> None:
    assert postings_for_applying_credit(500) == (
        Posting(LedgerAccount.CREDIT, 500),
        Posting(LedgerAccount.RECEIVABLE, -500),
    )
    assert postings_for_applying_credit(-40) == (
        Posting(LedgerAccount.CREDIT, -40),
        Posting(LedgerAccount.RECEIVABLE, 40),
    )


@pytest.mark.parametrize(
    ("received_by", "amount", "applied", "sides"),
    [
        ("stripe", 4_900, 4_900, {"stripe": 4_900, "receivable": -4_900}),
        ("outside", 5_000, 4_900, {"outside": 5_000, "receivable": -4_900, "credit": -100}),
        # Where none was due, and a deposit.
        ("stripe", 4_900, 0, {"stripe": 4_900, "credit": -4_900}),
        ("outside", 4_900, 0, {"outside": 4_900, "credit": -4_900}),
    ],
)
def test_money_received_settles_an_invoice_and_the_rest_is_credit(
    received_by: str, amount: int, applied: int, sides: dict[str, int]
) -> None:
    postings = postings_for_payment(LedgerAccount(received_by), amount, applied)

    assert {posting.account: posting.amount for posting in postings} == sides


def test_a_correction_has_a_ledger_account_of_its_own() -> None:
    assert postings_for_adjusting(-250) == (
        Posting(LedgerAccount.ADJUSTMENT, -250),
        Posting(LedgerAccount.CREDIT, 250),
    )


@given(st.lists(st.tuples(payments(), RECEIVED_BY), max_size=5), TOTALS, st.integers(1, 10**18))
def test_the_receivable_of_an_invoice_is_what_is_due_whatever_happens_to_it(
    received: list[tuple[tuple[int, int], LedgerAccount]], credit_applied: int, total: int
) -> None:
    entries = [*postings_for_finalizing(total), *postings_for_applying_credit(credit_applied)]
    for (amount, applied), by in received:
        entries += postings_for_payment(by, amount, applied)

    paid = sum(applied for (_, applied), _ in received)
    assert balances(entries)[LedgerAccount.RECEIVABLE] == total - credit_applied - paid


def test_an_invoice_is_finalized_and_voided_once_and_all_else_happens_any_number_of_times() -> None:
    assert {LedgerEvent.FINALIZE, LedgerEvent.VOID} == ONCE_AN_INVOICE


def test_each_rate_has_its_own_tax() -> None:
    assert postings_for_finalizing(1_120, {RATE: 70, OTHER_RATE: 50}) == (
        Posting(LedgerAccount.RECEIVABLE, 1_120),
        Posting(LedgerAccount.REVENUE, -1_000),
        Posting(LedgerAccount.TAX, -70, RATE),
        Posting(LedgerAccount.TAX, -50, OTHER_RATE),
    )
    for account, rate in ((LedgerAccount.TAX, None), (LedgerAccount.REVENUE, RATE)):
        with pytest.raises(ValueError, match="booked by rate"):
            Posting(account, 70, rate)


def test_a_credit_note_takes_revenue_and_tax_back_and_returns_what_was_not_due() -> None:
    assert postings_for_credit_note(
        1_000, {RATE: 70}, lowers_due=300, returned=770, returned_to=LedgerAccount.STRIPE
    ) == (
        Posting(LedgerAccount.REVENUE, 1_000),
        Posting(LedgerAccount.TAX, 70, RATE),
        Posting(LedgerAccount.RECEIVABLE, -300),
        Posting(LedgerAccount.STRIPE, -770),
    )


@pytest.mark.parametrize(("lowers_due", "returned"), [(300, 771), (0, 0), (1_070, 1)])
def test_a_credit_note_gives_neither_more_nor_less_than_it_takes(
    lowers_due: int, returned: int
) -> None:
    with pytest.raises(ValueError, match="what a note takes"):
        postings_for_credit_note(
            1_000,
            {RATE: 70},
            lowers_due=lowers_due,
            returned=returned,
            returned_to=LedgerAccount.CREDIT,
        )


@pytest.mark.parametrize(
    ("postings", "sides"),
    [
        (postings_for_granting(500), {"promotion": 500, "credit": -500}),
        (reversed_postings(postings_for_granting(500)), {"promotion": -500, "credit": 500}),
        (
            postings_for_paying_out_credit(LedgerAccount.OUTSIDE, 500),
            {"credit": 500, "outside": -500},
        ),
        (postings_for_refund(LedgerAccount.STRIPE, 500), {"receivable": 500, "stripe": -500}),
        (postings_for_refund(LedgerAccount.CREDIT, 500), {"receivable": 500, "credit": -500}),
        (postings_for_failed_refund(500), {"stripe": 500, "credit": -500}),
        (postings_for_writing_off(500), {"bad_debt": 500, "receivable": -500}),
        (reversed_postings(postings_for_writing_off(500)), {"bad_debt": -500, "receivable": 500}),
        (postings_for_opening_dispute(500), {"disputed": 500, "stripe": -500}),
        (
            postings_for_losing_dispute(reopened=300, written_off=0, taken_back=200),
            {"receivable": 300, "credit": 200, "disputed": -500},
        ),
        (
            postings_for_losing_dispute(reopened=0, written_off=500, taken_back=0),
            {"dispute_loss": 500, "disputed": -500},
        ),
    ],
)
def test_what_is_given_taken_back_or_given_up_has_two_sides(
    postings: tuple[Posting, ...], sides: dict[str, int]
) -> None:
    assert {posting.account: posting.amount for posting in postings} == sides


@given(SOME, TAXES)
def test_reversing_twice_is_the_same(total: int, taxes: Taxes) -> None:
    postings = postings_for_finalizing(total, taxes)

    assert reversed_postings(reversed_postings(postings)) == postings
    assert set(balances((*postings, *reversed_postings(postings))).values()) == {0}


@pytest.mark.parametrize("total", [0, -1])
def test_what_was_never_open_cannot_be_voided(total: int) -> None:
    with pytest.raises(ValueError, match="never open"):
        postings_for_voiding(total, 0)
