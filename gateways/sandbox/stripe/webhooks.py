"""Events on their way to a receiver: signed as Stripe signs, and tried until one is taken."""

import asyncio
import hashlib
import hmac
import http.client
import json
import random
import time
from urllib.parse import urlsplit

from gateways.sandbox.stripe.errors import JsonObject
from gateways.sandbox.stripe.settings import Settings
from gateways.sandbox.stripe.store import Store

LONGEST_WAIT = 3600.0
GIVE_UP_AFTER = 60  # Tries: with the wait at an hour, the three days that Stripe keeps trying.
IDLE_SECONDS = 0.1


def signature(payload: bytes, secret: str, at: int) -> str:
    """The ``Stripe-Signature`` header of a payload sent at a time in seconds."""
    signed = hmac.new(secret.encode(), b"%d.%s" % (at, payload), hashlib.sha256).hexdigest()
    return f"t={at},v1={signed}"


class Deliverer:
    """Delivers what is due, in the background, until it is cancelled."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._woken = asyncio.Event()
        self._under_way: dict[int, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """There may be something to deliver."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            self._woken.clear()
            self._start_due()
            waits = [
                asyncio.create_task(self._woken.wait()),
                *self._under_way.values(),
            ]
            await asyncio.wait(waits, timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            waits[0].cancel()
            self._under_way = {
                number: task for number, task in self._under_way.items() if not task.done()
            }

    def _start_due(self) -> None:
        settings = Settings.of(self._store.settings())
        room = settings.webhook_parallel - len(self._under_way)
        if settings.webhooks_paused or settings.webhook_url is None or room <= 0:
            return
        due = [
            delivery
            for delivery in self._store.due_deliveries(time.time())
            if delivery["id"] not in self._under_way
        ]
        if settings.webhook_order == "newest":
            due.reverse()
        elif settings.webhook_order == "random":
            random.shuffle(due)
        for delivery in due[:room]:
            self._under_way[delivery["id"]] = asyncio.create_task(
                self._deliver(delivery, settings, settings.webhook_url)
            )

    async def _deliver(self, delivery: JsonObject, settings: Settings, url: str) -> None:
        event = self._store.find(delivery["event"])
        if event is None:  # Only by a hand in the file; there is nothing to send.
            self._store.not_delivered(delivery["id"], status=None, error="gone", again_at=None)
            return
        body, secret = event.body, settings.webhook_secret
        own = settings.own_webhooks.get(event.account)
        if own is not None:
            # Only who listens to others' accounts is told whose event it is.
            body = {name: value for name, value in body.items() if name != "account"}
            url, secret = own["url"], own["secret"]
        payload = json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(payload, secret, int(time.time())),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        status, error = None, None
        try:
            status = await asyncio.to_thread(_post, url, payload, headers, settings.webhook_timeout)
        except (OSError, http.client.HTTPException, ValueError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        if status is not None and 200 <= status < 300:
            self._store.delivered(delivery["id"], status)
            return
        tries = delivery["attempts"] + 1
        wait = min(settings.webhook_retry * 2.0 ** min(tries - 1, 32), LONGEST_WAIT)
        again_at = time.time() + wait if tries < GIVE_UP_AFTER else None
        self._store.not_delivered(delivery["id"], status=status, error=error, again_at=again_at)


def _post(url: str, payload: bytes, headers: dict[str, str], timeout: float) -> int:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=timeout)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, payload, headers)
        return connection.getresponse().status
    finally:
        connection.close()
