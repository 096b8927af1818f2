"""The web process: ``python -m api.main``."""

import logging
import sys

import structlog
import uvicorn

from api.app import CONCURRENT_REQUESTS, create_app
from api.webhooks import EventReaders
from gateways.sealing import Seal
from gateways.sendgrid_events import SendGridEvents
from gateways.stripe_events import StripeEvents
from models.database import connect
from settings import Settings, settings_or_exit
from tasks.links import Links
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
            create_app(
                engine,
                event_readers=event_readers(settings),
                links=links(settings),
                seal=seal(settings),
            ),
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


def links(settings: Settings) -> Links:
    """Makes and reads what clients are sent; ends the process with one line without the secret."""
    return Links(settings.public_url, _secret_key(settings))


def seal(settings: Settings) -> Seal:
    """Seals what accounts entrust to us; ends the process with one line without the secret."""
    return Seal(_secret_key(settings))


def _secret_key(settings: Settings) -> str:
    if settings.secret_key is None:
        sys.stderr.write(
            "duecourse: settings: SECRET_KEY: is not set, and links are signed with it\n"
        )
        raise SystemExit(2)
    return settings.secret_key.get_secret_value()


def event_readers(settings: Settings) -> EventReaders:
    """What verifies the vendors' webhooks, as far as the settings say how.

    Ends the process with one line when SendGrid's key is no key.
    """
    secret, key = settings.stripe_webhook_secret, settings.sendgrid_webhook_key
    try:
        mails = None if key is None else SendGridEvents(key)
    except ValueError:
        sys.stderr.write(
            "duecourse: settings: SENDGRID_WEBHOOK_KEY: is not the verification key that SendGrid "
            "shows\n"
        )
        raise SystemExit(2) from None
    payments = None if secret is None else StripeEvents(*secret.get_secret_value().split(","))
    return EventReaders(payments=payments, mails=mails)


if __name__ == "__main__":
    main()
