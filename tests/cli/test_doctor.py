from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from cli.stack import SENDGRID, STRIPE
from gateways.sandbox.stripe.server import StripeSandbox
from gateways.sealing import Seal
from models import Account, Process
from tasks.merchants import charge_by_own_key
from tests.cli.conftest import Command
from tests.processes import SECRET_KEY

QUEUES = ("billing", "ops", "payments", "mail")


def alive(session: Session, *kinds: str, queues: Sequence[str] = QUEUES) -> None:
    """Processes that beat just now; workers serve these queues."""
    session.add_all(
        Process(kind=kind, host="here", pid=number, queues=list(queues) if kind == "worker" else [])
        for number, kind in enumerate(kinds)
    )
    session.commit()


@pytest.fixture(autouse=True)
def no_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    """None but a test's own."""
    for name in (*STRIPE, *SENDGRID):
        monkeypatch.delenv(name, raising=False)


def test_a_healthy_stack_passes_every_check(
    command: Command, session: Session, redis_url: str, vendor_settings: dict[str, str]
) -> None:
    alive(session, "web", "scheduler", "dispatcher", "worker")
    answer = command("doctor", "--json", REDIS_URL=redis_url, **vendor_settings)
    assert answer.code == 0
    assert answer.document["ok"] is True
    assert not any(check["missed"] for check in answer.document["checks"])
    names = {check["name"] for check in answer.document["checks"]}
    assert names == {
        "settings",
        "secret key",
        "database",
        "clocks",
        "schema",
        "redis",
        "redis memory",
        "web",
        "scheduler",
        "dispatcher",
        *(f"worker {queue}" for queue in QUEUES),
        "stripe",
        "stripe events",
        "sendgrid",
        "sendgrid events",
    }


def test_what_is_missing_is_told_with_what_to_do(
    command: Command, session: Session, engine: Engine, redis_url: str
) -> None:
    alive(session, "web", "scheduler", "worker")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE processes SET heartbeat_at = now() - interval '1 min' WHERE kind = 'web'")
        )
    answer = command("doctor", REDIS_URL=redis_url)
    assert answer.code == 1
    assert "✗ dispatcher" in answer.stdout
    assert "✗ web" in answer.stdout
    assert "✓ worker billing" in answer.stdout
    assert "the line `dispatcher` of the Procfile" in answer.stdout


def test_servers_that_are_down_are_told_by_their_settings(command: Command) -> None:
    answer = command("doctor", "--json", DATABASE_URL="postgresql://x@127.0.0.1:1/x")
    assert answer.code == 1
    wrong = {one["name"]: one for one in answer.document["checks"] if not one["ok"]}
    assert set(wrong) == {"database", "redis"}  # A vendor that is not set is only missed.
    assert wrong["database"]["advice"] == "start it, or correct DATABASE_URL"
    assert wrong["redis"]["advice"] == "start it, or correct REDIS_URL"


def test_an_old_schema_is_told(command: Command, engine: Engine, redis_url: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'another'"))
    answer = command("doctor", "--json", REDIS_URL=redis_url)
    (wrong,) = [one for one in answer.document["checks"] if not one["ok"]]
    assert (wrong["name"], wrong["advice"]) == ("schema", "run duecourse migrate")


def test_a_vendor_that_is_not_set_is_missed_by_its_workers_alone(
    command: Command, session: Session, redis_url: str
) -> None:
    alive(session, "web", "scheduler", "dispatcher", "worker")
    answer = command("doctor", REDIS_URL=redis_url)
    assert answer.code == 0
    assert "! stripe          STRIPE_SECRET_KEY is not set" in answer.stdout
    assert "set it for the workers of payments, which do not start without it" in answer.stdout
    assert "set it for the workers of mail, which do not start without it" in answer.stdout


def test_a_queue_without_a_worker_is_told(
    command: Command, session: Session, redis_url: str, vendor_settings: dict[str, str]
) -> None:
    alive(session, "web", "scheduler", "dispatcher", "worker", queues=["billing", "ops"])
    answer = command("doctor", REDIS_URL=redis_url, **vendor_settings)
    assert answer.code == 1
    assert "✓ worker ops" in answer.stdout
    assert "✗ worker payments no worker serves payments: its jobs wait" in answer.stdout
    assert "the line of the Procfile with `mail` in its --queues says how" in answer.stdout
    # Where a vendor is not set, nobody can serve its queue.
    without = command("doctor", REDIS_URL=redis_url)
    assert without.code == 0
    assert "! worker payments no worker serves payments" in without.stdout


def test_a_vendor_that_cannot_be_used_is_told_with_what_to_do(
    command: Command, redis_url: str, stripe_sandbox: StripeSandbox
) -> None:
    vendors = {
        "STRIPE_SECRET_KEY": "rk_test_unknown",
        "STRIPE_API_BASE": stripe_sandbox.url,
        "SENDGRID_API_KEY": "SG.hush",
        "SENDGRID_API_BASE": "http://127.0.0.1:1",
    }
    answer = command("doctor", "--json", REDIS_URL=redis_url, **vendors)
    assert answer.code == 1
    assert "hush" not in answer.stdout
    checks = {one["name"]: one for one in answer.document["checks"]}
    assert not checks["stripe"]["ok"]
    assert checks["stripe"]["found"].endswith("does not know the key")
    assert checks["stripe"]["advice"].endswith("correct STRIPE_SECRET_KEY")
    assert not checks["sendgrid"]["ok"]
    assert checks["sendgrid"]["advice"].endswith("correct SENDGRID_API_BASE")
    assert checks["sendgrid events"]["missed"]

    stripe_sandbox.control.add_fault("server_error", method="GET")
    vendors["STRIPE_SECRET_KEY"] = "sk_test_x"
    answer = command("doctor", "--json", REDIS_URL=redis_url, **vendors)
    (stripe,) = [one for one in answer.document["checks"] if one["name"] == "stripe"]
    assert (stripe["ok"], stripe["found"].rpartition(" answers ")[2]) == (False, "with status 500")


def test_links_cannot_be_signed_without_a_secret_key(command: Command, redis_url: str) -> None:
    answer = command("doctor", REDIS_URL=redis_url)
    assert "! secret key      SECRET_KEY is not set" in answer.stdout
    assert "set the same one for web, payments and mail" in answer.stdout


def test_keys_of_accounts_that_no_longer_open_are_told_by_the_accounts_names(
    command: Command,
    session: Session,
    account: Account,
    redis_url: str,
    vendor_settings: dict[str, str],
) -> None:
    charge_by_own_key(
        session,
        session.get_one(Account, account.id),
        Seal(SECRET_KEY),
        secret_key="sk_test_of_its_own",
        webhook_secret="whsec_of_its_own",
        same_stripe_account=None,
    )
    session.commit()

    kept = command("doctor", "--json", REDIS_URL=redis_url, **vendor_settings)
    lost = {**vendor_settings, "SECRET_KEY": "x" * 32}
    broken = command("doctor", "--json", REDIS_URL=redis_url, **lost)

    [good] = [one for one in kept.document["checks"] if one["name"] == "accounts' keys"]
    [bad] = [one for one in broken.document["checks"] if one["name"] == "accounts' keys"]
    assert (good["ok"], good["found"]) == (True, "1 can be opened")
    assert (bad["ok"], bad["found"]) == (
        False,
        f"sealed under another SECRET_KEY: {account.name}",
    )
    assert "of_its_own" not in broken.stdout
