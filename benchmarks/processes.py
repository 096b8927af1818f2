"""Real processes, and how long they take."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# Looking costs what is measured some of its time.
LOOK_EVERY_SECONDS = 0.05
LIMIT_SECONDS = 240.0


@contextmanager
def processes(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
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
        yield running
    finally:
        ended(*running)


def ended(*running: subprocess.Popen[bytes]) -> None:
    """Tell processes to end, and wait until they have."""
    for process in running:
        process.terminate()
    for process in running:
        process.wait(30)


def cpu_seconds(process_id: int) -> float | None:
    """How long a process has had a processor; ``None`` where the system does not tell (no /proc)."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return None
    # After the name, which may hold anything: fields 14 and 15 of proc(5) are user's and system's.
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def seconds_until(done: Callable[[], int], count: int) -> float:
    """Wall time from the first piece done to the last: without the start of the processes."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while done() == 0:
        assert time.monotonic() < deadline, "nothing was done"
        time.sleep(0.005)
    started = time.perf_counter()
    while (so_far := done()) < count:
        assert time.monotonic() < deadline, f"{so_far} of {count} were done"
        time.sleep(LOOK_EVERY_SECONDS)
    return time.perf_counter() - started
