from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Engine, inspect, text

from models import Base, schema
from models.schema import head, is_current, migrate
from tests.worlds import together


def test_the_migrated_schema_is_what_the_models_say(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})

        assert compare_metadata(context, Base.metadata) == []


def test_every_check_of_the_models_is_in_the_database(engine: Engine) -> None:
    inspector = inspect(engine)
    for table in Base.metadata.sorted_tables:
        wanted = {
            str(constraint.name)
            for constraint in table.constraints
            if isinstance(constraint, CheckConstraint)
        }
        found = {one["name"] for one in inspector.get_check_constraints(table.name)}
        assert found == wanted, table.name


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    dump = "SELECT oid, relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    with engine.begin() as connection:
        before = connection.execute(text(dump)).all()

        assert migrate(connection) == head()

        assert connection.execute(text(dump)).all() == before
        assert is_current(connection)


def test_two_migrations_at_once_make_one_schema(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        assert not is_current(connection)

    def deploy() -> str:
        with engine.begin() as connection:
            return migrate(connection)

    assert together(deploy, deploy) == [head()] * 2
    with engine.connect() as connection:
        assert is_current(connection)


def test_a_migration_that_fails_leaves_nothing_behind(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
        connection.execute(text("CREATE TABLE ledger_postings ()"))

    with pytest.raises(Exception, match="ledger_postings"), engine.begin() as connection:
        migrate(connection)

    assert inspect(engine).get_table_names() == ["ledger_postings"]


def test_there_is_one_newest_revision() -> None:
    folder = Path(schema.__file__).parent / "migrations"

    assert ScriptDirectory(str(folder)).get_heads() == [head()]
