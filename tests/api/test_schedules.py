import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.database import database_now
from scheduler.firing import write_schedules
from scheduler.schedules import SCHEDULES
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

    job = done(engine, api, api.post(f"/v1/schedules/{name}/run"))

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
