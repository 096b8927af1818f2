import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from gateways.sandbox.sendgrid.client import SendGridControl
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


def refusal(port: int, vendor: str) -> tuple[int, str]:
    """Status and code of what an unsigned event is answered."""
    url = f"http://127.0.0.1:{port}/webhooks/{vendor}"
    try:
        urllib.request.urlopen(url, data=b"{}", timeout=5)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)["code"]
    raise AssertionError("an unsigned event was taken")


def test_the_web_process_believes_what_its_settings_can_verify(
    stack: Stack, sendgrid_control: SendGridControl
) -> None:
    port = free_port()
    stack.start("web", PORT=str(port), SENDGRID_WEBHOOK_KEY=sendgrid_control.public_key())

    wait_for(lambda: answers(port, "/readyz"), what="ready")

    assert refusal(port, "sendgrid") == (401, "untrusted_events")
    assert refusal(port, "stripe") == (503, "webhooks_not_configured")


def test_a_key_of_sendgrids_that_is_none_ends_the_process_with_one_line(
    stack: Stack,
) -> None:
    web = stack.start("web", PORT=str(free_port()), SENDGRID_WEBHOOK_KEY="bm8ga2V5IGF0IGFsbA==")

    assert web.wait(30) == 2
    assert stack.logs() == (
        "duecourse: settings: SENDGRID_WEBHOOK_KEY: is not the verification key that SendGrid shows\n"
    )


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
