"""When a vendor counts as down, and how often it is asked whether it is back."""

from datetime import timedelta

FAILURES_IN_A_ROW = 10
"""Of all threads of a process, with no answer between."""

FIRST_PROBE = timedelta(seconds=2)
LONGEST_PROBE = timedelta(seconds=60)

STEADY_AFTER = timedelta(minutes=2)
"""Whatever fails again sooner had not come back: the probes go on being rarer."""


def is_down(failures: int) -> bool:
    """Whether so many calls in a row, none of which was answered, mean that it is down."""
    return failures >= FAILURES_IN_A_ROW


def next_probe(probes: int) -> timedelta:
    """How long to wait for the next probe, after so many that failed."""
    doublings = min(probes, 10)
    return min(FIRST_PROBE * (1 << doublings), LONGEST_PROBE)
