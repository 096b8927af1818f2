"""Real servers for every test: one PostgreSQL and one Redis a session, a database a test."""

import os
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.redis import EmbeddedRedis
from models import Account
from models.database import connect
from models.schema import migrate
from tasks.accounts import create_account
from tests.processes import Stack

_numbers = count(1)


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
