"""Everything that Duecourse needs beside itself: real servers, and the vendors' sandboxes."""

from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.redis import EmbeddedRedis
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.server import StripeSandbox
from tests.chaos.redis_proxy import RedisProxy
from tests.processes import SECRET_KEY


class Servers:
    """PostgreSQL, Redis with a proxy before it, Stripe and SendGrid.

    Redis keeps nothing over a restart, unless ``redis_on_disk``.

    Attributes:
        environment: The settings that lead there; to Redis by the proxy.
    """

    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    proxy: RedisProxy
    stripe: StripeSandboxControl
    sendgrid: SendGridControl
    environment: dict[str, str]

    def __init__(self, folder: Path, *, redis_on_disk: bool = False) -> None:
        self._folder = folder
        self._redis_on_disk = redis_on_disk
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as ends:
            self.postgres = ends.enter_context(EmbeddedPostgres(self._folder / "postgres"))
            self.redis = ends.enter_context(
                EmbeddedRedis(self._folder / "redis", append_only=self._redis_on_disk)
            )
            port = urlsplit(self.redis.url).port or 0
            self.proxy = ends.enter_context(RedisProxy(port))
            stripe = ends.enter_context(StripeSandbox(self._folder / "stripe"))
            sendgrid = ends.enter_context(SendGridSandbox(self._folder / "sendgrid"))
            self.stripe = stripe.control
            self.sendgrid = ends.enter_context(closing(sendgrid.control()))
            self.environment = {
                "DATABASE_URL": self.postgres.url,
                "REDIS_URL": self.redis.url.replace(f":{port}/", f":{self.proxy.port}/"),
                "SECRET_KEY": SECRET_KEY,
                "STRIPE_SECRET_KEY": "sk_test_chaos",
                "STRIPE_API_BASE": stripe.url,
                "SENDGRID_API_KEY": "SG.chaos",
                "SENDGRID_API_BASE": sendgrid.url,
            }
            self._ends = ends.pop_all()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._ends.close()
