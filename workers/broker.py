"""The dramatiq broker on Redis, set up so that Redis is only a doorbell."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import dramatiq
import redis
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import CurrentMessage, Middleware
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel
from typing_extensions import override

NAMESPACE = "duecourse"

# A worker that was killed loses its unacknowledged messages to the others after this (at
# dramatiq's defaults it takes minutes). The job ledger re-sends them anyway; this keeps Redis tidy.
HEARTBEAT_TIMEOUT_MS = 15_000
MAINTENANCE_EVERY_TIME = 1_000_000  # A chance out of a million.

# A worker that has messages to go on with fetches none until there is room for this part of all it
# may hold: a fetch for each one was a seventh of what a process at its limit did.
PARTS_OF_A_FETCH = 4
ENOUGH_PAUSE_SECONDS = 0.005

CONNECT_TIMEOUT_SECONDS = 2.0
SOCKET_TIMEOUT_SECONDS = 5.0

SENTINEL_SCHEME = "redis+sentinel"
SENTINEL_PORT = 26379


class _Consumer(_RedisConsumer):
    """Takes every message for one of the queue it was found in, and outlives whatever Redis says.

    A message that names another queue, as only a foreign one can, would end the thread that
    has worked on it, and after a restart the next one. So would a Redis that is full, or that
    takes too long, or is a primary no more: for this thread each of them is one that is away.
    """

    @override
    def __next__(self) -> MessageProxy | None:
        if not self.message_cache and self._has_enough():
            time.sleep(ENOUGH_PAUSE_SECONDS)
            return None
        with _away_for_now(self.broker):
            message: MessageProxy | None = super().__next__()  # type: ignore[no-untyped-call]  # dramatiq's is untyped.
        if message is not None and message.queue_name != self.queue_name:
            found = message.copy(queue_name=self.queue_name)
            message = MessageProxy(found)
        return message

    def _has_enough(self) -> bool:
        """Whether to leave what Redis has there until more of what was taken is done.

        Else each message that is done has the next one fetched by itself.
        """
        prefetch: int = self.prefetch
        room: int = prefetch - self.outstanding_message_count
        return room < prefetch // PARTS_OF_A_FETCH

    @override
    def ack(self, message: MessageProxy) -> None:
        with _away_for_now(self.broker):
            super().ack(message)  # type: ignore[no-untyped-call]  # As above.

    @override
    def nack(self, message: MessageProxy) -> None:
        with _away_for_now(self.broker):
            super().nack(message)  # type: ignore[no-untyped-call]  # As above.


@contextmanager
def _away_for_now(broker: "DoorbellBroker") -> Iterator[None]:
    """Every refusal of Redis as what dramatiq waits out: a closed connection."""
    try:
        yield
    except redis.RedisError as error:
        broker.forget_replaced_primary(error)
        raise ConnectionClosed(error) from None


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
            try:
                pipeline.execute()
            except redis.RedisError as error:
                self.forget_replaced_primary(error)
                raise

    def forget_replaced_primary(self, error: redis.RedisError) -> None:
        """Connect anew after a refusal to write: the name may lead to another server by now."""
        if isinstance(error, redis.exceptions.ReadOnlyError):
            self.client.connection_pool.disconnect()


def connect_redis(url: str) -> redis.Redis:
    """A client whose every wait has an end: redis-py's own defaults can hang for minutes.

    ``redis+sentinel://:password@host:26379,host2:26379/name/0`` asks the sentinels which server
    is the primary called ``name``, each time that it connects.
    """
    limits: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_timeout": SOCKET_TIMEOUT_SECONDS,
        "health_check_interval": 15,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2),
    }
    if urlsplit(url).scheme == SENTINEL_SCHEME:
        return _primary(url, limits)
    client: redis.Redis = redis.Redis.from_url(url, **limits)
    return client


def _primary(url: str, limits: dict[str, Any]) -> redis.Redis:
    """The primary that sentinels know; the password is the servers' own."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    name, _, database = parts.path.strip("/").partition("/")
    sentinels = [
        (host, int(port or SENTINEL_PORT))
        for host, _, port in (one.partition(":") for one in hosts.split(","))
    ]
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py's is untyped.
        sentinels,
        sentinel_kwargs={
            "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "socket_timeout": CONNECT_TIMEOUT_SECONDS,
        },
        username=unquote(username) or None,
        password=unquote(password) or None,
        db=int(database or 0),
        **limits,
    )
    client: redis.Redis = sentinel.master_for(name)  # type: ignore[no-untyped-call]  # As above.
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
