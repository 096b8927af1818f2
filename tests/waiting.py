"""Waiting for a condition, with a limit."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_for(condition: Callable[[], Value], *, limit: float = 60.0, what: str = "") -> Value:
    """The first truthy value of ``condition``, looked at until ``limit`` seconds have passed."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {limit} s: {what or condition}")
        time.sleep(0.02)
