"""Child processes that cannot outlive us, and locks that say whose a directory is."""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from billing.errors import DuecourseError

LOCK_POLL_SECONDS = 0.02

_BARE = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_PR_SET_PDEATHSIG = 1
_IS_LINUX = sys.platform.startswith("linux")
# Looked up here: between fork and exec only the call itself may happen.
_prctl = ctypes.CDLL(None).prctl if _IS_LINUX else None


class LocalServerError(DuecourseError):
    """A local server could not start or stop. The message says what failed and what it logged."""


@dataclass(frozen=True, slots=True)
class SystemUser:
    """Who a child runs as, when that is not who we are."""

    uid: int
    gid: int


def spawn(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    output: BinaryIO,
    lock: int,
    death_signal: signal.Signals,
    user: SystemUser | None = None,
    environment: Mapping[str, str] = _BARE,
) -> subprocess.Popen[bytes]:
    """Start a child in its own session, so that a terminal's Ctrl-C reaches only us.

    Args:
        output: Where its standard output and error go.
        lock: A descriptor from ``hold``, which the child and all its children keep: the lock is
            free again when the last of them is gone, however they ended.
        death_signal: What the kernel sends the child if we die first. Linux only: elsewhere a
            child survives a ``kill -9`` of its owner, and its lock keeps others out.
        user: Who it runs as; we ourselves when ``None``.
        environment: All of its environment variables.

    Raises:
        LocalServerError: The command cannot be run, or we are not in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        # The kernel takes the end of the spawning thread for the end of the parent.
        raise LocalServerError(f"{command[0]} must be started from the main thread")
    with _fork_while_threads_run():
        try:
            return subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),
                start_new_session=True,
                umask=0o077,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
                preexec_fn=_dying_with_us(death_signal),  # noqa: PLW1509 - one system call, looked up before.
            )
        except OSError as error:
            raise LocalServerError(f"cannot run {command[0]}: {error.strerror}") from error


def end(process: subprocess.Popen[bytes], *, ask: signal.Signals, limit: float) -> bool:
    """Ask a child to stop, and kill it after ``limit`` seconds. Returns whether it obeyed."""
    process.send_signal(ask)
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def exited(process: subprocess.Popen[bytes], *, within: float) -> bool:
    """Whether the child is gone, waiting up to ``within`` seconds for that."""
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True


def hold(path: Path, *, limit: float = 0.0) -> int | None:
    """Lock the file ``path`` for this process, waiting up to ``limit`` seconds.

    Returns:
        The descriptor that holds the lock until it is closed, by hand or by the end of the
        process; ``None`` when another process has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + limit
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        if time.monotonic() >= deadline:
            os.close(descriptor)
            return None
        time.sleep(LOCK_POLL_SECONDS)


def _dying_with_us(death_signal: signal.Signals) -> Callable[[], None] | None:
    if _prctl is None:
        return None
    parent, prctl = os.getpid(), _prctl

    def in_the_child() -> None:
        prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # It died before the kernel knew what we want.
            os._exit(1)

    return in_the_child


@contextmanager
def _fork_while_threads_run() -> Iterator[None]:
    """Python warns of locks that other threads hold in the child; ours takes none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .*is multi-threaded", DeprecationWarning)
        yield
