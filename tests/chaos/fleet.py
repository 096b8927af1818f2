"""Every process of Duecourse, as an orchestrator runs them: what ends is started again."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
RESTART_AFTER_SECONDS = 0.3
STOPPED_WITHIN_SECONDS = 60.0

HOUSE: Mapping[str, tuple[str, ...]] = {
    "dispatcher": ("workers.dispatcher",),
    "scheduler": ("scheduler.main",),
    "web": ("api.main",),
    "worker": ("workers.main", "--queues", "billing,ops", "--threads", "4"),
    "payments": ("workers.main", "--queues", "payments", "--threads", "4"),
    "mail": ("workers.main", "--queues", "mail", "--threads", "4"),
}
"""Each process's module and arguments, by its line in the Procfile."""

WORKERS = ("worker", "payments", "mail")
TWICE = ("dispatcher", "scheduler", *WORKERS)
"""Of these two run: they must not be in each other's way, and one stands in for the other."""


@dataclass(frozen=True)
class _Armed:
    """What the next process of a kind is started with, once."""

    kind: str
    point: str = "never"
    nth: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


class Fleet:
    """Starts the processes, harms them, and starts again what has ended.

    Attributes:
        commands: What is run, by kind: a module of Duecourse's, or of another house to compare.
        workers: The kinds that run jobs.
        restarts: How often one was started again.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        logs: Path,
        *,
        commands: Mapping[str, tuple[str, ...]] = HOUSE,
        workers: Sequence[str] = WORKERS,
        twice: Sequence[str] = TWICE,
    ) -> None:
        self.commands = commands
        self.workers = workers
        self._twice = twice
        self._environment = {**os.environ, **environment}
        self._logs = logs
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._armed: list[_Armed] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.restarts = 0

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        for kind in self.lines:
            self._start(kind)
        threading.Thread(target=self._tend, name="fleet", daemon=True).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        with self._lock:
            for _, process in self._running:
                _signal_all(process, signal.SIGKILL)
            for _, process in self._running:
                process.wait()

    def replace(self, kind: str, *, point: str = "never", nth: int = 0, **environment: str) -> None:
        """Kill a process; the next of its kind dies at a point, or has another environment."""
        with self._lock:
            self._armed.append(_Armed(kind, point, nth, environment))
        self.kill(kind)

    def release(self, **environment: str) -> None:
        """Deploy another release: every process is asked to end, and started with this besides."""
        with self._lock:
            self._environment |= environment
        for kind in self.lines:
            self.stop(kind)

    @property
    def lines(self) -> Sequence[str]:
        """The kind of each process that runs."""
        return [*self.commands, *self._twice]

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of process there are."""
        return list(self.commands)

    def kill(self, kind: str, *, rng: random.Random | None = None) -> None:
        """End a process as a crash would."""
        _signal_all(self._one(kind, rng), signal.SIGKILL)

    def kill_all(self, kinds: Sequence[str]) -> None:
        """End every process of these kinds at once."""
        with self._lock:
            for kind, process in self._running:
                if kind in kinds:
                    _signal_all(process, signal.SIGKILL)

    def stop(self, kind: str, *, rng: random.Random | None = None) -> float:
        """Ask a process to end, as a deploy does; how many seconds it took."""
        process = self._one(kind, rng)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        while process.poll() is None and time.monotonic() - began < STOPPED_WITHIN_SECONDS:
            time.sleep(0.05)
        return time.monotonic() - began

    def pause(self, kind: str, seconds: float, *, rng: random.Random | None = None) -> None:
        """Stop a process in the middle of whatever it does, and let it go on later."""
        process = self._one(kind, rng)
        _signal_all(process, signal.SIGSTOP)
        time.sleep(seconds)
        _signal_all(process, signal.SIGCONT)

    def _one(self, kind: str, rng: random.Random | None) -> subprocess.Popen[bytes]:
        with self._lock:
            alive = [one for name, one in self._running if name == kind and one.poll() is None]
        if not alive:
            time.sleep(2 * RESTART_AFTER_SECONDS)
            return self._one(kind, rng)
        return alive[0] if rng is None else rng.choice(alive)

    def _start(self, kind: str) -> None:
        armed = next((one for one in self._armed if one.kind == kind), _Armed(kind))
        if armed in self._armed:
            self._armed.remove(armed)
        with (self._logs / f"{kind}.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.chaos.crashing", armed.point, str(armed.nth)),
                    *self.commands[kind],
                ],
                cwd=ROOT,
                env={**self._environment, **armed.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running.append((kind, process))

    def _tend(self) -> None:
        while not self._stopping.wait(RESTART_AFTER_SECONDS):
            with self._lock:
                ended = [one for one in self._running if one[1].poll() is not None]
                for one in ended:
                    self._running.remove(one)
                    self._start(one[0])
                    self.restarts += 1


def _signal_all(process: subprocess.Popen[bytes], number: int) -> None:
    """To the process and its own children, if it has any and has not ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
