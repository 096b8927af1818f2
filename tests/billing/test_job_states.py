from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.job_states import FINAL, retry_delay

JITTER = st.floats(0, 1, exclude_max=True)


def test_a_failed_job_is_tried_again_and_a_dead_one_is_not() -> None:
    assert {"succeeded", "dead", "cancelled", "skipped"} == FINAL


@pytest.mark.parametrize(
    ("attempt", "seconds"),
    [(1, 1), (2, 3), (3, 9), (4, 27), (5, 81), (6, 243), (7, 600), (8, 600), (10**9, 600)],
)
def test_delays_triple_up_to_ten_minutes(attempt: int, seconds: int) -> None:
    assert retry_delay(attempt, jitter=0) == timedelta(seconds=seconds)


def test_jitter_adds_up_to_a_quarter() -> None:
    assert retry_delay(3, jitter=0.5) == timedelta(seconds=9 * 1.125)


@given(st.integers(1, 100), JITTER)
def test_jitter_never_shortens_a_delay_nor_adds_over_a_quarter(attempt: int, jitter: float) -> None:
    least = retry_delay(attempt, jitter=0)

    assert least <= retry_delay(attempt, jitter=jitter) <= least * 1.25


@given(st.integers(1, 5), JITTER, JITTER)
def test_a_later_attempt_never_waits_less(attempt: int, first: float, second: float) -> None:
    assert retry_delay(attempt, jitter=first) < retry_delay(attempt + 1, jitter=second)


@pytest.mark.parametrize(("attempt", "jitter"), [(0, 0.0), (1, -0.1), (1, 1.0)])
def test_values_out_of_range_are_refused(attempt: int, jitter: float) -> None:
    with pytest.raises(ValueError, match=r"must be|counted"):
        retry_delay(attempt, jitter=jitter)
