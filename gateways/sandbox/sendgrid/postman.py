"""Carries events to the webhook: at once when told, again until they are taken."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import urllib3

from gateways.sandbox.sendgrid.signing import SigningKey
from gateways.sandbox.sendgrid.store import Delivery, Store, Webhook

TIMEOUT = urllib3.Timeout(connect=3.0, read=10.0)
GIVE_UP_SECONDS = 24 * 3_600.0
LOOK_SECONDS = 0.05


class NoWebhook(LookupError):  # noqa: N818 - named as the fact it states.
    """Nobody said where events go."""


class Postman:
    """Posts batches of events, signed at the moment of posting."""

    def __init__(self, store: Store, key: SigningKey) -> None:
        self._store = store
        self._key = key
        self._pool = urllib3.PoolManager(retries=False, timeout=TIMEOUT, maxsize=4)

    async def run(self) -> None:
        """Post whatever is due, one batch after the other, until cancelled."""
        while True:
            for number, created_at in self._store.due_deliveries(time.time()):
                await self.post(number, give_up_at=created_at + GIVE_UP_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def deliver(
        self,
        events: Sequence[Mapping[str, Any]],
        *,
        copies: int = 1,
        age_seconds: float = 0.0,
        forged: bool = False,
    ) -> Delivery:
        """Post events now, ``copies`` times over, and say how it ended. It is not repeated.

        Raises:
            NoWebhook: Nobody said where they go.
        """
        number = self._store.add_delivery(body_of(events), at=time.time(), next_at=None)
        for _ in range(copies):
            await self.post(number, age_seconds=age_seconds, forged=forged)
        return self._delivery(number)

    async def redeliver(self, number: int) -> Delivery:
        """Post a batch once more: the same bytes, signed anew.

        Raises:
            KeyError: There is no such delivery.
            NoWebhook: Nobody said where they go.
        """
        await self.post(number)
        return self._delivery(number)

    async def post(
        self,
        number: int,
        *,
        age_seconds: float = 0.0,
        forged: bool = False,
        give_up_at: float | None = None,
    ) -> None:
        """Post a batch and record how that ended.

        Args:
            number: Which batch.
            age_seconds: How old the signature's time is.
            forged: Whether the signature is another body's.
            give_up_at: Until when a failure is followed by another try.

        Raises:
            KeyError: There is no such delivery.
            NoWebhook: Nobody said where they go.
        """
        webhook = self._store.webhook
        if webhook is None:
            raise NoWebhook
        body = self._store.delivery_body(number).encode()
        headers = self._key.headers(
            b"another body" if forged else body, timestamp=int(time.time() - age_seconds)
        )
        status, error = await asyncio.to_thread(self._exchange, webhook.url, body, headers)
        taken = status is not None and 200 <= status < 300
        self._store.note_attempt(
            number,
            status=status,
            error=error,
            next_at=None if taken else _next_try(webhook, give_up_at),
        )

    def _exchange(
        self, url: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int | None, str | None]:
        try:
            response = self._pool.request(
                "POST", url, body=body, headers={**headers, "Content-Type": "application/json"}
            )
        except urllib3.exceptions.HTTPError as error:
            return None, f"{type(error).__name__}: {error}"
        return response.status, None

    def _delivery(self, number: int) -> Delivery:
        return next(delivery for delivery in self._store.deliveries() if delivery.number == number)


def body_of(events: Sequence[Mapping[str, Any]]) -> str:
    """What is posted of a batch of events, to the byte."""
    # The line break at the end is SendGrid's, and signed: a receiver must take the raw bytes.
    return json.dumps(list(events), separators=(",", ":")) + "\r\n"


def _next_try(webhook: Webhook, give_up_at: float | None) -> float | None:
    next_at = time.time() + webhook.retry_seconds
    return next_at if give_up_at is not None and next_at < give_up_at else None
