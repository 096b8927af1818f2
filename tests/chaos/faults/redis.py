"""A Redis that is away, empty, full, read-only, or heard badly."""

import time

from tests.chaos.faults.target import Target


def stop_redis(target: Target) -> None:
    """Redis gone for a moment, and empty when it is back."""
    _stop(target, 2.0)


def stop_redis_for_long(target: Target) -> None:
    """Redis gone for half a minute, and empty when it is back."""
    _stop(target, 30.0)


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


def _stop(target: Target, seconds: float) -> None:
    target.redis.kill()
    time.sleep(seconds)
    target.redis.start()
