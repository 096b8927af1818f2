"""``python -m gateways.sandbox.stripe --directory D --port P``: serve until told to stop."""

import argparse
import socket
import sys
from pathlib import Path

import uvicorn

from gateways.sandbox.server import HOST
from gateways.sandbox.stripe.application import application
from gateways.sandbox.stripe.connections import Connection

BACKLOG = 1024
LAST_ANSWERS_SECONDS = 2


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m gateways.sandbox.stripe", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="where its data is")
    parser.add_argument("--port", type=int, required=True, help=f"where it listens, on {HOST}")
    arguments = parser.parse_args()
    # Named as TCP, or asyncio leaves Nagle's algorithm on and each answer waits 40 ms for an ack.
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, arguments.port))
        except OSError as error:
            sys.exit(f"cannot listen on {HOST}:{arguments.port}: {error}")
        arguments.directory.mkdir(parents=True, exist_ok=True)
        config = uvicorn.Config(
            application(arguments.directory),
            http=Connection,
            ws="none",
            loop="asyncio",
            backlog=BACKLOG,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
