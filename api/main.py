"""The web process: ``python -m api.main``."""

import logging

import structlog
import uvicorn

from api.app import CONCURRENT_REQUESTS, create_app
from models.database import connect
from settings import settings_or_exit
from workers.logs import configure_logging
from workers.presence import Presence
from workers.stopping import stop_on_signals

# For health, metrics, the heartbeat, and the looks of those who wait for a job.
OTHER_CONNECTIONS = 6

_log = structlog.get_logger(__name__)


def main() -> None:
    """Serve until told to stop, then finish what is under way."""
    settings = settings_or_exit()
    configure_logging(settings.log_level, process="web")
    # It tells at every look at the schema which dialect it found.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # uvicorn repeats the signal that ended it, which would end the process before it signs off.
    stop_on_signals()
    engine = connect(
        settings.database_url, process="web", connections=CONCURRENT_REQUESTS + OTHER_CONNECTIONS
    )
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(engine),
            host=settings.host,
            port=settings.port,
            log_config=None,
            log_level=settings.log_level.lower(),
            server_header=False,
            timeout_graceful_shutdown=int(settings.drain_seconds),
        )
    )
    presence = Presence(engine, "web")
    presence.start()
    _log.info("web started", host=settings.host, port=settings.port)
    try:
        server.run()
    finally:
        presence.stop()
    _log.info("web stopped")


if __name__ == "__main__":
    main()
