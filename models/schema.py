"""The database's schema: bringing it to the newest revision, and knowing where it stands."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

# One migration at a time, whoever starts it: two releases may deploy at once.
_MIGRATION_LOCK = 0x6475_6563


def migrate(connection: Connection) -> str:
    """Upgrade to head inside the caller's transaction; the revision it is then at."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return head()


def head() -> str:
    """The newest revision this code knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    if revision is None:
        raise AssertionError("the migrations folder has no revision")
    return revision


def is_current(connection: Connection) -> bool:
    """Whether the database is at the revision this code was written for."""
    return MigrationContext.configure(connection).get_current_revision() == head()


def _config() -> Config:
    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).parent / "migrations").replace("%", "%%")
    )
    return config
