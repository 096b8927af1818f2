"""Each POST done once per Idempotency-Key, and answered the same every time."""

import hashlib
import json
from collections.abc import Callable
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import Engine, Update, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api.answers import Answer, JobAnswer, canonical, wait_seconds
from api.auth import Known
from api.problems import Refusal
from api.shapes import JobReport
from api.transactions import EngineOf, Transaction, engine_of
from models import IdempotencyKey, Job
from tasks.job_reports import job_report

MAX_KEY_LENGTH = 255


class AnsweredBefore(Exception):  # noqa: N818 - named as the fact it states
    """The request was done already; its answer is given again."""

    def __init__(self, answer: Answer, account_id: UUID, key: str) -> None:
        super().__init__(key)
        self.answer = answer
        self.account_id = account_id
        self.key = key


class Once:
    """The answer to one request, written down under its key in the request's own transaction."""

    def __init__(
        self,
        engine: Engine,
        session: Session,
        account_id: UUID,
        *,
        key: str | None = None,
        prefer: str | None = None,
    ) -> None:
        self._engine = engine
        self._session = session
        self._account_id = account_id
        self._key = key
        self.prefer = prefer

    def done(
        self,
        report: BaseModel,
        *,
        status: int = 200,
        location: str | None = None,
        kept: BaseModel | None = None,
    ) -> JSONResponse:
        """The work is done. A repeated request is told ``kept``, where that says less."""
        self._keep(Answer.of(status, report if kept is None else kept, location))
        return Answer.of(status, report, location).response()

    def accepted(self, job_id: UUID) -> JSONResponse:
        """A job will do the work: 202, or 200 if it ends as soon as the caller will wait."""
        job = self._session.get_one(Job, job_id, populate_existing=True)
        report = JobReport.model_validate(job_report(job))
        answer = Answer.of(202, report, location=f"/v1/jobs/{job_id}")
        self._keep(answer)
        return _respond(self._engine, answer, self._account_id, self._key, self.prefer)

    def _keep(self, answer: Answer) -> None:
        if self._key is not None:
            self._session.execute(_keeping(self._account_id, self._key, answer))


async def raw_body(request: Request) -> bytes:
    """The body as it was sent."""
    return await request.body()


def once(
    request: Request,
    session: Transaction,
    caller: Known,
    body: Annotated[bytes, Depends(raw_body)],
    *,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=MAX_KEY_LENGTH,
            description="Names this request: repeated with the same body it is done once and "
            "answered the same. Keys are remembered for three days.",
        ),
    ] = None,
) -> Once:
    """The request, if it is not done yet. Another one under the same key is waited for.

    Raises:
        AnsweredBefore: It is done.
        Refusal: The key was used for another request (``idempotency_key_reused``).
    """
    engine = engine_of(request)
    if key is None:
        return Once(engine, session, caller.account_id)
    target = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    digest = hashlib.sha256(target + canonical(body)).hexdigest()
    # A row that another transaction has inserted and not committed is waited for here.
    new = session.scalar(
        insert(IdempotencyKey)
        .values(account_id=caller.account_id, key=key, request_sha256=digest)
        .on_conflict_do_nothing()
        .returning(IdempotencyKey.key)
    )
    if new is not None:
        return Once(engine, session, caller.account_id, key=key)
    known = session.get_one(IdempotencyKey, (caller.account_id, key))
    if known.request_sha256 != digest:
        raise Refusal(
            "idempotency_key_reused",
            "This Idempotency-Key was used for another request; give each its own.",
        )
    if known.status is None or known.body is None:
        raise AssertionError("a key is committed with its answer")
    location = (known.headers or {}).get("Location")
    answer = Answer(known.status, json.loads(known.body), location)
    raise AnsweredBefore(answer, caller.account_id, key)


OnceOnly = Annotated[Once, Depends(once)]
Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="`wait=N`: answer 200 with the finished job if it ends in N seconds, at most 30.",
    ),
]


def commanded(once: OnceOnly, prefer: Prefer = None) -> Once:
    """A request that a job will do, and whose caller may wait for it."""
    once.prefer = prefer
    return once


def commanded_without_key(
    engine: EngineOf, session: Transaction, caller: Known, prefer: Prefer = None
) -> Once:
    """A command that is harmless to repeat, and so takes no key."""
    return Once(engine, session, caller.account_id, prefer=prefer)


async def answer_again(request: Request, before: AnsweredBefore) -> JSONResponse:
    """The answer that the request got the first time."""
    prefer = request.headers.get("prefer")
    return _respond(engine_of(request), before.answer, before.account_id, before.key, prefer)


def _respond(
    engine: Engine, answer: Answer, account_id: UUID, key: str | None, prefer: str | None
) -> JSONResponse:
    seconds = wait_seconds(prefer)
    if answer.status != 202 or seconds == 0:
        return answer.response()
    return JobAnswer(engine, answer, seconds=seconds, finished=_keeper(engine, account_id, key))


def _keeper(engine: Engine, account_id: UUID, key: str | None) -> Callable[[Answer], None]:
    """Writes a waited-for answer down over the one that only promised it."""

    def keep(answer: Answer) -> None:
        if key is not None:
            with Session(engine) as session, session.begin():
                session.execute(_keeping(account_id, key, answer))

    return keep


def _keeping(account_id: UUID, key: str, answer: Answer) -> Update:
    return (
        update(IdempotencyKey)
        .where(IdempotencyKey.account_id == account_id, IdempotencyKey.key == key)
        .values(
            status=answer.status,
            body=json.dumps(answer.body),
            headers={} if answer.location is None else {"Location": answer.location},
        )
        .execution_options(synchronize_session=False)
    )


Commanded = Annotated[Once, Depends(commanded)]
CommandedWithoutKey = Annotated[Once, Depends(commanded_without_key)]
