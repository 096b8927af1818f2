"""A worker process: ``python -m workers.main --queues billing,ops --threads 8``."""

import argparse
import os
import socket
import threading
from collections.abc import Sequence
from datetime import timedelta

import structlog
from dramatiq.worker import Worker

from models.database import connect
from settings import Settings, settings_or_exit
from tasks.actors import ForeignMessages, declare_actors
from tasks.calls import Gateways
from tasks.catalogue import KINDS
from tasks.leases import LeaseKeeper
from tasks.running import Runner
from workers.breaker import Answers, Breaker
from workers.broker import build_broker
from workers.logs import configure_logging
from workers.presence import Presence
from workers.stopping import stop_on_signals
from workers.vendors import open_vendors

# An idle consumer polls Redis this often at least; dramatiq's default second is most of the
# latency of a quiet queue.
IDLE_POLL_MS = 50
WATCH_EVERY_SECONDS = 1.0

# A thread that waits for a vendor holds no connection, and a process of Python has work for a few
# at a time. With one for each of many threads they got in each other's way at the server, and each
# prepared its statements anew: 32 charges at a time cost PostgreSQL a quarter more.
JOBS_CONNECTIONS = 12
CLAIMS_CONNECTIONS = 4

_log = structlog.get_logger(__name__)


def main() -> None:
    """Work until told to stop, then finish what is under way.

    Exits with 1 when one of its threads has died, so that a supervisor replaces the process.
    """
    parser = argparse.ArgumentParser(prog="python -m workers.main", description=__doc__)
    parser.add_argument("--queues", required=True, help="comma-separated, such as billing,ops")
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    queues = set(options.queues.split(","))
    served = {kind.queue for kind in KINDS.values()}
    if not queues <= served:
        parser.error(f"--queues: no kind of job is in {', '.join(sorted(queues - served))}")
    if options.threads < 1:
        parser.error("--threads: must be at least 1")

    settings = settings_or_exit()
    answers = Answers()
    with open_vendors(
        settings, queues, connections=options.threads, stripe_heard=answers.heard
    ) as gateways:
        healthy = _serve(settings, queues, options.threads, gateways, answers)
    if not healthy:
        raise SystemExit(1)


def _serve(
    settings: Settings, queues: set[str], threads: int, gateways: Gateways, answers: Answers
) -> bool:
    """Work until told to stop; whether that, and no dead thread, was the end."""
    configure_logging(settings.log_level, process="worker")
    stopping = stop_on_signals()
    engine = connect(
        settings.database_url,
        process="worker",
        connections=min(threads, JOBS_CONNECTIONS),
        pre_ping=False,
    )
    # Leases, heartbeat and breaker wait for no job's connection.
    own_engine = connect(settings.database_url, process="worker", connections=3, pre_ping=False)
    # Claims and turns need not outlive a crash of the server. A job whose claim is lost is rung for
    # again, and what the claim led to was lost with it: whatever is committed later keeps it, too.
    claims = connect(
        settings.database_url,
        process="worker",
        connections=min(threads, CLAIMS_CONNECTIONS),
        pre_ping=False,
        durable=False,
        autocommit=True,
    )
    turns = connect(settings.database_url, process="worker", connections=1, durable=False)
    lease = timedelta(seconds=settings.lease_seconds)
    leases = LeaseKeeper(
        own_engine, lease=lease, run_limit=timedelta(seconds=settings.run_limit_seconds)
    )
    runner = Runner(
        engine,
        leases,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        lease=lease,
        gateways=gateways,
        claims=claims,
        turns=turns,
    )
    broker = build_broker(settings.redis_url, ForeignMessages(engine))
    declare_actors(broker, runner, engine)
    presence = Presence(
        own_engine,
        "worker",
        queues=sorted(queues),
        threads=threads,
        busy_threads=lambda: leases.held,
    )
    worker = Worker(broker, queues=queues, worker_threads=threads, worker_timeout=IDLE_POLL_MS)
    probe = gateways.is_stripe_reachable
    breakers = [] if probe is None else [Breaker(own_engine, answers, probe)]
    leases.start()
    presence.start()
    worker.start()
    for breaker in breakers:
        breaker.start()
    _log.info("worker started", queues=sorted(queues), threads=threads)
    healthy = _watch(worker, [leases, *breakers], stopping)
    for breaker in breakers:
        breaker.stop()
    worker.stop(timeout=int(settings.drain_seconds * 1000))
    leases.stop()
    presence.stop()
    engine.dispose()
    own_engine.dispose()
    claims.dispose()
    turns.dispose()
    _log.info("worker stopped", unfinished=leases.held)
    return healthy


def _watch(worker: Worker, helpers: Sequence[threading.Thread], stopping: threading.Event) -> bool:
    """Wait for the end. False when a thread died: the process looks alive but does no work."""
    while not stopping.wait(WATCH_EVERY_SECONDS):
        threads: list[threading.Thread] = [
            *helpers,
            *worker.workers,
            *worker.consumers.values(),
        ]
        dead = [thread.name for thread in threads if not thread.is_alive()]
        if dead:
            _log.critical("threads died, ending the process", threads=dead)
            return False
    return True


if __name__ == "__main__":
    main()
