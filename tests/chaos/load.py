"""Work that goes on being asked for while things break."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Load:
    """Calls each action, again and again, from a thread of its own, until the end of the block.

    ``per_second`` is how often all of them together are called at most.
    """

    def __init__(self, actions: Sequence[Callable[[], None]], *, per_second: float) -> None:
        self._actions = actions
        self._pause_seconds = len(actions) / per_second
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(len(actions), thread_name_prefix="load")
        self._running: list[Future[None]] = []
        self.calls = 0

    def __enter__(self) -> Self:
        self._running = [self._threads.submit(self._repeat, action) for action in self._actions]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._threads.shutdown()
        if kind is None:
            for running in self._running:
                running.result()

    def _repeat(self, action: Callable[[], None]) -> None:
        while not self._stopping.wait(self._pause_seconds):
            action()
            self.calls += 1
