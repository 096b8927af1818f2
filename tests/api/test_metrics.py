from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models import Process, Schedule, ScheduleFire
from tests.api.conftest import Finish, PutCard

Samples = dict[tuple[str, str], float]


def scrape(app: FastAPI) -> Samples:
    """Each sample by its name and its labels' values; read without any key."""
    with TestClient(app) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name.removeprefix("duecourse_"), " ".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_every_queue_and_state_is_there_from_the_start(app: FastAPI) -> None:
    samples = scrape(app)

    for queue in ("billing", "mail", "ops", "payments"):
        for state in ("scheduled", "ready", "dispatched", "running", "failed", "dead"):
            assert samples["jobs", f"{queue} {state}"] == 0
        assert samples["queue_oldest_ready_age_seconds", queue] == 0
        assert samples["queue_paused", queue] == 0
    assert samples["dispatch_lag_seconds", ""] == 0
    assert samples["worker_threads", ""] == samples["worker_busy_threads", ""] == 0
    for stage in ("due", "drafted", "billed", "empty", "held", "skipped", "failed"):
        assert samples["billing_run_periods", stage] == 0
    for state in ("pending", "processing", "unknown", "needs_action"):
        assert samples["payment_attempts", state] == 0


def test_waiting_work_shows_as_depth_and_age(
    app: FastAPI, api: TestClient, charge: dict[str, Any]
) -> None:
    api.post("/v1/invoices", json={"client": charge["client"]})

    samples = scrape(app)

    assert samples["jobs", "billing ready"] == 1
    assert samples["queue_oldest_ready_age_seconds", "billing"] > 0
    assert samples["dispatch_lag_seconds", ""] > 0


def test_a_paused_queue_shows_and_delays_nobodys_dispatch(
    app: FastAPI, api: TestClient, charge: dict[str, Any]
) -> None:
    api.post("/v1/queues/billing/pause")
    api.post("/v1/invoices", json={"client": charge["client"]})

    samples = scrape(app)

    assert samples["queue_paused", "billing"] == 1
    assert samples["dispatch_lag_seconds", ""] == 0


def test_processes_show_their_heartbeats_and_threads(app: FastAPI, engine: Engine) -> None:
    now = datetime.now(UTC)
    fresh: dict[str, Any] = {"host": "h", "heartbeat_at": now, "threads": 8, "busy_threads": 3}
    with Session(engine) as session, session.begin():
        session.add_all(
            [
                Process(kind="worker", pid=1, **fresh),
                Process(kind="worker", pid=2, **fresh),
                Process(
                    kind="worker", pid=3, **{**fresh, "heartbeat_at": now - timedelta(hours=1)}
                ),
                Process(kind="scheduler", pid=4, **fresh),
            ]
        )

    samples = scrape(app)

    assert samples["worker_threads", ""] == 16
    assert samples["worker_busy_threads", ""] == 6
    assert samples["worker_last_heartbeat_timestamp_seconds", "h:1"] == pytest.approx(
        now.timestamp()
    )
    assert samples["worker_last_heartbeat_timestamp_seconds", "h:3"] < now.timestamp() - 3000
    assert samples["scheduler_last_tick_timestamp_seconds", ""] == pytest.approx(now.timestamp())


def test_charges_without_an_outcome_show_by_their_state(
    app: FastAPI, api: TestClient, invoice: dict[str, Any], put_card: PutCard, finish: Finish
) -> None:
    put_card(invoice["client"], "pm_usBankAccount_processing")
    finish(api.post(f"/v1/invoices/{invoice['id']}/charge"))

    samples = scrape(app)

    assert samples["payment_attempts", "processing"] == 1
    assert samples["payment_attempts", "unknown"] == 0


def test_schedules_show_how_late_they_are_and_what_they_missed(
    app: FastAPI, engine: Engine
) -> None:
    now = datetime.now(UTC)
    line = {"cron": "* * * * *", "time_zone": "UTC", "kind": "prune", "description": ""}
    with Session(engine) as session, session.begin():
        late = now - timedelta(minutes=5)
        session.add_all(
            [
                Schedule(name="late", next_fire_at=late, **line),
                Schedule(name="paused", next_fire_at=late, paused_at=now, **line),
                Schedule(name="ahead", next_fire_at=now + timedelta(minutes=5), **line),
            ]
        )
        session.flush()
        for missed in (2, 3):
            fire_at = now - timedelta(days=missed)
            session.add(
                ScheduleFire(schedule="late", fire_at=fire_at, job_id=uuid4(), missed=missed)
            )

    samples = scrape(app)

    assert 299 < samples["schedule_lag_seconds", "late"] < 360
    assert samples["schedule_lag_seconds", "paused"] == 0
    assert samples["schedule_lag_seconds", "ahead"] == 0
    assert samples["schedule_missed_total", "late"] == 5
    assert samples["schedule_missed_total", "ahead"] == 0
