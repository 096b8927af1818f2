"""One run: work on real processes, faults by a seed, and a look at what was promised."""

import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Engine, text

from gateways.sandbox.sendgrid.events import EventKind
from gateways.sandbox.server import HOST, free_port
from models.database import connect
from models.schema import migrate
from tests.chaos.banks import Banks
from tests.chaos.business import OWN, OWN_SECRET, Business
from tests.chaos.caller import Caller
from tests.chaos.faults.catalogue import plan
from tests.chaos.faults.striking import drawn, strike_all
from tests.chaos.faults.target import Target
from tests.chaos.fleet import Fleet
from tests.chaos.invariants import violations
from tests.chaos.load import Load
from tests.chaos.payers import Payers
from tests.chaos.reached import REACHED, reached
from tests.chaos.report import Report
from tests.chaos.servers import Servers
from tests.chaos.settling import FINISH_WITHIN_SECONDS, reconcile, settle
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
        business = Business(engine, drawn(rng))
        business.open(clients, servers.stripe.url)
        environment = servers.environment | _expect_events(servers, url, business)
        if mistake:
            environment["CHAOS_MISTAKE"] = mistake
        fleet = ends.enter_context(Fleet(environment, folder / "logs"))
        business.bill()
        staff = Staff(business, drawn(rng))
        caller = Caller(url, business, drawn(rng), report.violations)
        strikes = plan(rng, faults, only)
        target = Target(
            fleet=fleet,
            postgres=servers.postgres,
            redis=servers.redis,
            proxy=servers.proxy,
            stripe=servers.stripe,
            sendgrid=servers.sendgrid,
            engine=engine,
            rng=rng,
            broken=report.violations,
            restarted_seconds=report.restarted_seconds,
        )
        payers = Payers(url, business, servers.stripe, drawn(rng), report.violations)
        banks = Banks(business, servers.stripe, drawn(rng))
        people = [staff.do_something, caller.ask, payers.act, banks.act]
        with Load(people, per_second=per_second):
            strike_all(target, strikes, say)
        report.faults += [name for names in strikes for name in names]
        servers.stripe.clear_faults()
        servers.sendgrid.clear_faults()
        say("waiting for the end")
        settle(
            engine,
            servers.stripe,
            servers.sendgrid,
            report,
            after=target.after,
            lasting=target.lasting,
            within=within,
        )
        say("reconciling")
        reconcile(engine, business.accounts, within=within)
        say("checking")
        report.violations += violations(engine, business, servers.stripe, servers.sendgrid)
        _count_up(report, servers, engine)
        report.done = payers.done + banks.done + reached(engine)
        report.never_done = [
            *staff.never_done(),
            *payers.never_done(),
            *banks.never_done(),
            *(what for what in REACHED if not report.done[what]),
        ]
        report.restarts, report.repeated = fleet.restarts, caller.repeated + payers.repeated
        report.fenced = sum(log.read_bytes().count(FENCED) for log in (folder / "logs").iterdir())
        if report.violations:
            say(f"logs: {_kept(folder)}")
    return report


def _expect_events(servers: Servers, url: str, business: Business) -> dict[str, str]:
    """Have both vendors tell us what happens; the settings that let us believe them."""
    secret = servers.stripe.set_webhook(f"{url}/webhooks/stripe")
    for account_id, stripe_account in business.stripe_accounts.items():
        if stripe_account == OWN:
            servers.stripe.set_webhook(
                f"{url}/webhooks/stripe/{account_id}", OWN_SECRET, account=OWN
            )
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
