"""Another system that asks over HTTP: each request under its own key, until it is answered."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import text

from models.database import database_now
from tests.chaos.business import Business
from tests.chaos.insisting import ANSWER_SECONDS, Insistence
from tests.chaos.patience import patiently

REFUSED = 409
"""There is nothing to bill, or what would change may not, by now."""

_LOCKED = """
SELECT charges.account_id, charges.id FROM charges JOIN invoices ON invoices.id = invoice_id
 WHERE status IN ('open', 'paid', 'uncollectible') AND amends IS NULL ORDER BY charges.id
"""


Answered = Callable[[httpx2.Response], None]


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked of whom, and what an answer with success means."""

    account_id: UUID
    method: str
    path: str
    body: dict[str, Any]
    answered: Answered


class Caller:
    """Asks one thing after another, each by ``rng``; ``broken`` is told of wrong answers."""

    def __init__(self, url: str, business: Business, rng: random.Random, broken: list[str]) -> None:
        self._url = url
        self._business = business
        self._rng = rng
        self._broken = broken
        self._numbers = count(1)
        self._answered: Counter[str] = Counter()
        self._requests = (
            self._a_charge,
            self._a_deposit,
            self._a_draft,
            self._an_amendment,
            self._closed_books,
            self._a_reconciliation,
        )
        self._insistence = Insistence()

    @property
    def repeated(self) -> int:
        """How many requests had to be made again."""
        return self._insistence.repeated

    def ask(self) -> None:
        """Ask one thing; some again, though answered, as after an answer that got lost."""
        key = f"call-{next(self._numbers)}"
        request = self._something(key)
        answer = self._insist(request, key)
        # A refusal is not kept: by the second time, the first one's reason may be gone.
        if answer.is_success and request.method == "POST" and self._rng.random() < 0.2:
            again = self._insist(request, key)
            if (again.status_code, again.content) != (answer.status_code, answer.content):
                self._broken.append(f"{request.path} under {key} was answered in two ways")
        if answer.is_success:
            request.answered(answer)
        elif answer.status_code != REFUSED:
            self._broken.append(f"{request.path} was answered {answer.status_code}: {answer.text}")

    def _something(self, key: str) -> _Request:
        """A request that can be made; half of the time, of a kind that was answered least."""
        kinds = list(self._requests)
        self._rng.shuffle(kinds)
        if self._rng.random() < 0.5:
            kinds.sort(key=lambda kind: self._answered[kind.__name__])
        for kind in kinds:
            request = kind(key)
            if request is not None:
                self._answered[kind.__name__] += 1
                return request
        raise LookupError("there is nothing to ask for")

    def _a_charge(self, key: str) -> _Request:
        account_id, client = self._rng.choice(self._business.clients)
        return _Request(
            account_id,
            "POST",
            "/v1/charges",
            {"client": str(client), "description": key, "unit_price": "7.30"},
            lambda _: self._business.recorded.append(key),
        )

    def _a_deposit(self, key: str) -> _Request:
        account_id, client = self._rng.choice(self._business.clients)

        def answered(answer: httpx2.Response) -> None:
            self._accept(answer)
            self._business.deposited.append(key)

        return _Request(
            account_id,
            "POST",
            f"/v1/clients/{client}/credit/deposits",
            {"amount": 700, "currency": "usd", "source": "outside", "note": key},
            answered,
        )

    def _a_draft(self, _key: str) -> _Request:
        account_id, client = self._rng.choice(self._business.clients)
        body = {"client": str(client)}
        return _Request(account_id, "POST", "/v1/invoices", body, self._accept)

    def _an_amendment(self, _key: str) -> _Request | None:
        """A new price for a charge that is locked, or the one that it was invoiced for."""
        locked = patiently(
            self._business.engine, lambda session: session.execute(text(_LOCKED)).all()
        )
        if not locked:
            return None
        account_id, charge_id = self._rng.choice(locked)
        cents = self._rng.choice((610, 730, 980))
        # Refused after an answer that got lost, it may have been changed, or not.
        self._business.amended.pop(charge_id, None)

        def answered(_answer: httpx2.Response) -> None:
            self._business.amended[charge_id] = cents

        return _Request(
            account_id,
            "PATCH",
            f"/v1/charges/{charge_id}",
            {"unit_price": f"{cents / 100:.2f}"},
            answered,
        )

    def _closed_books(self, _key: str) -> _Request | None:
        """The books of an account that has open ones, closed through a day that is over."""
        account_ids = [one for one in self._business.accounts if one not in self._business.closed]
        if not account_ids:
            return None
        account_id = self._rng.choice(account_ids)
        through = datetime.now(UTC).date() - timedelta(days=self._rng.randrange(1, 25))

        def answered(_answer: httpx2.Response) -> None:
            now = patiently(self._business.engine, database_now)
            self._business.closed[account_id] = (through, now)

        body = {"books_closed_through": through.isoformat()}
        return _Request(account_id, "PATCH", "/v1/account", body, answered)

    def _a_reconciliation(self, _key: str) -> _Request:
        account_id = self._rng.choice(self._business.accounts)
        return _Request(account_id, "POST", "/v1/reconciliations", {}, self._accept)

    def _accept(self, answer: httpx2.Response) -> None:
        self._business.accepted.append(UUID(answer.json()["id"]))

    def _insist(self, request: _Request, key: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self._business.keys[request.account_id]}"}
        if request.method == "POST":
            headers["Idempotency-Key"] = key
        return self._insistence.answer(
            lambda: httpx2.request(
                request.method,
                self._url + request.path,
                json=request.body,
                headers=headers,
                timeout=ANSWER_SECONDS,
            )
        )
