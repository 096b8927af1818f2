import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from tests.processes import ROOT

PROGRAM = """
import logging, threading, warnings
import structlog
from workers.logs import configure_logging

configure_logging("{level}", process="test")
{program}
"""


def lines_of(program: str, level: str = "INFO") -> list[dict[str, Any]]:
    """What a process with our logs writes to standard error, one system call after another."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (here, there):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    with here:
        with there:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM.format(level=level, program=program)],
                cwd=ROOT,
                stderr=there.fileno(),
            )
        # A packet is one write.
        writes = iter(lambda: here.recv(1_000_000), b"")
        lines = [json.loads(write) for write in writes]
        process.wait(20)
    return lines


def test_a_line_is_one_json_object_with_who_wrote_it_and_when() -> None:
    [line] = lines_of("structlog.get_logger('shop').warning('sold', price=7)")

    assert (line["event"], line["price"], line["level"]) == ("sold", 7, "warning")
    assert (line["logger"], line["process"]) == ("shop", "test")
    assert line["pid"] > 0
    assert line["timestamp"].endswith("Z")


def test_what_is_bound_to_a_run_is_on_its_lines() -> None:
    [line] = lines_of(
        "with structlog.contextvars.bound_contextvars(job='7'): structlog.get_logger().info('x')"
    )
    assert line["job"] == "7"


def test_a_library_s_lines_look_the_same() -> None:
    [line] = lines_of("logging.getLogger('dramatiq.worker').error('gone: %s', 'ops')")

    assert (line["event"], line["level"]) == ("gone: ops", "error")
    assert (line["logger"], line["process"]) == ("dramatiq.worker", "test")


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_the_level_bounds_what_is_written(level: str) -> None:
    program = "\n".join(
        f"structlog.get_logger().{name}('x'); logging.getLogger('y').{name}('x')"
        for name in ("debug", "info", "warning", "error")
    )
    names = ["debug", "info", "warning", "error"]
    wanted = names[names.index(level.lower()) :]
    assert [line["level"] for line in lines_of(program, level)] == [
        name for name in wanted for _ in range(2)
    ]


def test_a_line_is_one_write_however_long_it_is() -> None:
    [line] = lines_of("structlog.get_logger().info('x', text='y' * 100_000)")
    assert len(line["text"]) == 100_000


def test_line_breaks_stay_inside_the_line() -> None:
    program = """
try:
    raise ValueError('two\\nlines')
except ValueError:
    structlog.get_logger().exception('failed')
"""
    [line] = lines_of(program)
    assert "ValueError: two\nlines" in line["exception"]


def test_many_threads_never_mix_their_lines() -> None:
    program = """
def write(n):
    for _ in range(50):
        structlog.get_logger().info('x', n=n, text='y' * 9_000)
threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    lines = lines_of(program)
    assert sorted(line["n"] for line in lines) == sorted(list(range(4)) * 50)
    assert {line["process"] for line in lines} == {"test"}


@pytest.mark.parametrize(
    ("program", "event"),
    [
        ("raise ValueError('nobody caught this')", "uncaught error"),
        (
            "thread = threading.Thread(target=int, args=('nobody caught this',)); thread.start()",
            "uncaught error, a thread died",
        ),
    ],
)
def test_what_nobody_catches_is_a_line_too(program: str, event: str) -> None:
    [line] = lines_of(program)

    assert (line["event"], line["level"]) == (event, "critical")
    assert "nobody caught this" in line["exception"]


def test_a_warning_is_a_line_too() -> None:
    [line] = lines_of("warnings.warn('old ways')")

    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "old ways" in line["event"]


def test_an_error_in_a_finalizer_is_a_line_too() -> None:
    program = """
class Leaky:
    def __del__(self):
        raise ValueError('too late')
Leaky()
"""
    [line] = lines_of(program)
    assert "too late" in line["exception"]
