"""Metrics for Prometheus, read from SQL when they are asked for.

What they say holds for the whole installation, whichever process is asked.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from sqlalchemy import Select, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from typing_extensions import override

from api.operations import Responses
from api.transactions import EngineOf
from billing.periods import PeriodState
from models import BillingPeriod, BillingRun, PaymentAttempt, Process, Schedule, ScheduleFire
from models.billing_period import UNDECIDED_STATES
from models.payment_attempt import STILL_OPEN
from tasks.queue_reports import queue_reports

router = APIRouter(tags=["health"])

# A process beats every 5 seconds; one that has missed three beats is not counted on.
ALIVE_WITHIN = timedelta(seconds=15)

_DISPATCH_LAG = text("""
SELECT COALESCE(EXTRACT(epoch FROM clock_timestamp() - min(run_at)), 0)
  FROM (SELECT min(jobs.run_at) AS run_at FROM jobs JOIN queues ON queues.name = jobs.queue
         WHERE state = 'ready' AND paused_at IS NULL
         UNION ALL
        SELECT min(run_at) FROM jobs WHERE state IN ('scheduled', 'failed') AND run_at < now())
       AS waiting
""")

_TEXT: Responses = {
    200: {
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": 'duecourse_jobs{queue="billing",state="ready"} 12.0\n',
            }
        }
    },
    503: {
        "description": "The database is away",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "database away\n"}},
    },
}


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses=_TEXT,
)
def metrics(engine: EngineOf) -> Response:
    """Open to whoever reaches the port; it names no account and no client."""
    registry = CollectorRegistry(auto_describe=False)
    try:
        with Session(engine) as session, session.begin():
            registry.register(_Snapshot(_families(session)))
    except SQLAlchemyError:
        return PlainTextResponse("database away\n", 503)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Snapshot(Collector):
    """Metrics that were read in one transaction."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    @override
    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(session: Session) -> Iterator[Metric]:
    yield from _queues(session)
    yield _gauge(
        "dispatch_lag_seconds",
        "How long the oldest job that may start has waited to be dispatched",
        float(session.execute(_DISPATCH_LAG).scalar_one()),
    )
    yield from _processes(session)
    yield from _schedules(session)
    yield _periods(session)
    yield _attempts(session)


def _queues(session: Session) -> Iterator[Metric]:
    jobs = _family("jobs", "Jobs that are not over, and dead ones", "queue", "state")
    age = _family("queue_oldest_ready_age_seconds", "Age of the oldest ready job", "queue")
    paused = _family("queue_paused", "1 while the queue is paused", "queue")
    for queue in queue_reports(session):
        for state, count in queue.jobs.items():
            jobs.add_metric([queue.name, state.value], count)
        age.add_metric([queue.name], queue.oldest_ready_age_seconds)
        paused.add_metric([queue.name], queue.paused_at is not None)
    yield from (jobs, age, paused)


def _processes(session: Session) -> Iterator[Metric]:
    beats = _family("worker_last_heartbeat_timestamp_seconds", "When it last beat", "worker")
    workers = session.scalars(select(Process).where(Process.kind == "worker").order_by(Process.id))
    for worker in workers:
        beats.add_metric([f"{worker.host}:{worker.pid}"], worker.heartbeat_at.timestamp())
    yield beats
    threads, busy = session.execute(
        select(
            func.coalesce(func.sum(Process.threads), 0),
            func.coalesce(func.sum(Process.busy_threads), 0),
        ).where(Process.kind == "worker", Process.heartbeat_at > func.now() - ALIVE_WITHIN)
    ).one()
    yield _gauge("worker_busy_threads", "Threads of live workers that run a job", busy)
    yield _gauge("worker_threads", "Threads of live workers", threads)
    ticked = session.scalar(
        select(func.max(Process.heartbeat_at)).where(Process.kind == "scheduler")
    )
    if ticked is not None:
        name = "scheduler_last_tick_timestamp_seconds"
        yield _gauge(name, "When a scheduler last said that it runs", ticked.timestamp())


def _schedules(session: Session) -> Iterator[Metric]:
    lag = _family("schedule_lag_seconds", "How late the next fire is; 0 while paused", "schedule")
    missed = CounterMetricFamily(
        "duecourse_schedule_missed", "Fires that another one stood for", labels=["schedule"]
    )
    late = func.extract("epoch", func.clock_timestamp() - Schedule.next_fire_at)
    fires = (
        select(func.coalesce(func.sum(ScheduleFire.missed), 0))
        .where(ScheduleFire.schedule == Schedule.name)
        .scalar_subquery()
    )
    rows = session.execute(
        select(Schedule.name, Schedule.paused_at, late, fires).order_by(Schedule.name)
    )
    for name, paused_at, seconds, count in rows:
        lag.add_metric([name], 0.0 if paused_at is not None else max(0.0, float(seconds)))
        missed.add_metric([name], count)
    yield from (lag, missed)


def _periods(session: Session) -> Metric:
    """Periods that are due, and what has become of those of runs under way."""
    stages = _family("billing_run_periods", "Periods that are due, or in a run now", "stage")
    due: Select[int] = select(func.count()).where(
        BillingPeriod.state.in_(UNDECIDED_STATES),
        BillingPeriod.reason.is_(None),
        BillingPeriod.ends_at <= func.now(),
    )
    stages.add_metric(["due"], session.execute(due).scalar_one())
    rows = session.execute(
        select(BillingPeriod.state, func.count())
        .join(BillingRun, BillingRun.id == BillingPeriod.run_id)
        .where(BillingRun.finished_at.is_(None))
        .group_by(BillingPeriod.state)
    )
    counts = dict(rows.all())
    for state in PeriodState:
        if state is not PeriodState.OPEN:
            stages.add_metric([state.value], counts.get(state.value, 0))
    return stages


def _attempts(session: Session) -> Metric:
    """Tries of cards that have no outcome yet: one that stays ``unknown`` needs a look."""
    attempts = _family("payment_attempts", "Tries of cards without an outcome yet", "state")
    rows = session.execute(
        select(PaymentAttempt.state, func.count())
        .where(PaymentAttempt.state.in_(STILL_OPEN))
        .group_by(PaymentAttempt.state)
    )
    counts = dict(rows.all())
    for state in sorted(STILL_OPEN):
        attempts.add_metric([state.value], counts.get(state.value, 0))
    return attempts


def _family(name: str, documentation: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"duecourse_{name}", documentation, labels=labels)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"duecourse_{name}", documentation, value=value)
