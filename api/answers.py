"""Answers to writes: given at once, or when the job that does the work has ended."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import UUID

import anyio
import structlog
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from billing.job_states import FINAL
from models import Job
from tasks.job_reports import job_report

MAX_WAIT_SECONDS = 30
LOOK_EVERY_SECONDS = 0.05

_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?([0-9]{1,9})\b', re.IGNORECASE)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a JSON body, and where the thing it speaks of is."""

    status: int
    body: dict[str, Any]
    location: str | None = None

    @classmethod
    def of(cls, status: int, report: BaseModel, location: str | None = None) -> "Answer":
        """The answer that shows ``report``."""
        return cls(status, report.model_dump(mode="json"), location)

    def response(self, **headers: str) -> JSONResponse:
        """The same as an HTTP response."""
        if self.location is not None:
            headers["Location"] = self.location
        return JSONResponse(self.body, self.status, headers=headers)


class JobAnswer(JSONResponse):
    """An accepted command: its finished job, if it ends within ``seconds``; else as it then is.

    Waits while it is sent, when the transaction that made the job has been committed. It holds
    neither a thread nor a connection between two looks.
    """

    def __init__(
        self,
        engine: Engine,
        accepted: Answer,
        *,
        seconds: int,
        finished: Callable[[Answer], None],
    ) -> None:
        super().__init__(accepted.body, accepted.status)
        self._engine = engine
        self._accepted = accepted
        self._seconds = seconds
        self._finished = finished

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        applied = {"Preference-Applied": f"wait={self._seconds}"}
        deadline = time.monotonic() + self._seconds
        seen = self._accepted
        while True:
            seen = await run_in_threadpool(self._look, seen)
            if seen.status == HTTPStatus.OK:
                return await seen.response(**applied)(scope, receive, send)
            if time.monotonic() >= deadline:
                return await seen.response()(scope, receive, send)
            await anyio.sleep(LOOK_EVERY_SECONDS)

    def _look(self, before: Answer) -> Answer:
        """The job as it is now, 200 once it has ended; as it was ``before`` if that is not known."""
        try:
            with Session(self._engine) as session, session.begin():
                job = session.get(Job, UUID(self._accepted.body["id"]))
                if job is None:
                    return before
                status = HTTPStatus.OK if job.state in FINAL else HTTPStatus.ACCEPTED
                seen = Answer(status, job_report(job), self._accepted.location)
            if seen.status == HTTPStatus.OK:
                self._finished(seen)
        except SQLAlchemyError as error:
            # The command is accepted all the same; the caller can ask for the job later.
            _log.warning("could not look for the job", error=str(error).split("\n", 1)[0])
            return before
        return seen


def wait_seconds(prefer: str | None) -> int:
    """How long ``Prefer: wait=N`` asks to wait, at most ``MAX_WAIT_SECONDS``; 0 without it."""
    wanted = _WAIT.search(prefer or "")
    return min(int(wanted[1]), MAX_WAIT_SECONDS) if wanted else 0


def canonical(body: bytes) -> bytes:
    """A JSON body without what makes no difference: spaces and the order of names."""
    try:
        return json.dumps(json.loads(body), sort_keys=True).encode()
    except (ValueError, RecursionError):
        return body
