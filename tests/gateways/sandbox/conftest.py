import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108 - a disk in memory, where there is one with room.
ROOM_BYTES = 1_000_000_000
LIMIT_SECONDS = 20.0


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory with a space in its name, and nobody but its owner let in.

    Not ``tmp_path``: another run of pytest would close its parents again while a server that is
    another user starts in it.
    """
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    with tempfile.TemporaryDirectory(
        prefix="due course ",
        dir=MEMORY if in_memory else None,
        ignore_cleanup_errors=True,
    ) as path:
        yield Path(path)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        deadline = monotonic() + LIMIT_SECONDS
        while not condition():
            assert monotonic() < deadline, f"not so after {LIMIT_SECONDS:.0f} s"
            sleep(0.01)

    return wait
