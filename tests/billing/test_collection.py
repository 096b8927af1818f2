from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.collection import (
    ATTEMPT_TRANSITIONS,
    SETTLED,
    UNSETTLED,
    AttemptState,
    Collection,
    Origin,
    collection_of,
    may_follow,
    settle,
)
from billing.errors import RuleViolation
from billing.invoice_states import InvoiceStatus

EDGES = [
    ("pending", "processing"),
    ("pending", "unknown"),
    ("pending", "needs_action"),
    ("pending", "succeeded"),
    ("pending", "declined"),
    ("pending", "canceled"),
    ("unknown", "processing"),
    ("unknown", "needs_action"),
    ("unknown", "succeeded"),
    ("unknown", "declined"),
    ("unknown", "canceled"),
    ("needs_action", "processing"),
    ("needs_action", "succeeded"),
    ("needs_action", "declined"),
    ("needs_action", "canceled"),
    ("processing", "succeeded"),
    ("processing", "declined"),
    ("processing", "canceled"),
    # Money that moved after all.
    ("declined", "succeeded"),
    ("canceled", "succeeded"),
]
MISSING = sorted(set(product(AttemptState, AttemptState)) - {*EDGES})


@pytest.mark.parametrize(("state", "to"), EDGES)
def test_every_edge_of_an_attempts_life_leads_where_it_should(state: str, to: str) -> None:
    assert settle(AttemptState(state), AttemptState(to)) == to


@pytest.mark.parametrize(("state", "to"), MISSING)
def test_every_other_edge_is_refused(state: AttemptState, to: AttemptState) -> None:
    with pytest.raises(RuleViolation) as refused:
        settle(state, to)

    settled = state in {"succeeded", "declined", "canceled"}
    assert refused.value.code == ("attempt_settled" if settled else "attempt_moved_on")
    assert refused.value.message == f"an attempt that is {state} cannot become {to}"


@pytest.mark.parametrize("to", AttemptState)
def test_nothing_undoes_a_success_nor_tells_it_twice(to: AttemptState) -> None:
    with pytest.raises(RuleViolation):
        settle(AttemptState.SUCCEEDED, to)


@pytest.mark.parametrize("state", sorted({*AttemptState} - {AttemptState.SUCCEEDED}))
def test_stripes_word_that_money_moved_is_taken_in_every_state(state: AttemptState) -> None:
    assert settle(state, AttemptState.SUCCEEDED) == "succeeded"


# What Stripe tells: an attempt is never said to be pending, or unknown.
@pytest.mark.parametrize(
    "news", sorted({*AttemptState} - {AttemptState.PENDING, AttemptState.UNKNOWN})
)
@pytest.mark.parametrize("state", AttemptState)
def test_what_is_no_news_now_is_none_later(state: AttemptState, news: AttemptState) -> None:
    if may_follow(state, news):
        assert settle(state, news) == news
    else:
        assert not any(may_follow(later, news) for later in ATTEMPT_TRANSITIONS[state])


def test_an_attempt_is_unsettled_settled_or_waits_for_the_client() -> None:
    assert {"pending", "processing", "unknown"} == UNSETTLED
    assert {"succeeded", "declined", "canceled"} == SETTLED
    assert {*AttemptState} - UNSETTLED - SETTLED == {"needs_action"}


def test_the_table_has_every_state_and_cannot_be_changed_at_run_time() -> None:
    assert ATTEMPT_TRANSITIONS.keys() == {*AttemptState}
    with pytest.raises(TypeError):
        ATTEMPT_TRANSITIONS[AttemptState.SUCCEEDED] = UNSETTLED  # type: ignore[index]  # what is tested


def test_collection_and_origin_are_stored_by_these_names() -> None:
    assert {*Collection} == {
        "none",
        "manual",
        "scheduled",
        "in_flight",
        "needs_action",
        "no_billing_method",
        "paused",
        "exhausted",
    }
    assert {*Origin} == {"automatic", "staff", "client"}


@pytest.mark.parametrize(
    ("automatic", "attempt", "next_try", "card", "collection"),
    [
        # By hand, with a card or without: a button has to be pressed.
        ("", None, "", "card", "manual"),
        ("", None, "", "", "manual"),
        ("automatic", None, "next try", "card", "scheduled"),
        # The card was removed; the try is still to come, and will find none.
        ("automatic", None, "next try", "", "scheduled"),
        ("automatic", None, "", "", "no_billing_method"),
        ("automatic", None, "", "card", "exhausted"),
        # A charge under way goes before all that was planned.
        ("automatic", "pending", "next try", "card", "in_flight"),
        ("automatic", "processing", "", "", "in_flight"),
        ("", "unknown", "", "card", "in_flight"),
        ("automatic", "needs_action", "", "card", "needs_action"),
        ("", "needs_action", "", "", "needs_action"),
    ],
)
def test_how_an_open_invoice_is_collected(
    automatic: str, attempt: str | None, next_try: str, card: str, collection: str
) -> None:
    assert (
        collection_of(
            status=InvoiceStatus.OPEN,
            is_automatic=bool(automatic),
            attempt=None if attempt is None else AttemptState(attempt),
            has_next_try=bool(next_try),
            has_card=bool(card),
        )
        == collection
    )


@pytest.mark.parametrize(
    ("facts", "collection"),
    [
        ({"has_next_try": True}, "paused"),
        ({"has_next_try": True, "attempt": AttemptState.UNKNOWN}, "in_flight"),
        # What would not be charged anyway waits for something else than the end of the pause.
        ({"is_automatic": False}, "manual"),
        ({}, "exhausted"),
        ({"has_card": False}, "no_billing_method"),
        ({"has_next_try": True, "status": InvoiceStatus.PAID}, "none"),
    ],
)
def test_a_pause_is_told_of_what_would_be_charged(facts: dict[str, Any], collection: str) -> None:
    usual: dict[str, Any] = {
        "status": InvoiceStatus.OPEN,
        "is_automatic": True,
        "attempt": None,
        "has_next_try": False,
        "has_card": True,
    }

    assert collection_of(**{**usual, **facts}, is_paused=True) == collection


OPEN_ATTEMPTS = st.sampled_from(sorted({*AttemptState} - SETTLED))


@given(
    st.sampled_from(sorted({*InvoiceStatus} - {InvoiceStatus.OPEN})),
    st.one_of(st.none(), OPEN_ATTEMPTS),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_only_an_open_invoice_is_collected(
    status: InvoiceStatus, attempt: AttemptState | None, facts: tuple[bool, bool, bool]
) -> None:
    is_automatic, has_next_try, has_card = facts

    collection = collection_of(
        status=status,
        is_automatic=is_automatic,
        attempt=attempt,
        has_next_try=has_next_try,
        has_card=has_card,
    )

    assert collection == "none"


@given(OPEN_ATTEMPTS, st.booleans(), st.booleans(), st.booleans())
def test_an_unsettled_attempt_is_always_told(
    attempt: AttemptState,
    is_automatic: bool,  # noqa: FBT001 - drawn by hypothesis
    has_next_try: bool,  # noqa: FBT001 - drawn by hypothesis
    has_card: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    collection = collection_of(
        status=InvoiceStatus.OPEN,
        is_automatic=is_automatic,
        attempt=attempt,
        has_next_try=has_next_try,
        has_card=has_card,
    )

    assert collection == ("in_flight" if attempt in UNSETTLED else "needs_action")
