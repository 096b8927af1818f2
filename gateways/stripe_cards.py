"""Stripe, behind the CardGateway protocol."""

import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import stripe
import urllib3
from typing_extensions import override

from billing.card_amounts import from_stripe, to_stripe
from billing.declines import DeclineClass, decline_class
from billing.errors import DuecourseError, InvalidInput
from gateways.cards import (
    CardCharge,
    CardRefund,
    CardReport,
    CardStatus,
    CardsUnavailable,
    ChargeOutcomeUnknown,
    ChargeRefused,
    RefundReport,
    RefundStatus,
)

CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
# With all its tries: less than a worker that is told to stop has for what it has begun (25 s).
CALL_SECONDS = 20.0
# What a try must have left to be worth making.
LEAST_SECONDS = 2.0
CONNECTIONS = 64
RETRIES = 2
LOOK_BACK = timedelta(hours=1)
PAGE = 100
LONGEST_MESSAGE = 300

_STATUSES = {
    "succeeded": CardStatus.SUCCEEDED,
    "processing": CardStatus.PROCESSING,
    "requires_action": CardStatus.NEEDS_ACTION,
    "canceled": CardStatus.CANCELED,
}
_REFUND_STATUSES = {
    "succeeded": RefundStatus.SUCCEEDED,
    "pending": RefundStatus.PROCESSING,
    # The client has to say where to: Stripe has mailed it.
    "requires_action": RefundStatus.PROCESSING,
    "failed": RefundStatus.FAILED,
    "canceled": RefundStatus.FAILED,
}
# A key that was revoked or has not the right: put right by someone, nothing was charged.
_NOT_ADMITTED = frozenset({401, 403})
# Whatever an answer is that is not Stripe's, reading it fails with one of these.
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)
_SECONDS = re.compile(r"[0-9]{1,6}")


class StripeCards:
    """Charges through Stripe's SDK over connections that are kept.

    A try that fails is made again, with the same idempotency key, up to twice and for as long as
    ``CALL_SECONDS`` allow. One that took too long is not: the job asks later.

    Args:
        secret_key: Starts with "sk_" or "rk_".
        base_url: Where Stripe is, when that is a sandbox.
        connect_seconds: How long reaching it may take, each try.
        read_seconds: How long it may take to answer, each try.
        connections: How many calls may be under way at a time; more threads wait for each other.

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
    ) -> None:
        # Sent as a header such a key would fail, in a message that shows it.
        if not (secret_key.isascii() and secret_key.isprintable()) or set(secret_key) <= {" "}:
            raise ValueError("the Stripe secret key is empty, or has characters that no key has")
        self._connections = _Connections(
            connect_seconds=connect_seconds, read_seconds=read_seconds, connections=connections
        )
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={} if base_url is None else {"api": base_url.rstrip("/")},
            max_network_retries=RETRIES,
            http_client=self._connections,
        )

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

    def charge(self, order: CardCharge) -> CardReport:
        """Charge with nobody present; see ``CardGateway``."""
        amount = _sendable(order)
        tries = self._connections.tries
        tries.in_doubt = False
        try:
            created = self._client.v1.payment_intents.create(
                {
                    "amount": amount,
                    "currency": order.currency,
                    "customer": order.customer,
                    "payment_method": order.payment_method,
                    "off_session": True,
                    "confirm": True,
                    # Else Stripe may ask for a page to send the client back to.
                    "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
                    "description": order.description,
                    "metadata": dict(order.metadata),
                },
                {"idempotency_key": order.idempotency_key},
            )
            return _report(created.to_dict())
        except stripe.CardError as error:
            return _decline(error)
        except stripe.StripeError as error:
            if tries.in_doubt:
                raise _unknown(error) from error
            raise _failure(error) from error
        except _UNREADABLE as error:
            raise ChargeOutcomeUnknown(
                f"stripe: an answer that cannot be read: {error!r}"
            ) from error

    def look_up(self, order: CardCharge) -> CardReport | None:
        """How a charge stands, if there is one; see ``CardGateway``."""
        attempt = order.metadata["attempt"]
        # Not by searching, which finds a new payment a minute late.
        with _asking():
            listed = self._client.v1.payment_intents.list(
                {
                    "customer": order.customer,
                    "created": {"gte": int((order.sent_since - LOOK_BACK).timestamp())},
                    "limit": PAGE,
                }
            )
            intents = (intent.to_dict() for intent in listed.auto_paging_iter())
            reports = [
                _report(intent)
                for intent in intents
                if intent["metadata"].get("attempt") == attempt
            ]
        # A key that Stripe forgot may have made a second one: that with the money counts.
        return min(reports, key=lambda report: list(CardStatus).index(report.status), default=None)

    def retrieve(self, payment_intent: str) -> CardReport:
        """How a payment stands; see ``CardGateway``."""
        with _asking():
            return _report(self._client.v1.payment_intents.retrieve(payment_intent).to_dict())

    def cancel(self, payment_intent: str) -> CardReport:
        """Give a payment up; see ``CardGateway``."""
        with _asking():
            try:
                return _report(self._client.v1.payment_intents.cancel(payment_intent).to_dict())
            except stripe.InvalidRequestError as error:
                if error.code == "resource_missing":
                    raise ChargeRefused(error.code, _said(error)) from error
                if error.code != "payment_intent_unexpected_state":
                    raise
        return self.retrieve(payment_intent)

    def refund(self, order: CardRefund) -> RefundReport:
        """Give money back to where it came from; see ``CardGateway``."""
        amount = _sendable(order)
        tries = self._connections.tries
        tries.in_doubt = False
        try:
            created = self._client.v1.refunds.create(
                {
                    "payment_intent": order.payment_intent,
                    "amount": amount,
                    "metadata": dict(order.metadata),
                },
                {"idempotency_key": order.idempotency_key},
            )
            return _refund(created.to_dict())
        except stripe.StripeError as error:
            if tries.in_doubt:
                raise _unknown(error) from error
            raise _failure(error) from error
        except _UNREADABLE as error:
            raise ChargeOutcomeUnknown(
                f"stripe: an answer that cannot be read: {error!r}"
            ) from error

    def look_up_refund(self, order: CardRefund) -> RefundReport | None:
        """How a refund stands, if there is one; see ``CardGateway``."""
        wanted = order.metadata["refund"]
        with _asking():
            listed = self._client.v1.refunds.list(
                {"payment_intent": order.payment_intent, "limit": PAGE}
            )
            refunds = (refund.to_dict() for refund in listed.auto_paging_iter())
            reports = [
                _refund(refund)
                for refund in refunds
                if (refund.get("metadata") or {}).get("refund") == wanted
            ]
        return min(
            reports, key=lambda report: list(RefundStatus).index(report.status), default=None
        )

    def retrieve_refund(self, refund: str) -> RefundReport:
        """How a refund stands; see ``CardGateway``."""
        with _asking():
            return _refund(self._client.v1.refunds.retrieve(refund).to_dict())


def refund_report(refund: Mapping[str, Any]) -> RefundReport | None:
    """How a refund of Stripe's stands, if it is in a state that is known here.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is no refund.
    """
    if refund["object"] != "refund":
        raise ValueError(f"{refund['object']} is no refund")
    status = _REFUND_STATUSES.get(refund["status"])
    if status is None:
        return None
    return RefundReport(
        refund=str(refund["id"]),
        status=status,
        message=refund.get("failure_reason") if status is RefundStatus.FAILED else None,
        metadata=dict(refund.get("metadata") or {}),
    )


def _refund(refund: Mapping[str, Any]) -> RefundReport:
    report = refund_report(refund)
    if report is None:
        raise ChargeOutcomeUnknown(f"stripe: {refund['id']} is {refund['status']}")
    return report


def _sendable(order: CardCharge | CardRefund) -> int:
    """What an order asks for, as Stripe counts it.

    Raises:
        ChargeRefused: Stripe cannot be sent such an amount.
        ValueError: It has no key.
    """
    if not order.idempotency_key:
        raise ValueError("a call needs an idempotency key: the SDK would make up another one")
    try:
        return to_stripe(order.amount, order.currency)
    except InvalidInput as error:
        raise ChargeRefused(f"invalid_{error.field}", error.message) from error


def card_report(intent: Mapping[str, Any]) -> CardReport | None:
    """How a payment intent of Stripe's stands, if it is in one of the states of ``CardStatus``.

    ``None`` also where our minor units cannot hold what was received: of such an amount we have
    sent none.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is no payment intent.
    """
    error = intent.get("last_payment_error") or {}
    status = _STATUSES.get(intent["status"])
    if intent["status"] == "requires_payment_method" and error:
        kind = decline_class(error.get("decline_code"), error.get("code"))
        is_waiting = kind is DeclineClass.NEEDS_AUTHENTICATION
        status = CardStatus.NEEDS_ACTION if is_waiting else CardStatus.DECLINED
    if status is None:
        return None
    currency, received = str(intent["currency"]), 0
    if status is CardStatus.SUCCEEDED:
        try:
            received = from_stripe(int(intent["amount_received"]), currency)
        except InvalidInput:
            return None
    is_unpaid = status in {CardStatus.DECLINED, CardStatus.NEEDS_ACTION}
    return CardReport(
        payment_intent=str(intent["id"]),
        status=status,
        amount_received=received,
        currency=currency,
        decline_code=error.get("decline_code") or error.get("code") if is_unpaid else None,
        message=error.get("message") if is_unpaid else None,
        metadata=dict(intent.get("metadata") or {}),
    )


def _report(intent: Mapping[str, Any]) -> CardReport:
    report = card_report(intent)
    if report is None:
        raise ChargeOutcomeUnknown(f"stripe: {intent['id']} is {intent['status']}")
    return report


def _decline(error: stripe.CardError) -> CardReport:
    intent = _details(error).get("payment_intent")
    if not isinstance(intent, dict):
        raise ChargeRefused(error.code or "card_error", _said(error)) from error
    try:
        return _report(intent)
    except _UNREADABLE as unreadable:
        raise _unknown(error) from unreadable


def _failure(error: stripe.StripeError) -> DuecourseError:
    """What a charge that failed in its only try, or in every try alike, means."""
    code = _details(error).get("code")
    if (
        isinstance(error, (_NotReached, stripe.RateLimitError))
        or error.http_status in _NOT_ADMITTED
        or code == "idempotency_key_in_use"
    ):
        return _unavailable(error)
    if isinstance(error, stripe.InvalidRequestError):
        return ChargeRefused(code or "invalid", _said(error))
    return _unknown(error)


def _unavailable(error: stripe.StripeError) -> CardsUnavailable:
    seconds = (error.headers or {}).get("Retry-After", "")
    wait = timedelta(seconds=int(seconds)) if _SECONDS.fullmatch(seconds) else None
    return CardsUnavailable(_said(error), wait)


def _unknown(error: stripe.StripeError) -> ChargeOutcomeUnknown:
    return ChargeOutcomeUnknown(_said(error))


def _said(error: stripe.StripeError) -> str:
    """The error in one line."""
    text = " ".join((error.user_message or type(error).__name__).split())[:LONGEST_MESSAGE]
    return f"stripe: {text}" if error.http_status is None else f"stripe: {error.http_status} {text}"


def _details(error: stripe.StripeError) -> Mapping[str, Any]:
    """The error object of Stripe's answer; empty when there is none."""
    body = error.json_body
    details = body.get("error") if isinstance(body, dict) else None
    return details if isinstance(details, dict) else {}


@contextmanager
def _asking() -> Iterator[None]:
    """Around calls that can be made again whatever became of them."""
    try:
        yield
    except stripe.StripeError as error:
        raise _unavailable(error) from error
    except _UNREADABLE as error:
        raise CardsUnavailable(f"stripe: an answer that cannot be read: {error!r}") from error


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

    def __init__(self, *, connect_seconds: float, read_seconds: float, connections: int) -> None:
        super().__init__()
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
        return super().request_with_retries(*positional, **keyword)

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
        if answer.status >= 500:
            self.tries.in_doubt = True
        return answer.data.decode(errors="replace"), answer.status, answer.headers

    @override
    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()
