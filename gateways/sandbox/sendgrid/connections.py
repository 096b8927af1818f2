"""Connections that can be broken on purpose."""

import asyncio
import secrets
import socket
import struct
from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection:
    """The client's connection, as a request knows it.

    Attributes:
        name: The same for all requests of one connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self.name = secrets.token_hex(4)
        self._transport = transport

    def close(self) -> None:
        """Close it in good order, but with nothing answered."""
        self._transport.abort()

    def reset(self) -> None:
        """Break it: the client sees "connection reset by peer"."""
        peer: socket.socket = self._transport.get_extra_info("socket")
        # Lingering for zero seconds is how TCP is told to send a reset.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class BreakableProtocol(H11Protocol):
    """uvicorn's HTTP, with the connection in each request's state."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # As its parent does.
        super().connection_made(transport)
        self.app_state = {**self.app_state, "connection": Connection(transport)}


def connection_of(request: Request) -> Connection:
    """The connection that a request came over."""
    return cast("Connection", request.state.connection)


class Silence(Response):
    """No answer at all: the connection ends instead."""

    def __init__(self, connection: Connection, *, reset: bool = False) -> None:
        super().__init__()
        self._connection = connection
        self._reset = reset

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._reset:
            self._connection.reset()
        else:
            self._connection.close()
        while (await receive())["type"] != "http.disconnect":
            pass
