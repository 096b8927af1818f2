"""Real processes, and how long they take."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

LIMIT_SECONDS = 240.0


@contextmanager
def processes(commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> Iterator[None]:
    """Python processes with these arguments, running while the block does."""
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)


def seconds_until(done: Callable[[], int], count: int) -> float:
    """Wall time from the first piece done to the last: without the start of the processes."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while done() == 0:
        assert time.monotonic() < deadline, "nothing was done"
        time.sleep(0.005)
    started = time.perf_counter()
    while (so_far := done()) < count:
        assert time.monotonic() < deadline, f"{so_far} of {count} were done"
        time.sleep(0.005)
    return time.perf_counter() - started
