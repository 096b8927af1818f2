from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, select

from models import Job
from models.cursors import UndescribedCursor


@pytest.fixture
def cursor(engine: Engine) -> Iterator[psycopg.Cursor[Any]]:
    with engine.connect() as connection:
        cursor: object = connection.connection.cursor()
        assert isinstance(cursor, UndescribedCursor)
        yield cursor


def test_it_describes_an_answer_as_the_driver_itself_does(cursor: psycopg.Cursor[Any]) -> None:
    ask = "SELECT 1::int AS first, 'b'::text AS second, now() AS third"
    own = psycopg.Cursor(cursor.connection).execute(ask).description
    assert own is not None

    described = cursor.execute(ask).description

    assert described is not None
    assert len(described) == 3
    assert [tuple(column) for column in described] == [tuple(column) for column in own]
    assert described[0].name == "first"
    assert [column.name for column in described[-2:]] == ["second", "third"]


def test_a_statement_without_rows_has_no_description(cursor: psycopg.Cursor[Any]) -> None:
    assert cursor.description is None
    assert cursor.execute("SET application_name TO 'test'").description is None
    assert cursor.execute("SELECT").description == []


def test_a_statement_that_is_run_again_describes_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = select(Job.kind, Job.state)
    with engine.connect() as connection:
        connection.execute(statement)
        monkeypatch.setattr(psycopg.Cursor, "description", property(lambda _: pytest.fail("asked")))
        connection.execute(statement)


def test_columns_that_change_their_place_are_still_found_by_name(engine: Engine) -> None:
    with engine.begin() as connection:
        for columns in ("1 AS a, 2 AS b", "2 AS b, 1 AS a"):
            row = connection.exec_driver_sql(f"SELECT {columns}").one()
            assert (row.a, row.b) == (1, 2)
