import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from api.answers import canonical, wait_seconds
from tests.waiting import wait_for
from tests.worlds import work


@contextmanager
def worker(engine: Engine, *, after: float = 0.0) -> Iterator[None]:
    """Work in the background until the block is left."""
    stopping = threading.Event()

    def run() -> None:
        stopping.wait(after)
        while not stopping.wait(0.02):
            work(engine)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_a_caller_who_waits_gets_the_finished_job(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    with worker(engine, after=0.2):
        answer = api.post(
            f"/v1/invoices/{draft['id']}/finalize", headers={"Prefer": "respond-async, wait=20"}
        )

    assert answer.status_code == 200
    job = answer.json()
    assert (job["state"], job["result"]) == ("succeeded", {"invoice": draft["id"]})
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert answer.headers["Location"] == job["links"]["self"]


def test_a_caller_who_has_waited_long_enough_gets_the_accepted_job(
    api: TestClient, draft: dict[str, Any]
) -> None:
    began = time.monotonic()

    answer = api.post(f"/v1/invoices/{draft['id']}/finalize", headers={"Prefer": "wait=1"})

    assert 1 <= time.monotonic() - began < 5
    assert (answer.status_code, answer.json()["state"]) == (202, "ready")
    assert answer.headers["Location"] == answer.json()["links"]["self"]


def test_a_caller_who_has_waited_long_enough_sees_how_far_the_job_is(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    def start() -> bool:
        with engine.begin() as connection:
            started = connection.execute(
                text(
                    "UPDATE jobs SET state = 'running', attempt = 1, "
                    "lease_token = gen_random_uuid() WHERE state = 'ready'"
                )
            )
            return started.rowcount == 1

    thread = threading.Thread(target=wait_for, args=[start])
    thread.start()
    answer = api.post(f"/v1/invoices/{draft['id']}/finalize", headers={"Prefer": "wait=1"})
    thread.join()

    assert answer.status_code == 202
    assert (answer.json()["state"], answer.json()["attempt"]) == ("running", 1)
    assert answer.headers["Location"] == answer.json()["links"]["self"]


def test_deleting_a_draft_can_be_waited_for(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    with worker(engine):
        answer = api.delete(f"/v1/invoices/{draft['id']}", headers={"Prefer": "wait=20"})

    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")


def test_a_skipped_job_is_a_finished_one_too(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    url = f"/v1/invoices/{draft['id']}/finalize"
    api.post(url)

    second = api.post(url)
    with worker(engine):
        third = api.delete(f"/v1/invoices/{draft['id']}", headers={"Prefer": "wait=20"})

    assert second.status_code == 202
    assert (third.status_code, third.json()["reason"]) == (200, "invoice_not_draft")


def test_a_waited_for_answer_is_repeated_under_its_key(
    engine: Engine, api: TestClient, draft: dict[str, Any]
) -> None:
    url, key = f"/v1/invoices/{draft['id']}/finalize", {"Idempotency-Key": "k"}

    promised = api.post(url, headers=key)
    with worker(engine):
        waited = api.post(url, headers={**key, "Prefer": "wait=20"})
    again = api.post(url, headers=key)

    assert (promised.status_code, waited.status_code, again.status_code) == (202, 200, 200)
    assert waited.json()["id"] == promised.json()["id"]
    assert again.json() == waited.json()
    assert again.headers["Location"] == promised.headers["Location"]


def test_many_callers_can_wait_while_others_are_served(
    engine: Engine, api: TestClient, ada: dict[str, Any]
) -> None:
    """More wait than there are connections and turns: none may be held while waiting."""
    runs: list[Any] = []

    def run() -> None:
        headers = {"Prefer": "wait=20"}
        runs.append(api.post("/v1/billing-runs", json={"client": ada["id"]}, headers=headers))

    threads = [threading.Thread(target=run) for _ in range(40)]
    for thread in threads:
        thread.start()
    assert api.get(f"/v1/clients/{ada['id']}").status_code == 200
    with worker(engine):
        for thread in threads:
            thread.join()

    assert {run.status_code for run in runs} == {200}
    assert {run.json()["state"] for run in runs} == {"succeeded"}


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("wait=5", 5),
        ("Wait = 5", 5),
        ('wait="5"', 5),
        ("return=minimal, wait=7", 7),
        ("return=minimal;wait=7", 7),
        ("wait=99", 30),
        ("wait=0", 0),
        ("wait=-1", 0),
        ("wait=soon", 0),
        ("await=5", 0),
    ],
)
def test_the_preference_to_wait_is_read_from_its_header(prefer: str | None, seconds: int) -> None:
    assert wait_seconds(prefer) == seconds


def test_only_what_is_no_json_is_compared_as_it_is() -> None:
    assert canonical(b'{"b": 1, "a": [1, 2]}') == canonical(b'{"a":[1,2],"b":1}')
    assert canonical(b'{"a": [2, 1]}') != canonical(b'{"a": [1, 2]}')
    assert canonical(b"") == b""
    assert canonical(b"\xff") == b"\xff"
