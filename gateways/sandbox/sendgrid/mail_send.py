"""POST /v3/mail/send."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateways.sandbox.sendgrid.connections import Silence, connection_of
from gateways.sandbox.sendgrid.events import EventKind, events_of
from gateways.sandbox.sendgrid.faults import Fault, FaultKind
from gateways.sandbox.sendgrid.folders import Folders
from gateways.sandbox.sendgrid.letters import letters_of
from gateways.sandbox.sendgrid.postman import body_of
from gateways.sandbox.sendgrid.problems import Problem
from gateways.sandbox.sendgrid.rules import MAX_BODY_BYTES, JsonObject, is_sandboxed, problems_of
from gateways.sandbox.sendgrid.store import Store

_KEY = re.compile(r"Bearer SG\.[\w.-]+", re.ASCII)
_STATUS_MESSAGES = {
    400: "Bad Request",
    401: "authorization required",
    403: "access forbidden",
    404: "not found",
    405: "method not allowed",
    413: "content too large",
    415: "unsupported media type",
    429: "too many requests",
    500: "internal server error",
    503: "service unavailable",
}


class Refused(Exception):  # noqa: N818 - named as the fact it states.
    """The request is answered with an error."""

    def __init__(self, status: int, problems: Sequence[Problem] = ()) -> None:
        super().__init__(status)
        self.status = status
        self.problems = problems or [Problem(_STATUS_MESSAGES.get(status, "error"))]


@dataclass(frozen=True, slots=True)
class MailSend:
    """The endpoint, with what it writes to."""

    store: Store
    folders: Folders

    async def __call__(self, request: Request) -> Response:
        """Answer as SendGrid does: 202 and an id, or ``errors``; or as a fault wants it."""
        body, size = await _body(request)
        log = self.store.begin_request(
            at=time.time(), connection=connection_of(request).name, size=size
        )
        try:
            _check_key(request)
        except Refused as refusal:
            return self._refuse(refusal, log, None)
        fault = self.store.take_fault()
        if fault is not None and fault.kind in (FaultKind.HANG, FaultKind.RESET):
            self.store.end_request(log, status=None, fault=fault)
            return await _silence(request, fault)
        try:
            _check_fault(fault)
            payload = _checked(request, body, size)
        except Refused as refusal:
            return self._refuse(refusal, log, fault)
        if is_sandboxed(payload):
            self.store.end_request(log, status=200, fault=fault)
            return Response(status_code=200)
        return await self._accept(request, payload, log, fault)

    def _refuse(self, refusal: Refused, log: int, fault: Fault | None) -> Response:
        problems = [problem.as_json() for problem in refusal.problems]
        self.store.end_request(log, status=refusal.status, fault=fault, problems=problems)
        response = errors(refusal.status, refusal.problems)
        if refusal.status == 429:
            wait = fault.seconds if fault else 0.0
            response.headers["X-RateLimit-Remaining"] = "0"
            response.headers["X-RateLimit-Reset"] = str(int(time.time() + wait))
        return response

    async def _accept(
        self, request: Request, payload: JsonObject, log: int, fault: Fault | None
    ) -> Response:
        message_id, now = secrets.token_urlsafe(16), time.time()
        letters = list(letters_of(payload))
        webhook = self.store.webhook
        numbers = self.store.accept(
            payload,
            letters,
            request=log,
            message_id=message_id,
            at=now,
            deliveries=[
                body_of(events_of(letter, EventKind(kind), message_id=message_id, at=now))
                for letter in letters
                for kind in (webhook.automatic if webhook else ())
            ],
        )
        for number, letter in zip(numbers, letters, strict=True):
            self.folders.write(number, letter, message_id=message_id, accepted_at=now)
        if fault is not None and fault.kind is FaultKind.LOST_REPLY:
            self.store.end_request(log, status=None, fault=fault)
            return Silence(connection_of(request))
        self.store.end_request(log, status=202, fault=fault)
        if fault is not None:
            await asyncio.sleep(fault.seconds)
        return Response(status_code=202, headers={"X-Message-Id": message_id})


def errors(status: int, problems: Sequence[Problem] = ()) -> JSONResponse:
    """An answer in SendGrid's form of errors."""
    found = problems or [Problem(_STATUS_MESSAGES.get(status, "error"))]
    return JSONResponse({"errors": [problem.as_json() for problem in found]}, status)


async def _body(request: Request) -> tuple[bytes, int]:
    """The body, as far as it may be long, and its length.

    It is read to its end all the same: a client that is still writing would miss the answer.
    """
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            body += chunk
    return bytes(body), size


def _check_key(request: Request) -> None:
    authorization = request.headers.get("authorization")
    if authorization is None:
        raise Refused(401)
    if not _KEY.fullmatch(authorization):
        raise Refused(
            401,
            [Problem("The provided authorization grant is invalid, expired, or revoked")],
        )


def _check_fault(fault: Fault | None) -> None:
    if fault is not None and fault.kind is FaultKind.STATUS:
        raise Refused(fault.status)


def _checked(request: Request, body: bytes, size: int) -> JsonObject:
    """The request's payload, found without a fault."""
    if size > MAX_BODY_BYTES:
        raise Refused(413)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise Refused(415)
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400) from None
    problems = problems_of(payload, now=time.time())
    if problems:
        raise Refused(400, problems)
    return payload  # type: ignore[no-any-return]  # It is an object: another type is a problem.


async def _silence(request: Request, fault: Fault) -> Response:
    if fault.kind is FaultKind.HANG:
        with suppress(TimeoutError):
            # The body has been read, so all that can still come is the end of the connection.
            await asyncio.wait_for(request.receive(), fault.seconds)
    return Silence(connection_of(request), reset=fault.kind is FaultKind.RESET)
