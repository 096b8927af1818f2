"""Everything that is made to break, by name; each fault is over when its function returns."""

import contextlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import psycopg
from redis import Redis
from sqlalchemy import Engine, text

from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.redis import EmbeddedRedis
from gateways.sandbox.sendgrid import faults as mail_faults
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.stripe.control import StripeSandboxControl
from models import job_ledger
from models.job_ledger import NewJob
from tests.chaos.business import Business
from tests.chaos.crashing import POINTS
from tests.chaos.fleet import COMMANDS, Fleet
from tests.chaos.next_release import NEXT_KIND
from tests.chaos.redis_proxy import RedisProxy

PAUSED_FOR_SECONDS = 8.0
"""Longer than a lease of the fleet's."""

GRACE_SECONDS = 30.0
"""What orchestrators give a process that they asked to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """All that can be harmed. ``broken`` is where a fault says which promise it saw broken."""

    fleet: Fleet
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    proxy: RedisProxy
    stripe: StripeSandboxControl
    sendgrid: SendGridControl
    business: Business
    engine: Engine
    rng: random.Random
    broken: list[str]

    @property
    def doorbell(self) -> Redis:
        """Redis, past the proxy."""
        client: Redis = Redis.from_url(self.redis.url)
        return client


def crash_at_a_point(target: Target) -> None:
    """kill -9 of a process right before or after a commit, a call, a ring, a claim."""
    kind = target.rng.choice(("worker", "payments", "mail", "dispatcher", "scheduler", "web"))
    point = target.rng.choice(POINTS)
    target.fleet.replace(kind, point=point, nth=target.rng.randrange(1, 12))


def kill_at_random(target: Target) -> None:
    """kill -9 of any process, whatever it does."""
    kind = target.rng.choice(("worker", "payments", "mail", "dispatcher", "scheduler", "web"))
    target.fleet.kill(kind, rng=target.rng)


def pause_a_worker(target: Target) -> None:
    """SIGSTOP past its lease, then SIGCONT: another has its jobs meanwhile."""
    kind = target.rng.choice(("worker", "payments", "mail"))
    target.fleet.pause(kind, PAUSED_FOR_SECONDS, rng=target.rng)


def skew_a_clock(target: Target) -> None:
    """A worker whose clock is 61 s ahead: past everything that dramatiq believes in."""
    kind = target.rng.choice(("worker", "payments", "mail"))
    target.fleet.replace(kind, CHAOS_CLOCK_SKEW="61")


def deploy(target: Target) -> None:
    """SIGTERM to every process, one kind after another, while it works: each ends in time."""
    for kind in COMMANDS:
        seconds = target.fleet.stop(kind, rng=target.rng)
        if seconds > GRACE_SECONDS:
            target.broken.append(f"{kind} took {seconds:.1f} s to end when asked")


def deploy_ahead(target: Target) -> None:
    """A job of the next release's kind, then that release."""
    new = NewJob(
        kind=NEXT_KIND, queue="ops", args={}, max_attempts=3, requested_by="chaos", priority=50
    )
    with target.engine.begin() as connection:
        job_id = job_ledger.enqueue(connection, new).id
    target.business.accepted.append(job_id)
    time.sleep(2)
    target.fleet.release(CHAOS_NEXT_RELEASE="1")


def stop_redis(target: Target, seconds: float = 2.0) -> None:
    """Redis gone for a while, and empty when it is back."""
    target.redis.kill()
    time.sleep(seconds)
    target.redis.start()


def flush_redis(target: Target) -> None:
    """FLUSHALL."""
    target.doorbell.flushall()


def fill_redis(target: Target) -> None:
    """Redis out of memory: every write is refused."""
    target.doorbell.config_set("maxmemory", "1")
    time.sleep(2)
    target.doorbell.config_set("maxmemory", "0")


def demote_redis(target: Target) -> None:
    """Redis read-only, as a primary that was replaced."""
    target.doorbell.replicaof("127.0.0.1", "1")
    time.sleep(2)
    target.doorbell.replicaof("NO", "ONE")


def lose_redis_answers(target: Target) -> None:
    """Answers of Redis vanish on the way, after it did what it was asked."""
    target.proxy.lose_answers(target.rng.randrange(1, 4))
    time.sleep(0.5)


def stall_redis(target: Target) -> None:
    """A network that passes nothing and ends nothing."""
    target.proxy.stall()
    time.sleep(3)
    target.proxy.resume()


def end_database_sessions(target: Target) -> None:
    """Every backend of PostgreSQL terminated."""
    with contextlib.suppress(psycopg.Error), psycopg.connect(target.postgres.url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


def restart_postgres(target: Target) -> None:
    """PostgreSQL restarted, as for an upgrade."""
    target.postgres.stop()
    target.postgres.start()


def crash_postgres(target: Target) -> None:
    """PostgreSQL killed: it recovers from its log."""
    target.postgres.kill()
    target.postgres.start()


def exhaust_connections(target: Target) -> None:
    """Every connection that PostgreSQL gives, taken by somebody else."""
    taken: list[psycopg.Connection] = []
    try:
        while True:
            taken.append(psycopg.connect(target.postgres.url))
    except psycopg.OperationalError:
        time.sleep(2)
    finally:
        for connection in taken:
            connection.close()


def lose_charge_answers(target: Target) -> None:
    """Stripe charges, and its answer gets lost."""
    target.stripe.add_fault("lost_answer", times=3, path="/v1/payment_intents")


def slow_stripe(target: Target) -> None:
    """Stripe takes longer than we wait."""
    target.stripe.add_fault("delay", times=2, seconds=30, after_effect=True, path="/v1/payment_*")


def limit_stripe(target: Target) -> None:
    """429, with and without Retry-After."""
    target.stripe.add_fault("rate_limit", times=5, retry_after=1)
    target.stripe.add_fault("rate_limit", times=3)


def break_stripe(target: Target) -> None:
    """500 before and after the charge, kept under the key; 409; a reset."""
    target.stripe.add_fault("server_error", times=2)
    target.stripe.add_fault("server_error_after", times=2, path="/v1/payment_intents")
    target.stripe.add_fault("conflict", times=2)
    target.stripe.add_fault("reset", times=2)


def repeat_webhooks(target: Target) -> None:
    """Every event told three times, newest first."""
    target.stripe.set(webhook_copies=3, webhook_order="newest")
    time.sleep(2)
    target.stripe.set(webhook_copies=1, webhook_order="oldest")


def hold_webhooks(target: Target) -> None:
    """Events that come late."""
    target.stripe.set(webhooks_paused=True)
    time.sleep(3)
    target.stripe.set(webhooks_paused=False)


def lose_mail_replies(target: Target) -> None:
    """SendGrid takes the mail, and its reply gets lost."""
    target.sendgrid.fail(mail_faults.Fault(kind=mail_faults.FaultKind.LOST_REPLY, times=2))


def break_sendgrid(target: Target) -> None:
    """SendGrid answers 503, and resets connections."""
    target.sendgrid.fail(mail_faults.Fault(kind=mail_faults.FaultKind.STATUS, times=4))
    target.sendgrid.fail(mail_faults.Fault(kind=mail_faults.FaultKind.RESET, times=2))


def pause_a_queue(target: Target) -> None:
    """A queue paused by hand: nothing in it starts until it goes on."""
    queue = target.rng.choice(("billing", "payments", "mail"))
    with target.engine.begin() as connection:
        connection.execute(
            text("UPDATE queues SET paused_at = now() WHERE name = :queue"), {"queue": queue}
        )
    began = _database_time(target)
    time.sleep(2)
    started = "SELECT count(*) FROM jobs WHERE queue = :queue AND started_at > :began"
    with target.engine.begin() as connection:
        jobs = connection.execute(text(started), {"queue": queue, "began": began}).scalar_one()
        connection.execute(
            text("UPDATE queues SET paused_at = NULL WHERE name = :queue"), {"queue": queue}
        )
    if jobs:
        target.broken.append(f"{jobs} jobs started in {queue} while it was paused")


def _database_time(target: Target) -> datetime:
    with target.engine.connect() as connection:
        now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


FAULTS: Mapping[str, Callable[[Target], None]] = MappingProxyType(
    {
        fault.__name__: fault
        for fault in (
            crash_at_a_point,
            kill_at_random,
            pause_a_worker,
            skew_a_clock,
            deploy,
            deploy_ahead,
            stop_redis,
            flush_redis,
            fill_redis,
            demote_redis,
            lose_redis_answers,
            stall_redis,
            end_database_sessions,
            restart_postgres,
            crash_postgres,
            exhaust_connections,
            lose_charge_answers,
            slow_stripe,
            limit_stripe,
            break_stripe,
            repeat_webhooks,
            hold_webhooks,
            lose_mail_replies,
            break_sendgrid,
            pause_a_queue,
        )
    }
)
"""By name, so that one can be asked for alone."""
