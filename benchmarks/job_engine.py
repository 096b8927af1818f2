"""Draining no-op jobs: the durable job ledger against stock dramatiq, on the same machine."""

import redis
from dramatiq.brokers.redis import RedisBroker
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from benchmarks.measurement import Measurement
from benchmarks.no_ops import QUEUE, no_op
from benchmarks.processes import processes, seconds_until
from models import Job
from models.database import connect
from tasks.enqueueing import enqueue

JOBS = 5_000
PROCESSES = 2
THREADS = 8


def measure_engine(database_url: str, redis_url: str) -> list[Measurement]:
    """Stock dramatiq first, whose jobs are lost with Redis; then ours, which are not."""
    return [_measure_stock(redis_url), _measure_ledger(database_url, redis_url)]


def _measure_ledger(database_url: str, redis_url: str) -> Measurement:
    engine = connect(
        database_url.replace("postgresql://", "postgresql+psycopg://"),
        process="bench",
        connections=2,
    )
    with Session(engine) as session, session.begin():
        for _ in range(JOBS):
            enqueue(session, no_op, account_id=None, requested_by="benchmark")
    done = select(func.count()).where(Job.kind == no_op.name, Job.state == "succeeded")
    environment = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    worker = ["-m", "benchmarks.no_ops", "--queues", QUEUE, "--threads", str(THREADS)]

    def drained() -> int:
        with engine.connect() as connection:
            return connection.scalar(done) or 0

    with processes([worker] * PROCESSES + [["-m", "workers.dispatcher"]], environment):
        seconds = seconds_until(drained, JOBS)
    engine.dispose()
    return Measurement("Duecourse's job ledger", JOBS, seconds)


def _measure_stock(redis_url: str) -> Measurement:
    broker = RedisBroker(url=redis_url)
    from benchmarks.stock import build  # noqa: PLC0415 - declares its actor on the broker it is given

    actor = build(broker)
    for _ in range(JOBS):
        actor.send()
    command = [
        *("-m", "dramatiq", "benchmarks.stock:main", "--skip-logging"),
        *("--processes", str(PROCESSES), "--threads", str(THREADS)),
    ]
    client = redis.Redis.from_url(redis_url)

    def drained() -> int:
        return JOBS - int(client.hlen(f"dramatiq:{actor.queue_name}.msgs"))

    with client, processes([command], {"REDIS_URL": redis_url}):
        seconds = seconds_until(drained, JOBS)
    return Measurement("stock dramatiq (not durable)", JOBS, seconds)
