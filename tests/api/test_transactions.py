from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api.app import create_app
from models.database import connect


@pytest.fixture
def narrow(engine: Engine) -> Iterator[TestClient]:
    """A process with two turns on three connections."""
    url = engine.url.render_as_string(hide_password=False)
    few = connect(url, process="test", connections=3)
    with TestClient(create_app(few, concurrent_requests=2)) as client:
        yield client
    few.dispose()


def test_more_requests_than_connections_are_all_served_in_turn(
    narrow: TestClient, api: TestClient
) -> None:
    headers = {"Authorization": api.headers["authorization"]}

    def ask(_number: int) -> int:
        return narrow.get("/v1/account", headers=headers).status_code

    with ThreadPoolExecutor(60) as threads:
        assert set(threads.map(ask, range(120))) == {200}
