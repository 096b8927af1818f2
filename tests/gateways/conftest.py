"""A local SendGrid for the session, and someone who listens to its events."""

import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typing_extensions import override

from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox


@dataclass(frozen=True, slots=True)
class Posted:
    """One request that a webhook got."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Listener:
    """A webhook's end: keeps what is posted, answers ``statuses`` in turn, then 204."""

    url: str = ""
    posted: list[Posted] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)


@pytest.fixture(scope="session")
def sendgrid() -> Iterator[SendGridSandbox]:
    with (
        tempfile.TemporaryDirectory(prefix="due course ") as directory,
        SendGridSandbox(Path(directory) / "sendgrid") as sandbox,
    ):
        yield sandbox


@pytest.fixture
def sendgrid_control(sendgrid: SendGridSandbox) -> Iterator[SendGridControl]:
    """The session's SendGrid with no fault in line; other tests' mails may be in it."""
    control = sendgrid.control()
    control.clear_faults()
    yield control
    control.clear_faults()
    control.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    heard = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.posted.append(Posted(dict(self.headers), body))
            self.send_response(heard.statuses.pop(0) if heard.statuses else 204)
            self.end_headers()

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    heard.url = f"http://127.0.0.1:{server.server_port}/webhooks/sendgrid"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield heard
    server.shutdown()
    thread.join()
    server.server_close()
