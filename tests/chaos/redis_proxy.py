"""A way to Redis on which an answer can get lost, and a black hole open."""

import contextlib
import socket
import threading
from typing import Self

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536


class RedisProxy:
    """Passes bytes between clients and a Redis, but for those it was told to lose.

    ``port`` is where clients connect.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._listening = socket.create_server((HOST, 0))
        self.port: int = self._listening.getsockname()[1]
        self._lock = threading.Lock()
        self._answers_to_lose = 0
        self.lost = 0
        self._open = threading.Event()
        self._open.set()
        self._connections: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="redis proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()
        self._listening.close()
        self.cut()

    def lose_answers(self, answers: int) -> None:
        """Let the next answers vanish, and the connections that waited for them end."""
        with self._lock:
            self._answers_to_lose += answers

    def stall(self) -> None:
        """Pass nothing any more; connections stay open."""
        self._open.clear()

    def resume(self) -> None:
        """Pass again."""
        self._open.set()

    def cut(self) -> None:
        """End every connection."""
        with self._lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((HOST, self._upstream_port), timeout=2)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._connections |= {client, server}
            for source, target, is_answer in ((client, server, False), (server, client, True)):
                threading.Thread(
                    target=self._pass, args=(source, target, is_answer), daemon=True
                ).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:  # noqa: FBT001 - a thread's argument
        try:
            while chunk := source.recv(CHUNK_BYTES):
                self._open.wait()
                if is_answer and self._loses_this():
                    break
                target.sendall(chunk)
        except OSError:
            pass
        finally:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _loses_this(self) -> bool:
        with self._lock:
            if self._answers_to_lose == 0:
                return False
            self._answers_to_lose -= 1
            self.lost += 1
            return True
