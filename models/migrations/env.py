"""Runs migrations on the connection or the address it is given."""

from alembic import context
from sqlalchemy import Connection, create_engine

from models import Base
from settings import settings_or_exit


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _migrate(given)
else:
    engine = create_engine(settings_or_exit().database_url)
    with engine.begin() as own:
        _migrate(own)
    engine.dispose()
