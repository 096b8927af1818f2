import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli.main import app
from tasks.calls import Gateways
from tests.worlds import work

HEADER = "client,charged_on,description,quantity,unit_price,currency,external_ref"


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - each command's JSON has a shape of its own.
        return json.loads(self.stdout)


Command = Callable[..., Answer]
Working = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in this process against the test's database, away from any ./var."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "DATABASE_URL": database_url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "DUECOURSE_API_KEY": None,
        "COLUMNS": "200",
    }

    def run(*arguments: str | Path, **environment: str | None) -> Answer:
        result = CliRunner().invoke(
            app, [str(one) for one in arguments], env={**settings, **environment}
        )
        assert "Traceback" not in result.output
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def charges_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of charges under the usual header."""

    def write(*rows: str, header: str = HEADER, name: str = "charges.csv") -> Path:
        path = tmp_path / name
        path.write_bytes("".join(f"{line}\n" for line in (header, *rows)).encode())
        return path

    return write


@pytest.fixture
def working(engine: Engine) -> Working:
    """A block during which jobs of billing and ops are run, by a thread of this process."""
    return lambda: _working(engine, None)


@pytest.fixture
def working_with_vendors(engine: Engine, vendors: Gateways) -> Working:
    """The same for every queue, on the test's own Stripe and SendGrid."""
    return lambda: _working(engine, vendors)


@contextmanager
def _working(engine: Engine, gateways: Gateways | None) -> Iterator[None]:
    stopping = threading.Event()

    def work_on() -> None:
        while not stopping.wait(0.02):
            work(engine, gateways=gateways)

    thread = threading.Thread(target=work_on)
    with capture_logs():  # They would go to the standard output that a command is judged by.
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
