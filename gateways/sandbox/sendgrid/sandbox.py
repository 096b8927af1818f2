"""The local SendGrid as a child process."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import urllib3
from typing_extensions import override

from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.server import HOST, LocalServer

ANSWER_TIMEOUT = urllib3.Timeout(total=1.0)


class SendGridSandbox(LocalServer):
    """SendGrid on the loopback interface. Any key that starts with ``SG.`` opens it.

    ``directory`` holds the mails as files under ``mails/``, the log of requests and the webhook's
    key; all of it outlives a stop, a kill -9 and a start.
    """

    name = "SendGrid"
    stop_signal = signal.SIGTERM
    death_signal = signal.SIGKILL  # What it answered it has committed; nothing is left to say.

    def control(self) -> SendGridControl:
        """A client of the control side; its owner closes it.

        Raises:
            LocalServerError: The server was never started.
        """
        return SendGridControl(self.url)

    @override
    def _prepare(self, output: BinaryIO, lock: int) -> None:
        """Nothing: the server makes what it misses."""

    @override
    def _command(self, port: int) -> Sequence[str | Path]:
        # -P: modules come from where ours are installed, never from the directory it runs in.
        module = ("-P", "-m", "gateways.sandbox.sendgrid")
        return [sys.executable, *module, "--directory", self.directory, "--port", str(port)]

    @override
    def _answers(self, port: int) -> bool:
        """Ask which process answers: another server may have taken the port."""
        with urllib3.PoolManager(retries=False, timeout=ANSWER_TIMEOUT) as pool:
            try:
                answer = pool.request("GET", f"{self._url(port)}/_sandbox/health")
            except urllib3.exceptions.HTTPError:
                return False
            return answer.status == 200 and answer.json() == {"pid": self.pid}

    @override
    def _url(self, port: int) -> str:
        return f"http://{HOST}:{port}"
