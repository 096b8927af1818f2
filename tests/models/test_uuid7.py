# ruff: noqa: S608 - the function's name is the test's own.

import importlib.util
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from uuid import RFC_4122, UUID

import pytest
from sqlalchemy import Engine, text

from models import schema

FIRST = Path(schema.__file__).parent / "migrations/versions/0001_the_first_schema.py"


def _first_revision() -> ModuleType:
    spec = importlib.util.spec_from_file_location("first_revision", FIRST)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["this server's", "older servers'"])
def function(request: pytest.FixtureRequest, engine: Engine) -> str:
    """The function that gives ids, and the one that servers before PostgreSQL 18 get."""
    if request.param == "this server's":
        return "uuid7()"
    older = re.search(r"ELSE\s+(CREATE FUNCTION.*?);\s+END IF", _first_revision()._UUID7, re.DOTALL)
    assert older is not None
    with engine.begin() as connection:
        connection.execute(text(older[1].replace("FUNCTION uuid7()", "FUNCTION older_uuid7()")))
    return "older_uuid7()"


def ids(engine: Engine, function: str, count: int) -> list[UUID]:
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT {function} FROM generate_series(1, {count})"))
        return list(rows.scalars())


def test_ids_are_of_version_7_and_differ(engine: Engine, function: str) -> None:
    made = ids(engine, function, 1_000)

    assert {one.version for one in made} == {7}
    assert {one.variant for one in made} == {RFC_4122}
    assert len(set(made)) == 1_000


def test_ids_hold_the_time_they_were_made_at_to_the_millisecond(
    engine: Engine, function: str
) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    made = ids(engine, function, 100)
    after = datetime.now(UTC)

    times = [datetime.fromtimestamp((one.int >> 80) / 1000, UTC) for one in made]
    assert before <= times[0]
    assert times[-1] <= after
    assert times == sorted(times)


def test_ids_of_a_later_millisecond_sort_later(engine: Engine, function: str) -> None:
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                f"SELECT {function} FROM generate_series(1, 5) AS turn,"
                " LATERAL pg_sleep(0.002 + 0 * turn)"
            )
        ).scalars()
        made = list(rows)

    assert made == sorted(made)


def test_two_runs_of_random_bits_are_not_alike(engine: Engine, function: str) -> None:
    tails = {one.int & (2**62 - 1) for one in ids(engine, function, 200)}

    assert len(tails) == 200
