from collections.abc import Iterator
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models import Queue
from tasks.actors import _SUBJECTS
from tasks.catalogue import KINDS
from tasks.kinds import BULK_PRIORITY, DEFAULT_PRIORITY, JobKind, Run, job
from tasks.outcomes import Done, Outcome
from tests.jobs import kinds_of_its_own

CLIENT = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


@pytest.fixture(autouse=True)
def _catalogue_kept() -> Iterator[None]:
    with kinds_of_its_own():
        yield


def bill_it(_run: Run, _session: Session, client_id: UUID, on: date, note: str = "") -> Outcome:
    return Done({"client": str(client_id), "on": on.isoformat(), "note": note})


@pytest.fixture
def kind() -> JobKind:
    return job(queue="billing", subject="client", max_attempts=3)(bill_it)


def test_a_function_becomes_a_kind_under_its_own_name(kind: JobKind) -> None:
    assert KINDS["bill_it"] is kind
    assert (kind.name, kind.queue, kind.subject, kind.max_attempts) == (
        *("bill_it", "billing"),
        *("client", 3),
    )
    assert kind.priority == DEFAULT_PRIORITY


def test_a_kind_may_let_others_go_first() -> None:
    kind = job(queue="billing", priority=BULK_PRIORITY)(bill_it)

    assert kind.priority > DEFAULT_PRIORITY  # Lower is served first.


def test_two_kinds_of_one_name_are_refused(kind: JobKind) -> None:
    with pytest.raises(ValueError, match="two kinds of job are called bill_it"):
        job(queue="ops")(bill_it)
    assert KINDS["bill_it"] is kind


def test_arguments_come_back_as_what_the_function_takes(kind: JobKind) -> None:
    written = kind.dump({"client_id": CLIENT, "on": date(2026, 6, 1), "note": ""})

    # Not the default: the last release's worker may not know the argument yet.
    assert written == {"client_id": str(CLIENT), "on": "2026-06-01"}
    assert kind.load(written) == {"client_id": CLIENT, "on": date(2026, 6, 1), "note": ""}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"client_id": CLIENT},
        {"client_id": "Ada", "on": date(2026, 6, 1)},
        {"client_id": CLIENT, "on": date(2026, 6, 1), "colour": "red"},
    ],
    ids=["none", "one missing", "one wrong", "one too many"],
)
def test_arguments_that_do_not_fit_are_refused(kind: JobKind, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind.dump(arguments)
    with pytest.raises(ValidationError):
        kind.load(arguments)


@pytest.mark.parametrize(
    ("positional", "keyword"),
    [
        ((str(CLIENT), "2026-06-01", "x"), {}),
        ((str(CLIENT), "2026-06-01"), {"note": "x"}),
        ((str(CLIENT),), {"note": "x", "on": "2026-06-01"}),
        ((), {"note": "x", "on": "2026-06-01", "client_id": str(CLIENT)}),
    ],
)
def test_arguments_may_come_by_position_or_by_name(
    kind: JobKind, positional: tuple[Any, ...], keyword: dict[str, Any]
) -> None:
    expected = {"client_id": CLIENT, "on": date(2026, 6, 1), "note": "x"}
    assert kind.load(kind.named(positional, keyword)) == expected
    assert kind.load({"positional": list(positional), **keyword}) == expected


@pytest.mark.parametrize(
    ("positional", "keyword"),
    [
        ((str(CLIENT), "2026-06-01", "x", "y"), {}),
        ((str(CLIENT), "2026-06-01"), {"client_id": str(CLIENT)}),
    ],
    ids=["too many", "one given twice"],
)
def test_arguments_by_position_that_do_not_fit_are_kept_and_refused(
    kind: JobKind, positional: tuple[Any, ...], keyword: dict[str, Any]
) -> None:
    named = kind.named(positional, keyword)

    assert set(positional) <= set(named.values())
    with pytest.raises(ValidationError):
        kind.load(named)


def test_every_kind_s_queue_is_there(engine: Engine) -> None:
    with Session(engine) as session:
        queues = set(session.scalars(select(Queue.name)))
    assert {kind.queue for kind in KINDS.values()} == queues


@pytest.mark.parametrize("kind", list(KINDS.values()), ids=lambda kind: kind.name)
def test_a_subject_is_what_the_first_argument_identifies(kind: JobKind) -> None:
    if kind.subject is not None:
        first = next(iter(kind.arguments.model_fields.values()))
        assert first.annotation is UUID
        assert kind.subject in _SUBJECTS
