"""One run: work on real processes, faults by a seed, and a look at what was promised."""

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Engine, text

from gateways.sandbox.sendgrid.events import EventKind
from gateways.sandbox.server import HOST, free_port
from models.database import connect
from models.schema import migrate
from tests.chaos.business import Business
from tests.chaos.caller import Caller
from tests.chaos.faults.catalogue import FAULTS, plan
from tests.chaos.faults.target import Target
from tests.chaos.fleet import Fleet
from tests.chaos.invariants import violations
from tests.chaos.load import Load
from tests.chaos.report import Report
from tests.chaos.servers import Servers
from tests.chaos.settling import FINISH_WITHIN_SECONDS, settle
from tests.chaos.staff import Staff

MAIL_EVENTS = (EventKind.PROCESSED, EventKind.DELIVERED)
DEBITS_SETTLE_AFTER_SECONDS = 5.0
FENCED = b"lease lost, nothing kept"


def run(
    seed: int,
    *,
    clients: int,
    faults: int,
    per_second: float,
    only: Sequence[str] = (),
    mistake: str | None = None,
    within: float = FINISH_WITHIN_SECONDS,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Start everything, bill, break things by ``seed`` while work comes in, wait, and check.

    Args:
        clients: How many there are to bill.
        faults: How many are made, drawn from ``only`` if given.
        per_second: How many commands come in besides, while things break.
        mistake: One of ``sabotage`` that every process makes.
        within: How many seconds are waited for what does not end.
        say: Is told what is done just now.
    """
    rng = random.Random(seed)  # noqa: S311 - it must be repeatable
    report = Report(seed)
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="duecourse-chaos-")))
        servers = ends.enter_context(Servers(folder))
        engine = _engine(servers)
        ends.callback(engine.dispose)
        url = f"http://{HOST}:{free_port()}"
        business = Business(engine, _drawn(rng))
        business.open(clients, servers.stripe.url)
        environment = servers.environment | _expect_events(servers, url)
        if mistake:
            environment["CHAOS_MISTAKE"] = mistake
        fleet = ends.enter_context(Fleet(environment, folder / "logs"))
        business.bill()
        staff = Staff(business, _drawn(rng))
        caller = Caller(url, business, _drawn(rng), report.violations)
        strikes = plan(rng, faults, only)
        after: list[Callable[[], None]] = []
        lasting: list[float] = []

        def strike(name: str, rng: random.Random) -> None:
            FAULTS[name](
                Target(
                    fleet=fleet,
                    postgres=servers.postgres,
                    redis=servers.redis,
                    proxy=servers.proxy,
                    stripe=servers.stripe,
                    sendgrid=servers.sendgrid,
                    engine=engine,
                    rng=rng,
                    broken=report.violations,
                    lasting=lasting,
                    restarted_seconds=report.restarted_seconds,
                    after=after,
                )
            )

        with (
            Load([staff.do_something, caller.ask], per_second=per_second),
            ThreadPoolExecutor(1) as other_hand,
        ):
            for number, names in enumerate(strikes, start=1):
                say(f"{number}/{len(strikes)} {' and '.join(names)}")
                report.faults += names
                # Drawn before any strikes: which of them is first is not the seed's.
                one, *others = [(name, _drawn(rng)) for name in names]
                striking = [other_hand.submit(strike, *other) for other in others]
                strike(*one)
                for other in striking:
                    other.result()
                time.sleep(rng.random())
        servers.stripe.clear_faults()
        servers.sendgrid.clear_faults()
        say("waiting for the end")
        settle(engine, servers.stripe, report, after, lasting, within=within)
        say("checking")
        report.violations += violations(engine, business, servers.stripe, servers.sendgrid)
        _count_up(report, servers, engine)
        report.restarts, report.repeated = fleet.restarts, caller.repeated
        report.fenced = sum(log.read_bytes().count(FENCED) for log in (folder / "logs").iterdir())
        if report.violations:
            say(f"logs: {_kept(folder)}")
    return report


def _drawn(rng: random.Random) -> random.Random:
    """A source of its own for somebody: what one draws does not change what another does."""
    return random.Random(rng.random())  # noqa: S311 - it must be repeatable


def _expect_events(servers: Servers, url: str) -> dict[str, str]:
    """Have both vendors tell us what happens; the settings that let us believe them."""
    secret = servers.stripe.set_webhook(f"{url}/webhooks/stripe")
    servers.stripe.set(settle_after=DEBITS_SETTLE_AFTER_SECONDS)
    servers.sendgrid.set_webhook(f"{url}/webhooks/sendgrid", automatic=MAIL_EVENTS, retry_seconds=1)
    return {
        "PORT": url.rpartition(":")[2],
        "STRIPE_WEBHOOK_SECRET": secret,
        "SENDGRID_WEBHOOK_KEY": servers.sendgrid.public_key(),
    }


def _count_up(report: Report, servers: Servers, engine: Engine) -> None:
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT count(*) AS jobs, COALESCE(sum(rescues), 0) AS rescued FROM jobs")
        ).one()
    report.jobs, report.rescued = row.jobs, int(row.rescued)
    report.charges = len(servers.stripe.charges())
    report.mails = len(servers.sendgrid.mails())


def _engine(servers: Servers) -> Engine:
    url = servers.postgres.url.replace("postgresql://", "postgresql+psycopg://")
    engine = connect(url, process="chaos", connections=4)
    with engine.begin() as connection:
        migrate(connection)
    return engine


def _kept(folder: Path) -> Path:
    kept = Path(tempfile.mkdtemp(prefix="duecourse-chaos-logs-"))
    for log in (folder / "logs").iterdir():
        (kept / log.name).write_bytes(log.read_bytes())
    return kept
