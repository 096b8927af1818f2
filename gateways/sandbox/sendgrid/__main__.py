"""Serve: ``python -m gateways.sandbox.sendgrid --directory var/sendgrid --port 8026``."""

import argparse
import socket
from pathlib import Path

import uvicorn

from gateways.sandbox.sendgrid.app import create_app
from gateways.sandbox.sendgrid.connections import BreakableProtocol
from gateways.sandbox.server import HOST

BACKLOG = 512
DRAIN_SECONDS = 1


def main() -> None:
    """Serve on the loopback interface until stopped."""
    parser = argparse.ArgumentParser(prog="python -m gateways.sandbox.sendgrid")
    parser.add_argument("--directory", type=Path, required=True, help="where mails are kept")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    # Bound here, before anything is opened: a taken port must leave the directory alone.
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, arguments.port))
        listener.listen(BACKLOG)
        arguments.directory.mkdir(parents=True, exist_ok=True)
        config = uvicorn.Config(
            create_app(arguments.directory),
            http=BreakableProtocol,
            ws="none",
            access_log=False,
            log_level="warning",
            # A client in a hanging send must not keep us from stopping.
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
