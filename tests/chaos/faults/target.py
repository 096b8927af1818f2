"""What a fault is given to harm."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from redis import Redis
from sqlalchemy import Engine

from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.redis import EmbeddedRedis
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.chaos.fleet import Fleet
from tests.chaos.redis_proxy import RedisProxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """All that can be harmed.

    Attributes:
        engine: A way to PostgreSQL past everything that is made to break, but PostgreSQL.
        rng: The fault's own: what it draws does not depend on what happens at the same time.
        broken: Where a fault says which promise it saw broken.
        lasting: Until when, on the monotonic clock, a fault goes on that is not over when its
            function returns.
        restarted_seconds: Where a fault says how long a killed worker's job waited.
        after: What is to be done once all other work has ended, as after days.
    """

    fleet: Fleet
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    proxy: RedisProxy
    stripe: StripeSandboxControl
    sendgrid: SendGridControl
    engine: Engine
    rng: random.Random
    broken: list[str] = field(default_factory=list)
    lasting: list[float] = field(default_factory=list)
    restarted_seconds: list[float] = field(default_factory=list)
    after: list[Callable[[], None]] = field(default_factory=list)

    @property
    def doorbell(self) -> Redis:
        """Redis, past the proxy."""
        client: Redis = Redis.from_url(self.redis.url)
        return client


def happens(condition: Callable[[], bool], *, within_seconds: float = 5.0) -> bool:
    """Whether it comes to be so, in a while."""
    deadline = time.monotonic() + within_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
