"""A primary, its replica, and three sentinels that watch them: real servers on this machine."""

import contextlib
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from gateways.sandbox.redis import program
from gateways.sandbox.server import HOST, free_port

NAME = "duecourse"
# A sentinel asks a primary for its replicas every ten seconds.
START_SECONDS = 60.0


class Sentinels:
    """Started with the block and killed at its end. ``url`` is what Duecourse is given."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.primary_port, self._replica_port = free_port(), free_port()
        self._sentinel_ports = [free_port() for _ in range(3)]
        hosts = ",".join(f"{HOST}:{port}" for port in self._sentinel_ports)
        self.url = f"redis+sentinel://{hosts}/{NAME}/0"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def _start(self) -> None:
        self._serve(self.primary_port, ["save", '""'])
        self._serve(self._replica_port, ["save", '""', "replicaof", f"{HOST} {self.primary_port}"])
        for port in self._sentinel_ports:
            self._serve(port, self._watching())
        deadline = time.monotonic() + START_SECONDS
        while not self._all_know_each_other():
            if time.monotonic() > deadline:
                raise AssertionError("the sentinels did not find each other")
            time.sleep(0.05)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    def kill_primary(self) -> None:
        """End the primary as a crash would: the sentinels make the replica one."""
        self._processes[self.primary_port].kill()

    def new_primary_port(self) -> int:
        """Which server the sentinels call the primary."""
        with contextlib.closing(redis.Redis(HOST, self._sentinel_ports[0])) as sentinel:
            address: Any = sentinel.sentinel_get_master_addr_by_name(NAME)
            return int(address[1])

    def _watching(self) -> list[str]:
        return [
            *("sentinel monitor", f"{NAME} {HOST} {self.primary_port} 2"),
            *("sentinel down-after-milliseconds", f"{NAME} 500"),
            *("sentinel failover-timeout", f"{NAME} 3000"),
        ]

    def _serve(self, port: int, settings: list[str]) -> None:
        file = self._directory / f"{port}.conf"
        pairs = [f"bind {HOST}", f"port {port}", f"dir {self._directory}", "protected-mode no"]
        pairs += [
            f"{name} {value}" for name, value in zip(settings[::2], settings[1::2], strict=True)
        ]
        file.write_text("\n".join(pairs) + "\n")
        role = ["--sentinel"] if any(name.startswith("sentinel") for name in settings) else []
        with (self._directory / f"{port}.log").open("wb") as log:
            self._processes[port] = subprocess.Popen(
                [program(), file, *role], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _all_know_each_other(self) -> bool:
        try:
            for port in self._sentinel_ports:
                with contextlib.closing(redis.Redis(HOST, port)) as sentinel:
                    state: Any = sentinel.sentinel_master(NAME)
                    if state["num-other-sentinels"] != 2 or state["num-slaves"] != 1:
                        return False
        except redis.RedisError:
            return False
        return True
