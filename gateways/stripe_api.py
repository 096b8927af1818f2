"""The way to Stripe: its SDK over connections that are kept, and what its failures mean."""

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import stripe
import urllib3
from typing_extensions import override

from billing.errors import DuecourseError
from gateways.cards import (
    CardsUnavailable,
    ChargeOutcomeUnknown,
    ChargeRefused,
    TooManyRequests,
)
from gateways.merchants import DEPLOYMENT, Merchant
from gateways.sealing import Seal, SealBroken

CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
# With all its tries: less than a worker that is told to stop has for what it has begun (25 s).
CALL_SECONDS = 20.0
# What a try must have left to be worth making.
LEAST_SECONDS = 2.0
CONNECTIONS = 64
RETRIES = 2
SERVER_ERROR = 500
LONGEST_MESSAGE = 300

# A key that was revoked or has not the right: put right by someone, nothing was charged.
_NOT_ADMITTED = frozenset({401, 403})
# Whatever an answer is that is not Stripe's, reading it fails with one of these.
UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)
_SECONDS = re.compile(r"[0-9]{1,6}")
_LIVE_KEYS = ("sk_live_", "rk_live_")


class StripeApi:
    """Stripe's SDK over connections that are kept, for everything that is asked of it.

    A try that fails is made again, with the same idempotency key, up to twice and for as long as
    ``CALL_SECONDS`` allow. One that took too long is not: the job asks later.

    Args:
        secret_key: Starts with "sk_" or "rk_".
        base_url: Where Stripe is, when that is a sandbox.
        connect_seconds: How long reaching it may take, each try.
        read_seconds: How long it may take to answer, each try.
        connections: How many calls may be under way at a time; more threads wait for each other.
        heard: Told of each call, when it has ended, whether Stripe answered; an error of Stripe's
            own is no answer.
        seal: Opens the keys of merchants that have their own; without it they cannot be asked for.

    Raises:
        ValueError: That is no key.
    """

    def __init__(
        self,
        secret_key: str,
        *,
        base_url: str | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        connections: int = CONNECTIONS,
        heard: Callable[[bool], None] | None = None,
        seal: Seal | None = None,
    ) -> None:
        # Sent as a header such a key would fail, in a message that shows it.
        if not (secret_key.isascii() and secret_key.isprintable()) or set(secret_key) <= {" "}:
            raise ValueError("the Stripe secret key is empty, or has characters that no key has")
        self._connections = _Connections(
            connect_seconds=connect_seconds,
            read_seconds=read_seconds,
            connections=connections,
            heard=heard,
        )
        self._secret_key = secret_key
        self._base_url = base_url
        self._seal = seal
        self._own = self._client(secret_key)
        self.v1 = self._own.v1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def is_reachable(self) -> bool:
        """Whether Stripe answers a question that costs it little."""
        try:
            self.v1.customers.list({"limit": 1}, {"max_network_retries": 0})
        except stripe.APIConnectionError:
            return False
        except stripe.StripeError as error:
            return error.http_status is not None and error.http_status < SERVER_ERROR
        except UNREADABLE:
            return False
        return True

    def at(self, merchant: Merchant) -> stripe.V1Services:
        """What is asked of a merchant's Stripe account, over the same connections.

        Raises:
            CardsUnavailable: Its key cannot be used here as it is; nothing was asked.
        """
        return self._of(merchant).v1

    def create(
        self, merchant: Merchant, path: str, wanted: Mapping[str, object], *, idempotency_key: str
    ) -> dict[str, Any]:
        """Create one thing in a merchant's Stripe account: what Stripe wrote, as it is.

        The services of ``at`` make an object of every part of an answer, of which most are never
        looked at: that was a twentieth of what a charge cost a worker.

        Raises:
            CardsUnavailable: As for ``at``.
            TypeError: The answer is no object.
        """
        answer = self._of(merchant).raw_request(
            "post", path, **wanted, idempotency_key=idempotency_key
        )
        if not isinstance(answer.data, dict):
            raise TypeError(f"{path} was answered with a {type(answer.data).__name__}")
        return answer.data

    def _of(self, merchant: Merchant) -> stripe.StripeClient:
        if merchant == DEPLOYMENT:
            return self._own
        # Made anew each time, which costs nothing: no key stays in memory.
        return self._client(self._key_of(merchant), merchant.stripe_account)

    def _client(self, key: str, stripe_account: str | None = None) -> stripe.StripeClient:
        return stripe.StripeClient(
            key,
            stripe_account=stripe_account,
            base_addresses={} if self._base_url is None else {"api": self._base_url.rstrip("/")},
            max_network_retries=RETRIES,
            http_client=self._connections,
        )

    def _key_of(self, merchant: Merchant) -> str:
        if merchant.sealed_key is None:
            return self._secret_key
        if self._seal is None:
            raise CardsUnavailable("stripe: an account's own key cannot be opened: no SECRET_KEY")
        try:
            key = self._seal.open(merchant.sealed_key)
        except SealBroken as error:
            raise CardsUnavailable(f"stripe: an account's own key is {error}") from None
        if self._base_url is not None and key.startswith(_LIVE_KEYS) and not self._is_stripes_own:
            # Money would seem to move, and somebody else would have the key.
            raise CardsUnavailable("stripe: an account's own key is live, and goes to Stripe alone")
        return key

    @property
    def _is_stripes_own(self) -> bool:
        parts = urlsplit(self._base_url or "")
        return parts.scheme == "https" and (parts.hostname or "").endswith(".stripe.com")

    @contextmanager
    def moving_money(self) -> Iterator[None]:
        """Around a call that must not be made twice: its failure says what is known of its effect.

        Raises:
            CardsUnavailable: It had none.
            ChargeOutcomeUnknown: It may have had one.
            ChargeRefused: It had none, and never will have one.
        """
        tries = self._connections.tries
        tries.in_doubt = False
        try:
            yield
        except stripe.StripeError as error:
            if tries.in_doubt:
                raise unknown(error) from error
            raise _failure(error) from error
        except UNREADABLE as error:
            raise ChargeOutcomeUnknown(
                f"stripe: an answer that cannot be read: {error!r}"
            ) from error


@contextmanager
def asking() -> Iterator[None]:
    """Around calls that can be made again whatever became of them.

    Raises:
        CardsUnavailable: They failed.
    """
    try:
        yield
    except stripe.StripeError as error:
        raise _unavailable(error) from error
    except UNREADABLE as error:
        raise CardsUnavailable(f"stripe: an answer that cannot be read: {error!r}") from error


@contextmanager
def refusable() -> Iterator[None]:
    """As ``asking``, around calls that may never be taken as they are, by anyone who asks again.

    Raises:
        CardsUnavailable: They failed.
        ChargeRefused: They were refused, and had no effect.
    """
    with asking():
        try:
            yield
        except stripe.InvalidRequestError as error:
            raise _failure(error) from error


def _failure(error: stripe.StripeError) -> DuecourseError:
    """What a charge that failed in its only try, or in every try alike, means."""
    code = details(error).get("code")
    if (
        isinstance(error, (_NotReached, stripe.RateLimitError))
        or error.http_status in _NOT_ADMITTED
        or code == "idempotency_key_in_use"
    ):
        return _unavailable(error)
    if isinstance(error, stripe.InvalidRequestError):
        return ChargeRefused(code or "invalid", said(error))
    return unknown(error)


def _unavailable(error: stripe.StripeError) -> CardsUnavailable:
    seconds = (error.headers or {}).get("Retry-After", "")
    wait = timedelta(seconds=int(seconds)) if _SECONDS.fullmatch(seconds) else None
    # Of two requests about one object, one waits: that is not the rate.
    is_too_much = (
        isinstance(error, stripe.RateLimitError) and details(error).get("code") != "lock_timeout"
    )
    return (TooManyRequests if is_too_much else CardsUnavailable)(said(error), wait)


def unknown(error: stripe.StripeError) -> ChargeOutcomeUnknown:
    """The failure of a call that may have had its effect."""
    return ChargeOutcomeUnknown(said(error))


def said(error: stripe.StripeError) -> str:
    """The error in one line."""
    text = " ".join((error.user_message or type(error).__name__).split())[:LONGEST_MESSAGE]
    return f"stripe: {text}" if error.http_status is None else f"stripe: {error.http_status} {text}"


def details(error: stripe.StripeError) -> Mapping[str, Any]:
    """The error object of Stripe's answer; empty when there is none."""
    body = error.json_body
    details = body.get("error") if isinstance(body, dict) else None
    return details if isinstance(details, dict) else {}


class _NoAnswer(stripe.APIConnectionError):
    """The request was sent, or a part of it."""

    def __init__(self, message: str, *, should_retry: bool) -> None:
        super().__init__(  # type: ignore[no-untyped-call]  # The SDK's own has no types.
            message, should_retry=should_retry
        )


class _NotReached(_NoAnswer):
    """The request was certainly not sent."""


class _Tries(threading.local):
    """The tries of this thread's call.

    Attributes:
        in_doubt: Whether one was sent and its effect is not known. The last try alone does not
            tell: it may have been turned away after an earlier one was taken.
        ends_at: When, on the monotonic clock, the last of them must have ended.
    """

    in_doubt = False
    ends_at = 0.0

    @property
    def seconds_left(self) -> float:
        """How long the call may still take."""
        return self.ends_at - time.monotonic()


class _Connections(stripe.HTTPClient):
    """The SDK's way out. Its own clients do not tell a refused connection from a lost answer."""

    name = "urllib3"

    def __init__(
        self,
        *,
        connect_seconds: float,
        read_seconds: float,
        connections: int,
        heard: Callable[[bool], None] | None,
    ) -> None:
        super().__init__()
        self._heard = heard or (lambda _is_answered: None)
        self.tries = _Tries()
        # No retries here: the SDK makes them.
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._pool = urllib3.PoolManager(
            retries=False,
            maxsize=connections,
            block=True,
            ca_certs=stripe.ca_bundle_path,
        )

    @override
    def request_with_retries(self, *positional: Any, **keyword: Any) -> Any:
        """All tries of a call, which end in time."""
        self.tries.ends_at = time.monotonic() + CALL_SECONDS
        is_answered = False
        try:
            answer = super().request_with_retries(*positional, **keyword)
            is_answered = answer[1] < SERVER_ERROR
            return answer
        finally:
            self._heard(is_answered)

    @override
    def _should_retry(self, *positional: Any, **keyword: Any) -> bool:
        return self.tries.seconds_left > LEAST_SECONDS and super()._should_retry(
            *positional, **keyword
        )

    @override
    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        *,
        _usage: list[str] | None = None,
    ) -> tuple[str, int, Mapping[str, str]]:
        """One try.

        Raises:
            _NotReached, _NoAnswer: There is no answer, to no question or to one that was asked.
        """
        left = max(self.tries.seconds_left, LEAST_SECONDS)
        timeout = urllib3.Timeout(
            total=left, connect=self._connect_seconds, read=self._read_seconds
        )
        try:
            answer = self._pool.request(
                method.upper(), url, body=post_data, headers=headers, timeout=timeout
            )
        except (
            urllib3.exceptions.NewConnectionError,
            urllib3.exceptions.ConnectTimeoutError,
        ) as error:
            raise _NotReached(f"not reached: {error}", should_retry=True) from error
        except urllib3.exceptions.SSLError as error:
            if isinstance(error.args[0], ssl.SSLCertVerificationError):
                raise _NotReached(f"not trusted: {error}", should_retry=False) from error
            self.tries.in_doubt = True
            raise _NoAnswer(f"no answer: {error}", should_retry=False) from error
        except urllib3.exceptions.HTTPError as error:
            self.tries.in_doubt = True
            too_long = isinstance(error, urllib3.exceptions.ReadTimeoutError)
            raise _NoAnswer(f"no answer: {error}", should_retry=not too_long) from error
        if answer.status >= SERVER_ERROR:
            self.tries.in_doubt = True
        return answer.data.decode(errors="replace"), answer.status, answer.headers

    @override
    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()
