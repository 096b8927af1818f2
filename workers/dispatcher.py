"""The dispatcher: moves ready jobs from PostgreSQL to Redis, a bounded window at a time.

Any number may run. Run one with ``python -m workers.dispatcher``.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import dramatiq
import psycopg
import redis
import structlog
from dramatiq.common import current_millis
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from models import job_ledger
from models.database import connect
from models.job_ledger import NOTIFY_CHANNEL, Bell
from settings import settings_or_exit
from workers.broker import DoorbellBroker, build_broker
from workers.logs import configure_logging
from workers.presence import Presence
from workers.stopping import stop_on_signals

SWEEP_EVERY_SECONDS = 1.0
# With a full window the next look comes soon: waiting a whole poll would cap the queue's speed
# at one window a poll. While nothing moves, as without workers, each look waits twice as long.
FULL_WINDOW_PAUSE_SECONDS = 0.01
# So long nothing is listened to then. Where much is being done, each piece of it rings for more.
DEAF_AT_MOST_SECONDS = 0.02
AFTER_ERROR_PAUSE_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Decides in SQL what runs next, and rings for it.

    ``window`` is how many messages may be outstanding per queue: few, so that order, fairness
    between accounts and a pause are decided late, and a full Redis never holds the backlog.
    """

    def __init__(
        self, engine: Engine, broker: DoorbellBroker, *, window: int, poll_seconds: float
    ) -> None:
        self._engine = engine
        self._broker = broker
        self._window = window
        self._poll_seconds = poll_seconds
        self._full_window_pause = FULL_WINDOW_PAUSE_SECONDS
        self._is_full = False
        self._swept_at = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Dispatch until ``stopping``; outlive every outage of either server."""
        doorbell: psycopg.Connection | None = None
        while not stopping.is_set():
            try:
                doorbell = doorbell or self._listen()
                pause = self.step()
                if self._is_full:
                    stopping.wait(min(pause, DEAF_AT_MOST_SECONDS))
                    pause -= DEAF_AT_MOST_SECONDS
                if pause > 0:
                    for _ in doorbell.notifies(timeout=pause, stop_after=1):
                        pass
            except (SQLAlchemyError, psycopg.Error, redis.RedisError) as error:
                _log.warning("dispatching interrupted", error=str(error).split("\n", 1)[0])
                if doorbell is not None:
                    with suppress(psycopg.Error):
                        doorbell.close()
                    doorbell = None
                stopping.wait(AFTER_ERROR_PAUSE_SECONDS)
        if doorbell is not None:
            doorbell.close()

    def step(self) -> float:
        """One look at everything; the seconds to wait before the next one is worth it."""
        if time.monotonic() - self._swept_at >= SWEEP_EVERY_SECONDS:
            self._sweep()
            self._swept_at = time.monotonic()
        with self._engine.begin() as connection:
            promoted = job_ledger.promote_due(connection)
            queues = job_ledger.queues_with_ready(connection)
        self._is_full, moved = False, promoted > 0
        for queue in queues:
            with self._engine.begin() as connection:
                bells = job_ledger.dispatch(connection, queue, self._window)
            if bells is None:
                self._is_full = True
            elif bells:
                self._ring(bells)
                moved = True
        if moved:
            self._full_window_pause = FULL_WINDOW_PAUSE_SECONDS
        if not self._is_full:
            return 0.0 if moved else self._poll_seconds
        pause = self._full_window_pause
        self._full_window_pause = min(2 * pause, self._poll_seconds)
        return pause

    def _sweep(self) -> None:
        with self._engine.begin() as connection:
            rescued = job_ledger.rescue_expired(connection)
            lost = job_ledger.redispatch_lost(connection)
        if rescued:
            _log.warning("jobs rescued from expired leases", jobs=rescued)
        if lost:
            _log.warning("jobs dispatched and never started, sent again", jobs=len(lost))
            self._ring(lost, again=True)

    def _ring(self, bells: Sequence[Bell], *, again: bool = False) -> None:
        try:
            self._broker.ring((_message(bell) for bell in bells), again=again)
        except redis.RedisError:
            with self._engine.begin() as connection:
                job_ledger.withdraw(connection, bells)
            raise

    def _listen(self) -> psycopg.Connection:
        """A connection that hears of new jobs. A hint only: polling finds what it misses."""
        url = self._engine.url.set(drivername="postgresql")
        connection = psycopg.connect(
            url.render_as_string(hide_password=False), autocommit=True, connect_timeout=5
        )
        connection.execute(f"LISTEN {NOTIFY_CHANNEL}")  # A constant name, which takes no parameter.
        return connection


def _message(bell: Bell) -> dramatiq.Message[Any]:
    """What goes over Redis: the job's id, as the message's id too.

    Redis keeps it under an id that changes with every run of the job: a worker that is about to
    acknowledge the last one must not take this one away.
    """
    job_id = str(bell.job_id)
    after = bell.started_at.timestamp() if bell.started_at else 0
    return dramatiq.Message(
        queue_name=bell.queue,
        actor_name=bell.kind,
        args=(),
        kwargs={"job_id": job_id},
        options={"redis_message_id": f"{job_id}:{after}"},
        message_id=job_id,
        message_timestamp=current_millis(),
    )


def main() -> None:
    """Run a dispatcher process until it is told to stop."""
    settings = settings_or_exit()
    configure_logging(settings.log_level, process="dispatcher")
    stopping = stop_on_signals()
    engine = connect(settings.database_url, process="dispatcher", connections=3)
    presence = Presence(engine, "dispatcher")
    presence.start()
    _log.info("dispatcher started", window=settings.dispatch_window)
    Dispatcher(
        engine,
        build_broker(settings.redis_url),
        window=settings.dispatch_window,
        poll_seconds=settings.poll_seconds,
    ).run(stopping)
    presence.stop()
    engine.dispose()
    _log.info("dispatcher stopped")


if __name__ == "__main__":
    main()
