"""Another system that asks over HTTP: each request under its own key, until it is answered."""

import random
import time
from itertools import count
from typing import Any
from uuid import UUID

import httpx2

from tests.chaos.business import Business

KEEP_TRYING_SECONDS = 120.0
ANSWER_SECONDS = 10.0
PAUSE_SECONDS = 0.3


class Caller:
    """Asks one thing after another, each by ``rng``; ``broken`` is told of wrong answers."""

    def __init__(self, url: str, business: Business, rng: random.Random, broken: list[str]) -> None:
        self._url = url
        self._business = business
        self._rng = rng
        self._broken = broken
        self._numbers = count(1)
        self.repeated = 0

    def ask(self) -> None:
        """Ask one thing; some again, though answered, as after an answer that got lost."""
        account_id, client = self._rng.choice(self._business.clients)
        key = f"call-{next(self._numbers)}"
        path, body = self._something(str(client), key)
        secret = self._business.keys[account_id]
        answer = self._insist(path, body, key, secret)
        # A refusal is not kept: by the second time, the first one's reason may be gone.
        if answer.is_success and self._rng.random() < 0.2:
            again = self._insist(path, body, key, secret)
            if (again.status_code, again.content) != (answer.status_code, answer.content):
                self._broken.append(f"{path} under {key} was answered in two ways")
        self._take(path, key, answer)

    def _something(self, client: str, key: str) -> tuple[str, dict[str, Any]]:
        match self._rng.randrange(3):
            case 0:
                return "/v1/charges", {"client": client, "description": key, "unit_price": "7.30"}
            case 1:
                deposit = {"amount": 700, "currency": "usd", "source": "outside", "note": key}
                return f"/v1/clients/{client}/credit/deposits", deposit
            case _:
                return "/v1/invoices", {"client": client}

    def _take(self, path: str, key: str, answer: httpx2.Response) -> None:
        match answer.status_code:
            case 201:
                self._business.recorded.append(key)
            case 202:
                self._business.accepted.append(UUID(answer.json()["id"]))
                if path.endswith("deposits"):
                    self._business.deposited.append(key)
            case 409 if path == "/v1/invoices":  # Nothing to bill.
                pass
            case status:
                self._broken.append(f"{path} was answered {status}: {answer.text}")

    def _insist(self, path: str, body: dict[str, Any], key: str, secret: str) -> httpx2.Response:
        """Ask until somebody answers who could know."""
        headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": key}
        deadline = time.monotonic() + KEEP_TRYING_SECONDS
        while True:
            try:
                answer = httpx2.post(
                    self._url + path, json=body, headers=headers, timeout=ANSWER_SECONDS
                )
            except httpx2.TransportError:
                if time.monotonic() > deadline:
                    raise
            else:
                if answer.status_code < 500 or time.monotonic() > deadline:
                    return answer
            self.repeated += 1
            time.sleep(PAUSE_SECONDS)
