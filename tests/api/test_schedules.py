import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.database import database_now
from scheduler.firing import write_schedules
from scheduler.schedules import SCHEDULES
from tasks.calls import Gateways
from tests.api.calls import done, problem


@pytest.fixture(autouse=True)
def _written(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        write_schedules(session, SCHEDULES, now=database_now(session))


def test_schedules_are_listed_by_name(api: TestClient) -> None:
    schedules = api.get("/v1/schedules").json()["data"]

    assert [one["name"] for one in schedules] == sorted(line.name for line in SCHEDULES)
    billing = next(one for one in schedules if one["name"] == "bill-due-periods")
    assert (billing["cron"], billing["kind"]) == ("* * * * *", "start_due_runs")
    assert billing["next_fire_at"].endswith("Z")
    assert billing["paused"] is False


@pytest.mark.parametrize("line", SCHEDULES, ids=lambda line: line.name)
def test_each_schedule_can_be_run_now(engine: Engine, api: TestClient, line: object) -> None:
    name = getattr(line, "name", "")

    # No card is due and no mail waits, so the outside world is not needed.
    job = done(engine, api, api.post(f"/v1/schedules/{name}/run"), Gateways())

    assert job["state"] == "succeeded"
    assert job["kind"] == next(one.kind.name for one in SCHEDULES if one.name == name)


def test_a_schedule_is_paused_once_and_resumed(api: TestClient) -> None:
    paused = api.post("/v1/schedules/prune/pause").json()

    assert (paused["paused"], paused["paused_by"][:4]) == (True, "api:")
    assert api.post("/v1/schedules/prune/pause").json() == paused
    assert api.post("/v1/schedules/prune/resume").json()["paused"] is False


@pytest.mark.parametrize("command", ["run", "pause", "resume"])
def test_an_unknown_schedule_is_not_found(api: TestClient, command: str) -> None:
    for name in ("tea-time", "Tea time", "%00"):
        problem(api.post(f"/v1/schedules/{name}/{command}"), 404, "schedule_not_found")


def test_schedules_are_listed_in_pages_by_name(api: TestClient) -> None:
    everyone = [schedule["name"] for schedule in api.get("/v1/schedules").json()["data"]]

    page = api.get("/v1/schedules?limit=1").json()
    read = [schedule["name"] for schedule in page["data"]]
    while page["next_cursor"] is not None:
        page = api.get(f"/v1/schedules?limit=1&cursor={page['next_cursor']}").json()
        read += [schedule["name"] for schedule in page["data"]]

    assert len(everyone) > 1
    assert read == everyone == sorted(everyone)


@pytest.mark.parametrize("query", ["limit=0", "cursor=zz", "cursor=", "cursor=QUJD", "foo=1"])
def test_a_wrong_parameter_of_the_list_is_refused(api: TestClient, query: str) -> None:
    problem(api.get(f"/v1/schedules?{query}"), 422, "invalid", query.partition("=")[0])


@pytest.mark.parametrize("command", ["run", "pause", "resume"])
def test_a_command_on_a_schedule_takes_no_options(api: TestClient, command: str) -> None:
    url = f"/v1/schedules/prune/{command}"

    problem(api.post(url, json={"reason": "x"}), 422, "invalid", "reason")
    assert api.get("/v1/jobs").json()["data"] == []
    assert api.post(url, json={}).status_code in (200, 202)
