"""A process's row among the living: beaten while it runs, gone when it ends well."""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from uuid import UUID

import structlog
from sqlalchemy import Engine, delete, func, insert, update
from sqlalchemy.exc import SQLAlchemyError

from models import Process

BEAT_EVERY_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Presence(threading.Thread):
    """Tells the database every few seconds that this process lives, and how busy it is."""

    def __init__(
        self,
        engine: Engine,
        kind: str,
        *,
        queues: Sequence[str] = (),
        threads: int = 0,
        busy_threads: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__(name="presence", daemon=True)
        self._engine = engine
        self._row = {
            "kind": kind,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "queues": list(queues),
            "threads": threads,
        }
        self._busy_threads = busy_threads
        self._id: UUID | None = None
        self._stopping = threading.Event()

    def run(self) -> None:
        """Beat until stopped, then take the row away."""
        while True:
            self._beat()
            if self._stopping.wait(BEAT_EVERY_SECONDS):
                break
        self._leave()

    def stop(self) -> None:
        """Take the process off the list, waiting for it no longer than a beat."""
        self._stopping.set()
        self.join(BEAT_EVERY_SECONDS)

    def _beat(self) -> None:
        try:
            with self._engine.begin() as connection:
                alive = {"heartbeat_at": func.now(), "busy_threads": self._busy_threads()}
                beaten = update(Process).where(Process.id == self._id).values(**alive)
                if self._id is None or connection.execute(beaten).rowcount == 0:
                    arrived = insert(Process).values(**self._row, **alive).returning(Process.id)
                    self._id = connection.execute(arrived).scalar_one()
        except SQLAlchemyError as error:
            _log.warning("heartbeat not written", error=str(error))

    def _leave(self) -> None:
        try:
            with self._engine.begin() as connection:
                connection.execute(delete(Process).where(Process.id == self._id))
        except SQLAlchemyError as error:
            _log.warning("left without signing off", error=str(error))
