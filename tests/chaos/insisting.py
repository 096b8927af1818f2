"""Asking over HTTP until somebody answers who could know."""

import time
from collections.abc import Callable

import httpx2

KEEP_TRYING_SECONDS = 120.0
ANSWER_SECONDS = 10.0
PAUSE_SECONDS = 0.3


class Insistence:
    """Sends requests again that had no answer, or none that counts.

    Attributes:
        repeated: How many had to be.
    """

    def __init__(self) -> None:
        self.repeated = 0

    def answer(self, ask: Callable[[], httpx2.Response]) -> httpx2.Response:
        """What is answered in the end.

        Raises:
            httpx2.TransportError: Nobody has answered for too long.
        """
        deadline = time.monotonic() + KEEP_TRYING_SECONDS
        while True:
            try:
                answer = ask()
            except httpx2.TransportError:
                if time.monotonic() > deadline:
                    raise
            else:
                if answer.status_code < 500 or time.monotonic() > deadline:
                    return answer
            self.repeated += 1
            time.sleep(PAUSE_SECONDS)
