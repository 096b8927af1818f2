"""The kinds of job: a name, a queue, typed arguments, and the function that does the work."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, get_type_hints
from uuid import UUID

from pydantic import BaseModel, ConfigDict, create_model
from sqlalchemy.orm import Session

from tasks.calls import Step
from tasks.turnstile import Turnstile

DEFAULT_MAX_ATTEMPTS = 8

DEFAULT_PRIORITY = 100
"""Of what somebody waits for, such as one invoice. Lower is served first."""

BULK_PRIORITY = 200
"""Of what comes by the thousand: it must not keep a person's click waiting."""

# Under this name wait the positional arguments of a message whose kind was not known when it came.
POSITIONAL = "positional"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a job's function may know of the run it is in.

    ``now`` is when the run began, by the database's clock; it is the only clock the work asks.
    ``turnstile`` gives the turns at Stripe accounts; without one each may be asked at any time.
    """

    job_id: UUID
    account_id: UUID | None
    attempt: int
    now: datetime
    requested_by: str
    turnstile: Turnstile | None = None


class Body(Protocol):
    """The work of a job: everything it writes commits together with the job's own end."""

    __name__: str

    def __call__(self, run: Run, session: Session, /, **arguments: Any) -> Step:
        """Do the work in ``session``'s transaction, and say what came of it, or what to ask."""
        ...


@dataclass(frozen=True, slots=True)
class JobKind:
    """One kind of job. ``subject`` names the object its first argument identifies, if any."""

    name: str
    queue: str
    subject: str | None
    max_attempts: int
    priority: int
    body: Body
    arguments: type[BaseModel]

    def dump(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as JSON values, checked against the function's signature.

        Those that have their default are left out: a worker of the last release, which does not
        know a new one yet, can do what does not ask for it.

        Raises:
            pydantic.ValidationError: They do not fit.
        """
        return self.arguments.model_validate(values).model_dump(mode="json", exclude_defaults=True)

    def load(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as the function takes them, from what ``dump`` gave.

        Raises:
            pydantic.ValidationError: They do not fit, as from another release's code.
        """
        by_name = {name: value for name, value in values.items() if name != POSITIONAL}
        model = self.arguments.model_validate(self.named(values.get(POSITIONAL, ()), by_name))
        return {name: getattr(model, name) for name in type(model).model_fields}

    def named(self, positional: Sequence[Any], keyword: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, from a message that may give them by position; unchecked.

        Those that no name is left for are numbered: no kind takes them.
        """
        names = list(self.arguments.model_fields)[: len(positional)]
        if len(names) < len(positional) or not keyword.keys().isdisjoint(names):
            names = [f"argument {index}" for index in range(len(positional))]
        return {**dict(zip(names, positional, strict=True)), **keyword}


KINDS: dict[str, JobKind] = {}
"""Every kind whose module has been imported, by name."""


def job(
    *,
    queue: str,
    subject: str | None = None,
    max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    priority: int = DEFAULT_PRIORITY,
) -> Callable[[Callable[..., Step]], JobKind]:
    """Make a function a kind of job, under the function's own name."""

    def register(body: Callable[..., Step]) -> JobKind:
        kind = JobKind(
            body.__name__, queue, subject, max_attempts, priority, body, _arguments(body)
        )
        if KINDS.setdefault(kind.name, kind) is not kind:
            raise ValueError(f"two kinds of job are called {kind.name}")
        return kind

    return register


def _arguments(body: Callable[..., Step]) -> type[BaseModel]:
    """A model of what ``body`` takes after its run and session."""
    hints = get_type_hints(body)
    parameters = list(inspect.signature(body).parameters.values())[2:]
    fields: dict[str, Any] = {
        parameter.name: (
            hints[parameter.name],
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in parameters
    }
    return create_model(body.__name__, __config__=ConfigDict(extra="forbid"), **fields)
