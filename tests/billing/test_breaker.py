from datetime import timedelta

from billing.breaker import FAILURES_IN_A_ROW, LONGEST_PROBE, is_down, next_probe


def test_ten_failures_in_a_row_are_an_outage_and_nine_are_not() -> None:
    assert FAILURES_IN_A_ROW == 10
    assert [is_down(failures) for failures in (0, 9, 10, 11)] == [False, False, True, True]


def test_probes_are_rarer_each_time_up_to_a_minute() -> None:
    waits = [next_probe(probes) for probes in range(2_000)]

    assert [wait.total_seconds() for wait in waits[:7]] == [2, 4, 8, 16, 32, 60, 60]
    assert max(waits) == LONGEST_PROBE == timedelta(minutes=1)
