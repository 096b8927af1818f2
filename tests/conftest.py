"""Real servers for every test: one PostgreSQL and one Redis a session, a database a test."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import psycopg
import pytest
import redis
import structlog
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.redis import EmbeddedRedis
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sealing import Seal
from gateways.sendgrid_mail import SendGridMail
from gateways.stripe_api import StripeApi
from gateways.stripe_cards import StripeCards
from gateways.stripe_checkout import StripeCheckout
from gateways.stripe_records import StripeRecords
from gateways.stripe_saved_cards import StripeSavedCards
from gateways.typst_documents import TypstDocuments
from models import Account
from models.database import connect
from models.schema import migrate
from tasks.accounts import create_account
from tasks.calls import Gateways
from tasks.links import Links
from tests.processes import SECRET_KEY, Stack

MAIL_FROM = "billing@bluebird-prep.example"
STRIPE_KEY = "sk_test_tests"
SENDGRID_KEY = "SG.tests"

_numbers = count(1)

# Its own way to show a traceback, with every variable, takes seconds for each.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


def _memory() -> str | None:
    """A folder in memory where there is room for a few databases: copying them is twice as fast."""
    shared = Path("/dev/shm")  # noqa: S108 - only a parent: the folder made in it has a random name
    if not shared.is_dir() or os.statvfs(shared).f_bavail * os.statvfs(shared).f_frsize < 2**30:
        return None
    return str(shared)


@pytest.fixture(scope="session")
def directory() -> Iterator[Path]:
    """A folder for the session's servers, not under a home that only root may enter."""
    with tempfile.TemporaryDirectory(dir=_memory(), prefix="duecourse-tests-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def server(directory: Path) -> Iterator[str]:
    """The URL of a PostgreSQL whose database ``duecourse`` is migrated, to be copied."""
    with EmbeddedPostgres(directory / "postgres", durable=False) as postgres:
        engine = create_engine(postgres.url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            migrate(connection)
        engine.dispose()
        yield postgres.url


@pytest.fixture
def database_url(server: str) -> Iterator[str]:
    """A database of the test's own."""
    name = f"test_{next(_numbers)}"
    admin_url = server.rpartition("/")[0] + "/postgres"
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE duecourse")
        yield server.rpartition("/")[0] + f"/{name}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections to the test's database."""
    engine = connect(
        database_url.replace("postgresql://", "postgresql+psycopg://"),
        process="test",
        connections=20,
    )
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session whose transaction the test commits where it wants to."""
    with Session(engine, expire_on_commit=False) as session:
        yield session


@pytest.fixture
def account(engine: Engine) -> Account:
    """A committed account: UTC, US dollars, 14 days net."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        return create_account(session, "Bluebird Prep")


@pytest.fixture(scope="session")
def redis_server(directory: Path) -> Iterator[EmbeddedRedis]:
    """One Redis for the tests that need no more than an empty one."""
    with EmbeddedRedis(directory / "redis", append_only=False) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """An empty Redis."""
    url = redis_server.url
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def stack(database_url: str, tmp_path: Path, directory: Path) -> Iterator[Stack]:
    """Real processes on the test's database and a Redis of their own."""
    with (
        tempfile.TemporaryDirectory(dir=directory) as redis_directory,
        EmbeddedRedis(Path(redis_directory) / "redis", append_only=False) as redis_server,
        Stack(database_url, redis_server, logs=tmp_path) as stack,
    ):
        yield stack


@pytest.fixture
def stripe_sandbox(directory: Path) -> Iterator[StripeSandbox]:
    """A local Stripe of the test's own, since what goes wrong and who listens is set for all of it.

    It starts in 0.2 s. Its ``control`` steers it.
    """
    with (
        tempfile.TemporaryDirectory(dir=directory) as path,
        StripeSandbox(Path(path) / "stripe") as sandbox,
    ):
        yield sandbox
        sandbox.kill()  # It takes 0.2 s to stop when asked.


@pytest.fixture
def sendgrid_sandbox(directory: Path) -> Iterator[SendGridSandbox]:
    """A local SendGrid of the test's own, as with Stripe; ``sendgrid_control`` steers it."""
    with (
        tempfile.TemporaryDirectory(dir=directory) as path,
        SendGridSandbox(Path(path) / "sendgrid") as sandbox,
    ):
        yield sandbox
        sandbox.kill()


@pytest.fixture
def sendgrid_control(sendgrid_sandbox: SendGridSandbox) -> Iterator[SendGridControl]:
    """What steers the test's SendGrid, and shows the mails it took."""
    with closing(sendgrid_sandbox.control()) as control:
        yield control


@pytest.fixture
def vendors(stripe_sandbox: StripeSandbox, sendgrid_sandbox: SendGridSandbox) -> Iterator[Gateways]:
    """The real adapters, on the test's own Stripe and SendGrid."""
    with (
        StripeApi(STRIPE_KEY, base_url=stripe_sandbox.url, seal=Seal(SECRET_KEY)) as stripe,
        SendGridMail(SENDGRID_KEY, host=sendgrid_sandbox.url) as mail,
    ):
        yield Gateways(
            cards=StripeCards(stripe),
            checkout=StripeCheckout(stripe),
            saved_cards=StripeSavedCards(stripe),
            payment_records=StripeRecords(stripe),
            links=Links("http://duecourse.example", SECRET_KEY),
            mail=mail,
            mail_sender=MAIL_FROM,
            documents=TypstDocuments(),
        )


@pytest.fixture
def vendor_settings(
    stripe_sandbox: StripeSandbox,
    sendgrid_sandbox: SendGridSandbox,
    sendgrid_control: SendGridControl,
) -> dict[str, str]:
    """The environment in which processes call, and believe, the test's own Stripe and SendGrid.

    Where events go is up to the test: it knows the port of its API.
    """
    secret = "whsec_tests"
    stripe_sandbox.control.set(webhook_secret=secret)
    return {
        "SECRET_KEY": SECRET_KEY,
        "STRIPE_SECRET_KEY": STRIPE_KEY,
        "STRIPE_WEBHOOK_SECRET": secret,
        "STRIPE_API_BASE": stripe_sandbox.url,
        "SENDGRID_API_KEY": SENDGRID_KEY,
        "SENDGRID_WEBHOOK_KEY": sendgrid_control.public_key(),
        "SENDGRID_API_BASE": sendgrid_sandbox.url,
    }
