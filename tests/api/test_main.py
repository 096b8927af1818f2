import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models import Process
from tests.processes import ROOT, Stack
from tests.waiting import wait_for


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def headed(port: int, path: str) -> bytes:
    """All that HEAD is answered, head and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        lines = [f"HEAD {path} HTTP/1.1", "Host: localhost", "Connection: close", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        return b"".join(iter(lambda: connection.recv(4096), b""))


def answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def web_processes(engine: Engine) -> list[int]:
    with Session(engine) as session:
        return list(session.scalars(select(Process.pid).where(Process.kind == "web")))


def test_the_web_process_serves_signs_on_and_leaves_in_order(stack: Stack, engine: Engine) -> None:
    port = free_port()
    web = stack.start("web", PORT=str(port))

    wait_for(lambda: answers(port, "/readyz"), what="ready")
    wait_for(lambda: web_processes(engine) == [web.pid], what="signed on")
    for path in ("/livez", "/readyz"):
        head, _, body = headed(port, path).partition(b"\r\n\r\n")
        assert (head.split()[1], body) == (b"200", b"")

    web.send_signal(signal.SIGTERM)
    assert web.wait(20) == 0
    assert web_processes(engine) == []


def test_a_port_that_is_taken_ends_the_process_and_its_row(stack: Stack, engine: Engine) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        web = stack.start("web", PORT=str(listener.getsockname()[1]))

        assert web.wait(30) != 0
    assert web_processes(engine) == []


def test_a_missing_setting_ends_the_process_with_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "api.main"],
        cwd=ROOT,
        env={"PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 2
    assert ended.stderr == "duecourse: settings: DATABASE_URL: is not set; REDIS_URL: is not set\n"
