from datetime import date
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from models import Account, Job
from tasks.audits import RULES, audit_books
from tasks.enqueueing import enqueue
from tasks.operating import pause_queue
from tests.cli.conftest import Command
from tests.worlds import a_charge, a_client, work


@pytest.fixture
def job(session: Session, account: Account) -> Job:
    """A ready job in the queue for operations."""
    enqueued = enqueue(session, audit_books, account_id=account.id, requested_by="test")
    session.commit()
    return session.get_one(Job, enqueued.id)


def queue(command: Command, name: str) -> dict[str, Any]:
    (found,) = [
        one for one in command("queues", "--json").document["queues"] if one["name"] == name
    ]
    return dict(found)


@pytest.mark.usefixtures("job")
def test_queues_show_depth_age_and_pause(command: Command, session: Session) -> None:
    ops = queue(command, "ops")
    assert ops["jobs"]["ready"] == 1
    assert ops["oldest_ready_age_seconds"] >= 0
    assert ops["paused"] is False
    pause_queue(session, "ops", "Grace")
    session.commit()
    assert (queue(command, "ops")["paused"], queue(command, "ops")["paused_by"]) == (True, "Grace")
    shown = command("queues").stdout
    assert "by Grace" in shown
    assert "billing" in shown


def test_a_watch_has_no_document(command: Command) -> None:
    assert command("queues", "--watch", "--json").code == 2


def test_a_watch_ends_with_ctrl_c(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.queues.time.sleep", press)
    answer = command("queues", "--watch")
    assert answer.code == 0
    assert "billing" in answer.stdout


def test_jobs_are_found_by_state_kind_and_queue(
    command: Command, job: Job, account: Account
) -> None:
    for options in (
        [],
        ["--state", "ready"],
        ["--kind", "audit_books"],
        ["--queue", "ops"],
        ["--account", account.name],
    ):
        found = command("jobs", "list", *options, "--json").document["jobs"]
        assert [one["id"] for one in found] == [str(job.id)]
    for options in (["--state", "dead"], ["--kind", "bill_page"], ["--queue", "billing"]):
        assert command("jobs", "list", *options, "--json").document["jobs"] == []
    assert str(job.id) in command("jobs", "list").stdout
    assert command("jobs", "list", "--state", "lost").code == 2


@pytest.mark.usefixtures("working")
def test_a_job_is_shown_with_its_attempts(command: Command, job: Job, engine: Engine) -> None:
    work(engine)
    report = command("jobs", "show", str(job.id), "--json").document
    assert (report["state"], report["kind"]) == ("succeeded", "audit_books")
    outcomes = [one["outcome"] for one in report["attempts"]]
    assert outcomes == ["awaiting_children", "succeeded"]
    assert [one["kind"] for one in report["children"]] == ["audit_account"]
    shown = command("jobs", "show", str(job.id)).stdout
    assert "succeeded" in shown
    assert "Attempts" in shown


def test_an_unknown_job_is_told(command: Command) -> None:
    answer = command("jobs", "show", str(uuid4()))
    assert answer.code == 1
    assert "no job" in answer.stderr
    assert command("jobs", "show", "one").code == 2


def test_an_audit_without_differences_is_fine(command: Command, account: Account) -> None:
    answer = command("audit", "--json")
    assert answer.code == 0
    assert answer.document == {
        "account": account.name,
        "ok": True,
        "rules": list(RULES),
        "differences": [],
    }
    assert "no difference found" in command("audit").stdout


def test_every_difference_is_printed(
    command: Command, engine: Engine, account: Account, session: Session
) -> None:
    client = a_client(engine, account)
    a_charge(engine, client, date(2026, 5, 1), "10.00")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO invoices (account_id, client_id, currency, subtotal, total)"
                " VALUES (:account, :client, 'usd', 77, 77)"
            ),
            {"account": account.id, "client": client.id},
        )
    answer = command("audit", "--json")
    assert answer.code == 1
    (difference,) = answer.document["differences"]
    assert difference["rule"] == "draft_totals_match_charges"
    shown = command("audit")
    assert shown.code == 1
    assert "1 difference" in shown.stdout
    assert "says 77 and tax of 0, its charges sum to 0" in shown.stdout
    assert session.scalars(select(Job)).all() == []


def test_dead_jobs_are_counted_and_then_replayed(
    command: Command, session: Session, job: Job
) -> None:
    session.execute(text("UPDATE jobs SET state = 'dead', reason = 'poison', finished_at = now()"))
    session.commit()

    assert "1 dead job would be replayed" in command("jobs", "replay", "--dry-run").stdout
    assert command("jobs", "replay", "--reason", "unknown_kind", "--json").document["jobs"] == 0
    replayed = command("jobs", "replay", "--since", "2026-01-01T00:00:00Z", "--json")
    assert replayed.document == {"jobs": 1, "dry_run": False}
    session.expire_all()
    assert session.get_one(Job, job.id).state == "ready"


def test_a_job_is_cancelled_and_tried_again(command: Command, session: Session, job: Job) -> None:
    assert "will not start" in command("jobs", "cancel", str(job.id)).stdout
    assert command("jobs", "cancel", str(job.id)).code == 1
    assert command("jobs", "retry", str(job.id), "--json").document["state"] == "ready"
    session.expire_all()
    assert session.get_one(Job, job.id).state == "ready"
