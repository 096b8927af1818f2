"""The sandbox as a child process."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from json import loads
from pathlib import Path
from typing import BinaryIO

from gateways.sandbox.processes import spawn
from gateways.sandbox.server import HOST, LocalServer
from gateways.sandbox.stripe.control import StripeSandboxControl

ANSWER_SECONDS = 1.0
CODE = Path(__file__).resolve().parents[3]


class StripeSandbox(LocalServer):
    """A local Stripe on the loopback interface; ``start`` returns the base URL.

    Every key that begins with ``sk_test_`` is good:
    ``StripeClient("sk_test_local", base_addresses={"api": sandbox.url})``. One that begins with
    ``sk_test_acct_`` is that account's own: ``sk_test_acct_ada_1`` is of ``acct_ada``.

    Args:
        directory: Holds the database and the log; made when missing.
    """

    name = "Stripe"
    stop_signal = signal.SIGTERM
    death_signal = signal.SIGKILL  # What it answered it has written; nothing is left to say.

    @property
    def control(self) -> StripeSandboxControl:
        """Its control side.

        Raises:
            LocalServerError: It was never started.
        """
        return StripeSandboxControl(self.url)

    def _prepare(self, output: BinaryIO, lock: int) -> None:
        """Nothing: the server makes its database itself."""

    def _command(self, port: int) -> Sequence[str | Path]:
        return [
            sys.executable,
            *("-m", "gateways.sandbox.stripe"),
            *("--directory", self.directory),
            *("--port", str(port)),
        ]

    def _spawn(
        self,
        command: Sequence[str | Path],
        output: BinaryIO,
        lock: int,
        *,
        death_signal: signal.Signals | None = None,
    ) -> subprocess.Popen[bytes]:
        # From where our code is: `-m` looks for modules in the working directory first.
        return spawn(
            command,
            cwd=CODE,
            output=output,
            lock=lock,
            death_signal=death_signal or self.death_signal,
        )

    def _answers(self, port: int) -> bool:
        """Ask for its process id, which no other server that took the port would say."""
        connection = HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/_sandbox/health")
            answer = connection.getresponse().read()
            return bool(loads(answer)["pid"] == self.pid)
        except (OSError, HTTPException, ValueError, KeyError, TypeError):
            return False
        finally:
            connection.close()

    def _url(self, port: int) -> str:
        return f"http://{HOST}:{port}"
