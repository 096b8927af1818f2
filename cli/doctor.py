"""Whether a stack has all that it needs, and what to do where it has not."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import redis
import typer
import urllib3
from pydantic import SecretStr
from rich.markup import escape
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from cli.context import Context, StackDirectory, open_context
from cli.failures import FOUND_A_PROBLEM, described
from cli.liveness import NEEDED, alive_processes, workers_of
from cli.output import AsJson, Output
from gateways import sendgrid_mail
from gateways.sealing import Seal, SealBroken
from models import Account, Process
from models.schema import is_current
from settings import Settings
from tasks.catalogue import KINDS
from tasks.merchants import way_to
from workers.broker import connect_redis

OLDEST_POSTGRESQL = 15
MAX_CLOCK_SKEW_SECONDS = 2.0
STRIPE_HOST = "https://api.stripe.com"
VENDOR_TIMEOUT = urllib3.Timeout(connect=3.0, read=5.0)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a stack needs: whether it is so, what was found, and what to do if not.

    ``missed`` is what can be done without, as long as nobody asks for it.
    """

    name: str
    ok: bool
    found: str
    advice: str = ""
    missed: bool = False


@dataclass(frozen=True, slots=True)
class _Vendor:
    """A vendor to be asked something cheap that needs the key: ``GET base/path``.

    ``for_events`` is what verifies its events, by the setting's name.
    """

    name: str
    queue: str
    key_name: str
    key: SecretStr | None
    base: str
    path: str
    for_events: str
    takes_events: bool


def doctor(directory: StackDirectory = None, as_json: AsJson = False) -> None:
    """Check settings, database, schema, clocks, processes, Redis and vendors; say what to do."""
    output = Output(as_json=as_json)
    with open_context(directory) as context:
        checks = list(_checks(context))
    healthy = all(check.ok for check in checks)
    output.document({"ok": healthy, "checks": [asdict(check) for check in checks]})
    for check in checks:
        wrong = "[yellow]![/]" if check.ok else "[red]✗[/]"
        mark = wrong if check.missed or not check.ok else "[green]✓[/]"
        output.say(f"{mark} {check.name:<15} {escape(check.found)}")
        if (check.missed or not check.ok) and check.advice:
            output.say(f"  {'':<15} [yellow]{escape(check.advice)}[/]")
    if not healthy:
        raise typer.Exit(FOUND_A_PROBLEM)


def _checks(context: Context) -> Iterator[Check]:
    yield Check("settings", ok=True, found=f"from {context.origin}")
    yield _of_secret_key(context.settings)
    try:
        yield from _of_the_database(context)
    except DBAPIError as error:
        yield Check(
            "database",
            ok=False,
            found=described(error)[0],
            advice="start it, or correct DATABASE_URL",
        )
    yield from _of_redis(context.settings.redis_url)
    for vendor in _vendors(context.settings):
        yield from _of_vendor(vendor)


def _of_the_database(context: Context) -> Iterator[Check]:
    with context.session() as session:
        version = session.execute(text("SHOW server_version")).scalar_one()
        yield Check(
            "database",
            ok=int(version.split(".")[0].split("beta")[0]) >= OLDEST_POSTGRESQL,
            found=f"PostgreSQL {version} answers",
            advice=f"use PostgreSQL {OLDEST_POSTGRESQL} or newer",
        )
        yield _clocks(session)
        current = is_current(session.connection())
        yield Check(
            "schema",
            ok=current,
            found="is this version's" if current else "is not this version's",
            advice="run duecourse migrate",
        )
        if current:
            alive = alive_processes(session)
            yield from _of_processes(alive)
            yield from _of_workers(alive, context.settings)
            yield from _of_own_keys(session, context.settings)


def _of_secret_key(settings: Settings) -> Check:
    is_set = settings.secret_key is not None
    return Check(
        "secret key",
        ok=True,
        missed=not is_set,
        found=f"SECRET_KEY is {'set' if is_set else 'not set'}",
        advice="set the same one for web, payments and mail: it signs the links that clients get",
    )


def _of_own_keys(session: Session, settings: Settings) -> Iterator[Check]:
    """Whether the keys by which accounts charge can be opened: they are sealed by SECRET_KEY."""
    key = settings.secret_key
    ways = [
        (account.name, way_to(session, account.merchant_id))
        for account in session.scalars(select(Account).order_by(Account.name))
        if account.merchant_id is not None
    ]
    sealed = [(name, way.sealed_key) for name, way in ways if way.sealed_key is not None]
    if key is None or not sealed:
        return
    seal = Seal(key.get_secret_value())
    broken = [name for name, text_ in sealed if not _opens(seal, text_)]
    yield Check(
        "accounts' keys",
        ok=not broken,
        found=(
            f"sealed under another SECRET_KEY: {', '.join(broken)}"
            if broken
            else f"{len(sealed)} can be opened"
        ),
        advice="give back the SECRET_KEY of before, or PUT /v1/account/stripe-key for each again",
    )


def _opens(seal: Seal, sealed: str) -> bool:
    try:
        seal.open(sealed)
    except SealBroken:
        return False
    return True


def _clocks(session: Session) -> Check:
    """Compare with the middle of the question, so that a slow network is not taken for skew."""
    asked = time.time()
    theirs: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    ours = datetime.fromtimestamp((asked + time.time()) / 2, UTC)
    skew = abs((theirs - ours).total_seconds())
    return Check(
        "clocks",
        ok=skew < MAX_CLOCK_SKEW_SECONDS,
        found=f"this host's and the database's differ by {skew:.3f} s",
        advice="synchronise both by NTP",
    )


def _of_processes(alive: Sequence[Process]) -> Iterator[Check]:
    for kind in NEEDED:
        ours = [process for process in alive if process.kind == kind]
        yield Check(
            kind,
            ok=bool(ours),
            found=_where(ours) or "no heartbeat",
            advice=f"start one: the line `{kind}` of the Procfile says how",
        )


def _of_workers(alive: Sequence[Process], settings: Settings) -> Iterator[Check]:
    """Whether every queue has its worker; those of a vendor that is not set may be missed."""
    unset = {vendor.queue for vendor in _vendors(settings) if vendor.key is None}
    for queue in sorted({kind.queue for kind in KINDS.values()}):
        ours = workers_of(queue, alive)
        yield Check(
            f"worker {queue}",
            ok=bool(ours) or queue in unset,
            missed=not ours and queue in unset,
            found=_where(ours) or f"no worker serves {queue}: its jobs wait",
            advice=f"start one: the line of the Procfile with `{queue}` in its --queues says how",
        )


def _where(processes: Sequence[Process]) -> str:
    return ", ".join(f"alive on {one.host}, pid {one.pid}" for one in processes)


def _of_redis(url: str) -> Iterator[Check]:
    client = connect_redis(url)
    try:
        memory = client.info("memory")
    except redis.RedisError as error:
        yield Check(
            "redis", ok=False, found=described(error)[0], advice="start it, or correct REDIS_URL"
        )
        return
    finally:
        client.close()
    policy = memory.get("maxmemory_policy", "unknown")
    yield Check("redis", ok=True, found="answers")
    yield Check(
        "redis memory",
        ok=policy == "noeviction",
        found=f"maxmemory-policy is {policy}",
        advice="set maxmemory-policy to noeviction: Redis must not drop messages by itself",
    )


def _vendors(settings: Settings) -> tuple[_Vendor, ...]:
    return (
        _Vendor(
            "stripe",
            "payments",
            "STRIPE_SECRET_KEY",
            settings.stripe_secret_key,
            settings.stripe_api_base or STRIPE_HOST,
            "/v1/customers?limit=1",
            "STRIPE_WEBHOOK_SECRET",
            settings.stripe_webhook_secret is not None,
        ),
        _Vendor(
            "sendgrid",
            "mail",
            "SENDGRID_API_KEY",
            settings.sendgrid_api_key,
            settings.sendgrid_api_base or sendgrid_mail.HOST,
            "/v3/scopes",
            "SENDGRID_WEBHOOK_KEY",
            settings.sendgrid_webhook_key is not None,
        ),
    )


def _of_vendor(vendor: _Vendor) -> Iterator[Check]:
    if vendor.key is None:
        yield Check(
            vendor.name,
            ok=True,
            missed=True,
            found=f"{vendor.key_name} is not set",
            advice=f"set it for the workers of {vendor.queue}, which do not start without it",
        )
        return
    yield _answer_of(vendor, vendor.key)
    yield Check(
        f"{vendor.name} events",
        ok=True,
        missed=not vendor.takes_events,
        found=f"{vendor.for_events} is {'set' if vendor.takes_events else 'not set'}",
        advice=f"set it for web, which takes no events of {vendor.name} without it",
    )


def _answer_of(vendor: _Vendor, key: SecretStr) -> Check:
    """Whether it answers, and takes the key. A key with few rights is still a key."""
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
    address = f"{vendor.name.upper()}_API_BASE"
    with urllib3.PoolManager(retries=False, timeout=VENDOR_TIMEOUT) as pool:
        try:
            answer = pool.request("GET", f"{vendor.base}{vendor.path}", headers=headers)
        except urllib3.exceptions.HTTPError as error:
            return Check(
                vendor.name,
                ok=False,
                found=f"{vendor.base} does not answer: {error}",
                advice=f"look at this host's way out, or correct {address}",
            )
    if answer.status == 401:
        return Check(
            vendor.name,
            ok=False,
            found=f"{vendor.base} does not know the key",
            advice=f"make a new one there, and correct {vendor.key_name}",
        )
    return Check(
        vendor.name,
        ok=answer.status < 500,
        found=f"{vendor.base} answers"
        + ("" if answer.status < 500 else f" with status {answer.status}"),
        advice="wait until it is well again: jobs wait too, and are tried again",
    )
