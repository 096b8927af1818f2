"""The scheduler process: ``python -m scheduler.main``. Safe to run twice."""

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from models.database import connect, database_now
from scheduler.firing import fire_due, write_schedules
from scheduler.schedules import SCHEDULES
from settings import settings_or_exit
from workers.logs import configure_logging
from workers.presence import Presence
from workers.stopping import stop_on_signals

TICK_SECONDS = 1.0

_log = structlog.get_logger(__name__)


def main() -> None:
    """Tick once a second until told to stop; outlive every outage of the database."""
    settings = settings_or_exit()
    configure_logging(settings.log_level, process="scheduler")
    stopping = stop_on_signals()
    engine = connect(settings.database_url, process="scheduler", connections=2)
    presence = Presence(engine, "scheduler")
    presence.start()
    lines = {line.name: line for line in SCHEDULES}
    written = False
    _log.info("scheduler started", schedules=sorted(lines))
    while not stopping.is_set():
        try:
            with Session(engine) as session, session.begin():
                now = database_now(session)
                if not written:
                    write_schedules(session, SCHEDULES, now=now)
                fired = fire_due(session, lines, now=now)
            written = True
            if fired:
                _log.info("schedules fired", fired=fired)
        except SQLAlchemyError as error:
            _log.warning("tick failed", error=str(error).split("\n", 1)[0])
        stopping.wait(TICK_SECONDS)
    presence.stop()
    engine.dispose()
    _log.info("scheduler stopped")


if __name__ == "__main__":
    main()
