"""One run: work on real processes, faults by a seed, and a look at what was promised."""

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, text

from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.redis import EmbeddedRedis
from gateways.sandbox.sendgrid.events import EventKind
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
from gateways.sandbox.server import HOST, free_port
from gateways.sandbox.stripe.server import StripeSandbox
from models import job_ledger
from models.database import connect
from models.job_ledger import DeadJobs
from models.schema import migrate
from tests.chaos.business import Business
from tests.chaos.faults import FAULTS, Target
from tests.chaos.fleet import Fleet
from tests.chaos.invariants import violations
from tests.chaos.redis_proxy import RedisProxy

LEASE_SECONDS = 5
FINISH_WITHIN_SECONDS = 90.0
MAIL_EVENTS = (EventKind.PROCESSED, EventKind.DELIVERED)

_BUSY = """
SELECT count(*) FROM jobs
 WHERE state NOT IN ('succeeded', 'skipped', 'cancelled', 'dead')
   AND NOT (state = 'scheduled' AND run_at > now() + interval '20 seconds')
"""
_UNSETTLED = "SELECT count(*) FROM payment_attempts WHERE state IN ('pending', 'unknown')"
_LATER_MAILS = """
UPDATE jobs SET run_at = now() WHERE kind = 'send_mail' AND state = 'scheduled'
"""
# A charge without an answer is asked after a minute later, a mail's event awaited for half an
# hour: here that time has passed at once.
_LATER = """
UPDATE payment_attempts SET next_ask_at = now() WHERE state IN ('pending', 'unknown')
"""
_OVERDUE = """
SELECT id FROM jobs WHERE state = 'running' AND lease_expires_at < now() - interval '5 seconds'
"""


@dataclass
class Report:
    """What became of one run. ``settled_seconds`` counts from the end of the last fault."""

    seed: int
    faults: list[str] = field(default_factory=list)
    jobs: int = 0
    charges: int = 0
    mails: int = 0
    rescued: int = 0
    restarts: int = 0
    replayed: int = 0
    settled_seconds: float = 0.0
    violations: list[str] = field(default_factory=list)


def run(
    seed: int,
    *,
    clients: int,
    faults: int,
    commands: int,
    only: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Start everything, bill, break things by ``seed``, wait, and check."""
    rng = random.Random(seed)  # noqa: S311 - it must be repeatable
    report = Report(seed)
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="duecourse-chaos-")))
        postgres = ends.enter_context(EmbeddedPostgres(folder / "postgres"))
        redis = ends.enter_context(EmbeddedRedis(folder / "redis", append_only=False))
        proxy = ends.enter_context(RedisProxy(int(redis.url.rpartition(":")[2].split("/")[0])))
        stripe = ends.enter_context(StripeSandbox(folder / "stripe"))
        sendgrid = ends.enter_context(SendGridSandbox(folder / "sendgrid"))
        mails = ends.enter_context(closing(sendgrid.control()))
        engine = _engine(postgres)
        ends.callback(engine.dispose)
        port = free_port()
        hook = f"http://{HOST}:{port}/webhooks"
        secret = stripe.control.set_webhook(f"{hook}/stripe")
        mails.set_webhook(f"{hook}/sendgrid", automatic=MAIL_EVENTS, retry_seconds=1)
        environment = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": redis.url.replace(redis.url.rpartition(":")[2], f"{proxy.port}/0"),
            "PORT": str(port),
            "STRIPE_SECRET_KEY": "sk_test_chaos",
            "STRIPE_API_BASE": stripe.url,
            "STRIPE_WEBHOOK_SECRET": secret,
            "SENDGRID_API_KEY": "SG.chaos",
            "SENDGRID_API_BASE": sendgrid.url,
            "SENDGRID_WEBHOOK_KEY": mails.public_key(),
            "DUECOURSE_LEASE_SECONDS": str(LEASE_SECONDS),
        }
        business = Business(engine, rng)
        business.open(clients, stripe.url)
        fleet = ends.enter_context(Fleet(environment, folder / "logs"))
        business.bill()
        target = Target(
            fleet=fleet,
            postgres=postgres,
            redis=redis,
            proxy=proxy,
            stripe=stripe.control,
            sendgrid=mails,
            business=business,
            engine=engine,
            rng=rng,
            broken=report.violations,
        )
        for name in _plan(rng, faults, only):
            for _ in range(commands // max(faults, 1)):
                business.do_something()
            say(name)
            report.faults.append(name)
            FAULTS[name](target)
            time.sleep(rng.random())
        _settle(engine, report)
        report.violations += violations(engine, business, stripe.control, mails)
        if report.violations:
            say(f"logs: {_kept(folder)}")
        report.jobs = _count(engine, "SELECT count(*) FROM jobs")
        report.rescued = _count(engine, "SELECT COALESCE(sum(rescues), 0) FROM jobs")
        report.charges = len(stripe.control.charges())
        report.mails = len(mails.mails())
        report.restarts = fleet.restarts
    return report


def _plan(rng: random.Random, faults: int, only: Sequence[str]) -> list[str]:
    """Which faults, in which order: every one before any twice."""
    names = list(only or FAULTS)
    plan: list[str] = []
    while len(plan) < faults:
        rng.shuffle(names)
        plan += names
    return plan[:faults]


def _settle(engine: Engine, report: Report) -> None:
    """Wait until all accepted work has ended, and then what waits for a minute to pass."""
    began = time.monotonic()
    overdue: set[UUID] = set()

    def all_ended() -> bool:
        overdue.update(_ids(engine, _OVERDUE))
        return _count(engine, _BUSY) == 0

    _until(all_ended)
    report.settled_seconds = time.monotonic() - began
    report.violations += [f"job {job} ran past its lease and the sweep" for job in overdue]
    with engine.begin() as connection:
        report.replayed = job_ledger.replay(connection, DeadJobs())
    if report.replayed:
        _until(lambda: _count(engine, _BUSY) == 0)
    if _do(engine, _LATER_MAILS):
        _until(lambda: _count(engine, _BUSY) == 0)
    if _do(engine, _LATER):
        _until(lambda: _count(engine, _UNSETTLED) == 0)
        _until(lambda: _count(engine, _BUSY) == 0)


def _ids(engine: Engine, statement: str) -> list[UUID]:
    with engine.connect() as connection:
        return list(connection.execute(text(statement)).scalars())


def _until(condition: Callable[[], bool]) -> None:
    """Wait, with a limit; what is not done by then shows as a broken promise."""
    deadline = time.monotonic() + FINISH_WITHIN_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)


def _count(engine: Engine, statement: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(statement)).scalar_one())


def _do(engine: Engine, statement: str) -> int:
    with engine.begin() as connection:
        return connection.execute(text(statement)).rowcount


def _engine(postgres: EmbeddedPostgres) -> Engine:
    url = postgres.url.replace("postgresql://", "postgresql+psycopg://")
    engine = connect(url, process="chaos", connections=4)
    with engine.begin() as connection:
        migrate(connection)
    return engine


def _kept(folder: Path) -> Path:
    kept = Path(tempfile.mkdtemp(prefix="duecourse-chaos-logs-"))
    for log in (folder / "logs").iterdir():
        (kept / log.name).write_bytes(log.read_bytes())
    return kept
