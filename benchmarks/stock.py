"""The same job the plain dramatiq way: its own broker, middleware and defaults."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker


def build(broker: dramatiq.Broker) -> "dramatiq.Actor[[], None]":
    """The actor, declared on ``broker``."""

    def no_op() -> None:
        pass

    return dramatiq.actor(queue_name="stock", broker=broker)(no_op)


def main() -> None:
    """What the dramatiq command calls to set its worker process up."""
    broker = RedisBroker(url=os.environ["REDIS_URL"])
    dramatiq.set_broker(broker)
    build(broker)
