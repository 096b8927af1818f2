"""Connections that end without an answer, as those of a network that fails."""

import asyncio
import socket
import struct
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

Peer = tuple[str, int]
_CLOSE_AT_ONCE = struct.pack("ii", 1, 0)


class Connection(H11Protocol):
    """A connection that can be found by its peer's address, and reset."""

    _open: ClassVar[dict[Peer, asyncio.Transport]] = {}
    _peer: Peer | None = None

    # As in uvicorn: a transport that can be written to.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember it by its peer."""
        super().connection_made(transport)
        host, port, *_ = transport.get_extra_info("peername")
        self._peer = (host, port)
        self._open[self._peer] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        if self._peer is not None:
            self._open.pop(self._peer, None)
        super().connection_lost(exc)

    @classmethod
    def reset(cls, peer: Peer) -> None:
        """End the peer's connection with a reset, if it is still open."""
        transport = cls._open.get(peer)
        if transport is not None:
            connected: Any = transport.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_AT_ONCE)
            transport.abort()
