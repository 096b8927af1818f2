"""One request, from its arrival to its answer: key, faults, idempotency, the operation, the log."""

import asyncio
import hashlib
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gateways.sandbox.stripe import errors
from gateways.sandbox.stripe.books import API_VERSION, PLATFORM, Books, Call, new_id
from gateways.sandbox.stripe.errors import ApiError, JsonObject
from gateways.sandbox.stripe.expanding import expanded
from gateways.sandbox.stripe.faults import Fault
from gateways.sandbox.stripe.forms import Value, nested
from gateways.sandbox.stripe.operations import ANSWERING, operation_at
from gateways.sandbox.stripe.parameters import OPERATIONS, Operation, check
from gateways.sandbox.stripe.settings import Settings
from gateways.sandbox.stripe.store import SavedAnswer, Store

TEST_KEY = "Bearer sk_test_"
# Such a key is not the platform's but of the account that it names: sk_test_acct_ada_1.
_KEY_OF_ACCOUNT = re.compile(r"Bearer sk_test_(acct_[A-Za-z0-9]+)")
MAX_KEY = 255


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came.

    Attributes:
        flat: The form's or the query's names and values, brackets and all.
        origin: The address that the caller found the sandbox at, without a path.
    """

    method: str
    path: str
    flat: tuple[tuple[str, str], ...]
    authorization: str | None
    idempotency_key: str | None
    account: str | None
    origin: str = ""

    @property
    def of(self) -> str:
        """The account that is asked: the one that is named, else the key's."""
        key = _KEY_OF_ACCOUNT.match(self.authorization or "")
        return self.account or (PLATFORM if key is None else key[1])


@dataclass(slots=True)
class Answer:
    """What goes back.

    Attributes:
        is_sent: Whether the caller gets it; if not, the connection ends instead.
        is_saved: Whether the idempotency key keeps it.
        fault: What went wrong on purpose.
    """

    status: int
    body: JsonObject
    headers: dict[str, str] = field(default_factory=dict)
    is_sent: bool = True
    is_saved: bool = True
    is_replayed: bool = False
    fault: str | None = None

    @property
    def object_id(self) -> str | None:
        """The object it is about; of a declined payment, the intent."""
        error = self.body.get("error", {})
        found: str | None = error.get("payment_intent", self.body).get("id")
        return found


@dataclass(frozen=True, slots=True)
class _Request:
    """A request that was understood."""

    id: str
    at: float
    account: str
    key: str | None
    digest: str
    operation: Operation
    call: Call
    fault: Fault | None
    settings: Settings

    def fault_is(self, *kinds: str) -> bool:
        return self.fault is not None and self.fault.kind in kinds


class Answers:
    """Answers requests, one operation at a time.

    Args:
        store: Where everything is kept.
        on_events: Called after a request that made events.
    """

    def __init__(self, store: Store, on_events: Callable[[], None]) -> None:
        self._store = store
        self._on_events = on_events
        # Only in memory: after a crash, a key without a saved answer has had no effect.
        self._keys_in_use: set[tuple[str, str]] = set()
        self._recent_creates: dict[str, deque[float]] = {}

    async def answer(self, incoming: Incoming) -> Answer:
        """The answer to a request, logged before it is worked on and when it is answered."""
        at, request_id = time.time(), new_id("req", 14)
        number = self._store.log(
            {
                "request_id": request_id,
                "at": at,
                "method": incoming.method,
                "path": incoming.path,
                "parameters": dict(incoming.flat),
                "idempotency_key": incoming.idempotency_key,
                "account": incoming.of,
            }
        )
        answer = await self._answer(incoming, request_id, at)
        self._store.log_answer(
            number,
            status=answer.status if answer.is_sent else None,
            object_id=answer.object_id,
            fault=answer.fault,
            is_replayed=answer.is_replayed,
        )
        answer.headers |= {"Request-Id": request_id, "Stripe-Version": API_VERSION}
        if incoming.idempotency_key:
            answer.headers["Idempotency-Key"] = incoming.idempotency_key
        return answer

    async def _answer(self, incoming: Incoming, request_id: str, at: float) -> Answer:
        fault: Fault | None = None
        try:
            _check_key(incoming)
            operation, ids = operation_at(incoming.method, incoming.path)
            given = nested(incoming.flat)
            fault = self._fault(incoming)
            settings = Settings.of(self._store.settings())
            request = _Request(
                id=request_id,
                at=at,
                account=incoming.of,
                key=incoming.idempotency_key if incoming.method == "POST" else None,
                digest=_digest(incoming.path, given),
                operation=operation,
                call=Call(ids, {}, incoming.path, incoming.origin),
                fault=fault,
                settings=settings,
            )
            answer = await self._worked(request, given)
        except ApiError as error:
            answer = _answer_of(error)
        if fault is not None:
            answer.fault = fault.kind
            answer.is_sent = fault.kind not in {"lost_answer", "reset"}
        return answer

    async def _worked(self, request: _Request, given: dict[str, Value]) -> Answer:
        if request.operation[0] == "POST":
            self._count_create(request)
        _strike_before(request)
        if request.fault_is("reset"):
            return Answer(0, {})
        if request.key is not None and (request.account, request.key) in self._keys_in_use:
            raise errors.key_in_use(request.key)
        saved = self._saved(request)
        if saved is not None:
            await _delay(request)
            return saved
        request.call.parameters = check(given, OPERATIONS[request.operation])
        with self._using_key(request):
            await _delay(request, after_effect=False)
            answer = self._done(request)
            await _delay(request, after_effect=True)
        return answer

    def _fault(self, incoming: Incoming) -> Fault | None:
        for number, body in self._store.faults():
            fault = Fault.of(body)
            if fault.strikes(incoming.method, incoming.path, incoming.flat):
                self._store.use_fault(number)
                return fault
        return None

    def _count_create(self, request: _Request) -> None:
        limit = request.settings.creates_per_second
        if limit is None:
            return
        recent = self._recent_creates.setdefault(request.account, deque())
        while recent and recent[0] <= request.at - 1:
            recent.popleft()
        if len(recent) >= limit:
            raise errors.too_many_requests()
        recent.append(request.at)

    def _saved(self, request: _Request) -> Answer | None:
        if request.key is None:
            return None
        saved = self._store.saved_answer(
            request.account, request.key, request.at - request.settings.key_lifetime
        )
        if saved is None:
            return None
        if saved.digest != request.digest:
            raise errors.other_parameters(request.key)
        replay = {"Idempotent-Replayed": "true", "Original-Request": saved.request_id}
        return Answer(saved.status, saved.body, saved.headers | replay, is_replayed=True)

    @contextmanager
    def _using_key(self, request: _Request) -> Iterator[None]:
        if request.key is None:
            yield
            return
        used = (request.account, request.key)
        self._keys_in_use.add(used)
        try:
            yield
        finally:
            self._keys_in_use.remove(used)

    def _done(self, request: _Request) -> Answer:
        """Effect, events and saved answer, in one transaction."""
        books = Books(
            self._store, request.settings, request.account, request.at, request.id, request.key
        )
        with self._store.transaction():
            if request.fault_is("server_error"):
                is_saved = request.fault is not None and request.fault.is_saved
                answer = _answer_of(errors.server_error(is_saved=is_saved))
            else:
                answer = self._operated(request, books)
            if request.fault_is("server_error_after"):
                answer = _answer_of(errors.server_error(is_saved=True))
            if request.key is not None and answer.is_saved:
                saved = SavedAnswer(
                    digest=request.digest,
                    request_id=request.id,
                    status=answer.status,
                    headers=dict(answer.headers),
                    body=answer.body,
                )
                self._store.save_answer(request.account, request.key, saved, request.at)
        if books.events:
            self._on_events()
        return answer

    def _operated(self, request: _Request, books: Books) -> Answer:
        refused: ApiError | None = None
        body: JsonObject = {}
        try:
            with self._store.savepoint():
                try:
                    body = ANSWERING[request.operation](request.call, books)
                    body = expanded(body, request.call.parameters.get("expand", ()), books)
                except ApiError as error:
                    if not error.keeps_effects:
                        raise
                    refused = error
        except ApiError as error:
            return _answer_of(error)
        return Answer(200, body) if refused is None else _answer_of(refused)


def _check_key(incoming: Incoming) -> None:
    given = incoming.authorization
    if given is None or not given.startswith(TEST_KEY) or given == TEST_KEY:
        raise errors.wrong_key(None if given is None else given.removeprefix("Bearer "))
    if incoming.account is not None and not incoming.account.startswith("acct_"):
        raise ApiError(
            403,
            "invalid_request_error",
            f"The provided key does not have access to account '{incoming.account}' (or that "
            "account does not exist). Application access may have been revoked.",
            code="account_invalid",
            is_saved=False,
        )
    if incoming.idempotency_key is not None and len(incoming.idempotency_key) > MAX_KEY:
        raise ApiError(
            400,
            "invalid_request_error",
            f"Idempotency keys can be up to {MAX_KEY} characters long.",
            is_saved=False,
        )


def _strike_before(request: _Request) -> None:
    fault = request.fault
    if fault is not None and fault.kind == "rate_limit":
        raise errors.too_many_requests(fault.code, fault.retry_after)
    if fault is not None and fault.kind == "conflict":
        raise errors.key_in_use(request.key or "")


async def _delay(request: _Request, *, after_effect: bool | None = None) -> None:
    """Wait if a fault says so; at this side of the effect, or at either when ``None``."""
    fault = request.fault
    if fault is None or fault.kind != "delay":
        return
    if after_effect is None or after_effect is fault.after_effect:
        await asyncio.sleep(fault.seconds)


def _digest(path: str, given: dict[str, Value]) -> str:
    return hashlib.sha256(json.dumps([path, given], sort_keys=True).encode()).hexdigest()


def _answer_of(error: ApiError) -> Answer:
    return Answer(error.status, error.body, dict(error.headers), is_saved=error.is_saved)
