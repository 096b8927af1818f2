"""The dramatiq broker on Redis, set up so that Redis is only a doorbell."""

from collections.abc import Iterable
from typing import Any

import dramatiq
import redis
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.middleware import CurrentMessage, Middleware
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from typing_extensions import override

NAMESPACE = "duecourse"

# A worker that was killed loses its unacknowledged messages to the others after this (at
# dramatiq's defaults it takes minutes). The job ledger re-sends them anyway; this keeps Redis tidy.
HEARTBEAT_TIMEOUT_MS = 15_000
MAINTENANCE_EVERY_TIME = 1_000_000  # A chance out of a million.

CONNECT_TIMEOUT_SECONDS = 2.0
SOCKET_TIMEOUT_SECONDS = 5.0


class _Consumer(_RedisConsumer):
    """Takes every message for one of the queue it was found in.

    A message that names another queue, as only a foreign one can, would end the thread that
    has worked on it, and after a restart the next one.
    """

    @override
    def __next__(self) -> MessageProxy | None:
        message: MessageProxy | None = super().__next__()  # type: ignore[no-untyped-call]  # dramatiq's is untyped.
        if message is not None and message.queue_name != self.queue_name:
            found = message.copy(queue_name=self.queue_name)
            message = MessageProxy(found)
        return message


class DoorbellBroker(RedisBroker):
    """A Redis broker that rings for many jobs at once and never delays a message.

    Delayed messages live in a worker's memory and are lost with it, so there is no delay queue
    here and no consumer for one: a job that is to run later waits in PostgreSQL.
    """

    @property
    @override
    def consumer_class(self) -> type[_Consumer]:
        """What a worker takes messages with."""
        return _Consumer

    @override
    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue, without the queue of delayed messages that dramatiq adds to each."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def ring(self, messages: Iterable[dramatiq.Message[Any]], *, again: bool = False) -> None:
        """Push messages in one round trip, each under its ``redis_message_id``.

        The layout is the one that dramatiq's own ``enqueue`` command writes. A message that is
        rung ``again`` takes the first one's place if that still waits: without a worker the
        queue would grow with every repetition.
        """
        with self.client.pipeline(transaction=True) as pipeline:
            for message in messages:
                key = f"{self.namespace}:{message.queue_name}"
                redis_id = message.options["redis_message_id"]
                pipeline.hset(f"{key}.msgs", redis_id, message.encode())
                if again:
                    pipeline.lrem(key, 0, redis_id)
                pipeline.rpush(key, redis_id)
            pipeline.execute()


def connect_redis(url: str) -> redis.Redis:
    """A client whose every wait has an end: redis-py's own defaults can hang for minutes."""
    client: redis.Redis = redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        health_check_interval=15,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2),
    )
    return client


def build_broker(redis_url: str, *middleware: Middleware) -> DoorbellBroker:
    """The process's broker; build it after any fork.

    None of dramatiq's default middleware is here: retries, age limits and time limits are the
    job ledger's, in SQL, where they outlive Redis.
    """
    broker: DoorbellBroker = DoorbellBroker(  # type: ignore[no-untyped-call]  # RedisBroker is untyped.
        client=connect_redis(redis_url),
        namespace=NAMESPACE,
        heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
        maintenance_chance=MAINTENANCE_EVERY_TIME,
        middleware=[CurrentMessage(), *middleware],
    )
    dramatiq.set_broker(broker)
    return broker
