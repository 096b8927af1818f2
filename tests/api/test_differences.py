from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from models import Account, Scope
from tests.api.calls import problem
from tests.api.conftest import Caller
from tests.reconciliations import a_difference, a_reconciliation

URL = "/v1/reconciliation-differences"
REASON = {"reason": "Refunded by hand"}


@pytest.fixture
def difference(engine: Engine, account: Account) -> str:
    """A refund made at Stripe's own pages; it stands."""
    a_reconciliation(engine, account)
    return str(a_difference(engine))


def listed(api: TestClient, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(f"{URL}{query}").json()["data"]
    return found


def test_a_difference_is_acknowledged_with_who_when_and_why(
    api: TestClient, difference: str
) -> None:
    answer = api.post(f"{URL}/{difference}/acknowledge", json=REASON)

    assert answer.status_code == 200
    given = answer.json()["acknowledgement"]
    prefix = api.headers["authorization"].split("_")[1]
    assert (given["difference"], given["reason"]) == (difference, "Refunded by hand")
    assert given["acknowledged_by"] == f"api:{prefix}"
    assert given["acknowledged_at"] is not None
    assert (given["withdrawn_by"], given["withdrawn_at"]) == (None, None)
    assert answer.json()["acknowledgements"] == [given]
    assert api.get(f"{URL}/{difference}").json() == answer.json()
    [record] = api.get("/v1/reconciliations").json()["data"]
    [in_record] = api.get(f"/v1/reconciliations/{record['id']}").json()["differences"]
    assert (in_record["id"], in_record["acknowledgement"]) == (difference, given)
    assert api.get("/v1/audit").json()["ok"] is True


def test_a_withdrawn_acknowledgement_stays_on_record(api: TestClient, difference: str) -> None:
    given = api.post(f"{URL}/{difference}/acknowledge", json=REASON).json()["acknowledgement"]

    answer = api.post(f"{URL}/{difference}/withdraw-acknowledgement")

    assert answer.status_code == 200
    assert answer.json()["acknowledgement"] is None
    [before] = answer.json()["acknowledgements"]
    assert before["withdrawn_by"] == given["acknowledged_by"]
    assert before["withdrawn_at"] is not None
    assert {**before, "withdrawn_by": None, "withdrawn_at": None} == given
    [told] = api.get("/v1/audit").json()["differences"]
    assert (told["rule"], told["subject"]) == ("our_record_agrees_with_stripe_s", "re_1")


def test_standing_differences_are_listed_newest_first_and_by_whether_they_are_acknowledged(
    engine: Engine, api: TestClient, difference: str
) -> None:
    other = str(a_difference(engine, "re_2"))
    api.post(f"{URL}/{difference}/acknowledge", json=REASON)

    assert [one["id"] for one in listed(api)] == [other, difference]
    assert [one["id"] for one in listed(api, "?acknowledged=true")] == [difference]
    [left] = listed(api, "?acknowledged=false")
    assert (left["id"], left["acknowledgement"]) == (other, None)
    page = api.get(f"{URL}?limit=1").json()
    assert [one["id"] for one in listed(api, f"?cursor={page['next_cursor']}")] == [difference]

    api.post(f"{URL}/{difference}/withdraw-acknowledgement")
    assert listed(api, "?acknowledged=true") == []


def test_the_same_key_acknowledges_once_and_is_answered_the_same(
    api: TestClient, difference: str
) -> None:
    key = {"Idempotency-Key": "monday"}
    first, again = (
        api.post(f"{URL}/{difference}/acknowledge", json=REASON, headers=key) for _ in range(2)
    )
    assert (first.status_code, first.json()) == (again.status_code, again.json())

    without = api.post(f"{URL}/{difference}/acknowledge", json=REASON)
    problem(without, 409, "difference_already_acknowledged")
    other = api.post(f"{URL}/{difference}/acknowledge", json={"reason": "x"}, headers=key)
    problem(other, 422, "idempotency_key_reused")


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "  "}, {"reason": "x" * 1_001}])
def test_a_reason_is_required(api: TestClient, difference: str, body: dict[str, str]) -> None:
    problem(api.post(f"{URL}/{difference}/acknowledge", json=body), 422, "invalid", "reason")
    assert listed(api, "?acknowledged=true") == []


def test_what_nobody_acknowledged_is_not_withdrawn(api: TestClient, difference: str) -> None:
    answer = api.post(f"{URL}/{difference}/withdraw-acknowledgement")
    problem(answer, 409, "difference_not_acknowledged")


def test_one_that_is_not_there_is_not_found(api: TestClient) -> None:
    for unknown in (uuid4(), "re_1"):
        problem(api.get(f"{URL}/{unknown}"), 404, "difference_not_found")
        answer = api.post(f"{URL}/{unknown}/acknowledge", json=REASON)
        problem(answer, 404, "difference_not_found")


def test_a_key_that_only_reads_acknowledges_nothing(caller: Caller, difference: str) -> None:
    reader = caller(Scope.READ)

    assert len(listed(reader)) == 1
    answer = reader.post(f"{URL}/{difference}/acknowledge", json=REASON)
    problem(answer, 403, "scope_missing")
