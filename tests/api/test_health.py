from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from api.app import create_app
from models.database import connect
from tests.api.calls import problem


@pytest.fixture
def without_database() -> Iterator[TestClient]:
    engine = connect(
        "postgresql+psycopg://nobody@127.0.0.1:1/nothing", process="test", connections=2
    )
    with TestClient(create_app(engine), raise_server_exceptions=False) as client:
        yield client
    engine.dispose()


def test_a_process_lives_whatever_else_is_away(without_database: TestClient) -> None:
    answer = without_database.get("/livez")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_look_without_a_body_is_answered_alike(
    api: TestClient, without_database: TestClient
) -> None:
    assert (api.head("/livez").status_code, api.head("/readyz").status_code) == (200, 200)
    assert without_database.head("/livez").status_code == 200
    assert without_database.head("/readyz").status_code == 503


def test_a_process_is_ready_when_the_schema_is_current(api: TestClient) -> None:
    assert api.get("/readyz").json() == {"status": "ok"}


def test_a_process_without_a_database_is_not_ready(without_database: TestClient) -> None:
    body = problem(without_database.get("/readyz"), 503, "not_ready")

    assert "database does not answer" in body["detail"]


def test_a_process_with_another_schema_is_not_ready(engine: Engine, api: TestClient) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))

    body = problem(api.get("/readyz"), 503, "not_ready")

    assert "duecourse migrate" in body["detail"]


def test_requests_are_refused_for_now_while_the_database_is_away(
    without_database: TestClient,
) -> None:
    headers = {"Authorization": "Bearer dck_0123456789ab_secret"}

    answer = without_database.get("/v1/clients", headers=headers)

    problem(answer, 503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert "127.0.0.1" not in answer.text


def test_metrics_are_away_with_the_database(without_database: TestClient) -> None:
    answer = without_database.get("/metrics")

    assert (answer.status_code, answer.text) == (503, "database away\n")


def test_the_home_page_says_that_the_database_is_away(without_database: TestClient) -> None:
    answer = without_database.get("/")

    assert answer.status_code == 200
    assert "Not ready." in answer.text
