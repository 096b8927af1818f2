import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from models import Account, IdempotencyKey
from tests.api.calls import done, problem
from tests.api.conftest import Caller

KEY = {"Idempotency-Key": "order-17"}


def keys(engine: Engine) -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(IdempotencyKey)) or 0


def at_once(*calls: Callable[[], Response]) -> list[Response]:
    """Make requests from threads that start together."""
    barrier = threading.Barrier(len(calls))

    def call(one: Callable[[], Response]) -> Response:
        barrier.wait()
        return one()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, calls))


def test_a_repeated_request_is_done_once_and_answered_the_same(
    api: TestClient, ada: dict[str, Any]
) -> None:
    body = {"client": ada["id"], "description": "Boxes", "unit_price": "2"}

    first = api.post("/v1/charges", json=body, headers=KEY)
    again = api.post("/v1/charges", json=body, headers=KEY)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert len(api.get("/v1/charges").json()["data"]) == 1


def test_a_repeated_request_is_answered_with_the_same_bytes(
    api: TestClient, ada: dict[str, Any], draft: dict[str, Any]
) -> None:
    charge = {
        "client": ada["id"],
        "description": "Boxes",
        "amount": 1,
        "metadata": {"bb": 1, "a": 2},
    }
    for number, (url, body) in enumerate(
        [
            ("/v1/clients", {"name": "Zoë", "address": {"line1": "1 Dock Street", "city": "Reno"}}),
            ("/v1/charges", charge),
            ("/v1/charges", {"charges": [charge]}),
            ("/v1/queues/billing/pause", {}),
            (f"/v1/invoices/{draft['id']}/finalize", {}),
        ]
    ):
        headers = {"Idempotency-Key": f"k-{number}"}
        first = api.post(url, json=body, headers=headers)
        again = api.post(url, json=body, headers=headers)

        assert first.status_code < 300, first.text
        assert (again.status_code, again.content) == (first.status_code, first.content)


def test_spaces_and_the_order_of_names_make_no_other_request(api: TestClient) -> None:
    headers = {**KEY, "Content-Type": "application/json"}
    first = api.post("/v1/clients", content=b'{"name":"Ada","currency":"usd"}', headers=headers)
    again = api.post(
        "/v1/clients", content=b'{ "currency": "usd", "name": "Ada" }', headers=headers
    )

    assert again.json() == first.json()


def test_a_repeated_command_makes_one_job(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{draft['id']}/finalize"

    first = api.post(url, headers=KEY)
    job = done(engine, api, first)
    again = api.post(url, headers=KEY)

    assert job["state"] == "succeeded"
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["Location"] == first.headers["Location"]


def test_another_request_under_the_same_key_is_refused(api: TestClient) -> None:
    api.post("/v1/clients", json={"name": "Ada"}, headers=KEY)

    other = api.post("/v1/clients", json={"name": "Bob"}, headers=KEY)
    elsewhere = api.post("/v1/billing-runs", json={"name": "Ada"}, headers=KEY)

    problem(other, 422, "idempotency_key_reused")
    problem(elsewhere, 422, "idempotency_key_reused")
    assert len(api.get("/v1/clients").json()["data"]) == 1


def test_two_accounts_may_use_the_same_key(api: TestClient, stranger: TestClient) -> None:
    mine = api.post("/v1/clients", json={"name": "Ada"}, headers=KEY).json()
    theirs = stranger.post("/v1/clients", json={"name": "Ada"}, headers=KEY).json()

    assert mine["id"] != theirs["id"]


@pytest.mark.parametrize(
    ("url", "body", "status"),
    [
        ("/v1/clients", {}, 422),
        ("/v1/clients", {"name": "B", "external_ref": "merchant-17"}, 409),
        ("/v1/invoices/019ae8a3-5c00-7000-8000-000000000001/void", {}, 404),
    ],
)
@pytest.mark.usefixtures("ada")
def test_a_refused_request_leaves_no_key_behind(
    engine: Engine, api: TestClient, url: str, body: dict[str, Any], status: int
) -> None:
    assert api.post(url, json=body, headers=KEY).status_code == status
    assert keys(engine) == 0
    assert api.post("/v1/clients", json={"name": "Right"}, headers=KEY).status_code == 201
    assert keys(engine) == 1


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_of_a_wrong_length_is_refused(api: TestClient, key: str) -> None:
    answer = api.post("/v1/clients", json={"name": "A"}, headers={"Idempotency-Key": key})

    problem(answer, 422, "invalid", "Idempotency-Key")


def test_the_longest_key_is_taken(api: TestClient) -> None:
    headers = {"Idempotency-Key": "k" * 255}

    assert api.post("/v1/clients", json={"name": "A"}, headers=headers).status_code == 201


@pytest.mark.parametrize("attempt", range(5))
def test_two_equal_requests_at_once_are_done_once(
    api: TestClient, caller: Caller, attempt: int
) -> None:
    other, body = caller(), {"name": f"Client {attempt}"}

    first, second = at_once(
        lambda: api.post("/v1/clients", json=body, headers=KEY),
        lambda: other.post("/v1/clients", json=body, headers=KEY),
    )

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert first.headers["Location"] == second.headers["Location"]
    assert len(api.get("/v1/clients").json()["data"]) == 1


def test_of_two_different_requests_at_once_one_is_refused(api: TestClient, caller: Caller) -> None:
    other = caller()

    answers = at_once(
        lambda: api.post("/v1/clients", json={"name": "Ada"}, headers=KEY),
        lambda: other.post("/v1/clients", json={"name": "Bob"}, headers=KEY),
    )

    assert sorted(answer.status_code for answer in answers) == [201, 422]
    assert len(api.get("/v1/clients").json()["data"]) == 1


def test_a_request_that_waits_for_one_that_fails_is_done_itself(
    engine: Engine, account: Account, api: TestClient
) -> None:
    with Session(engine) as session, session.begin() as transaction:
        session.add(IdempotencyKey(account_id=account.id, key=KEY["Idempotency-Key"],
                                   request_sha256="unfinished"))  # fmt: skip
        session.flush()
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(api.post, "/v1/clients", json={"name": "Ada"}, headers=KEY)
            assert not waiting.done()
            transaction.rollback()
            assert waiting.result().status_code == 201
