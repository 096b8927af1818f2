"""Shapes that several resources answer with."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, WithJsonSchema

Item = TypeVar("Item")

JOB_EXAMPLE: dict[str, Any] = {
    "id": "019ae8a3-5c00-7000-8000-00000000000a",
    "kind": "finalize_invoice",
    "state": "succeeded",
    "queue": "billing",
    "subject": {"type": "invoice", "id": "019ae8a3-5c00-7000-8000-000000000003"},
    "attempt": 1,
    "created_at": "2026-06-01T12:00:00Z",
    "started_at": "2026-06-01T12:00:00.010000Z",
    "finished_at": "2026-06-01T12:00:00.025000Z",
    "result": {"invoice": "019ae8a3-5c00-7000-8000-000000000003"},
    "reason": None,
    "error": None,
    "links": {
        "self": "/v1/jobs/019ae8a3-5c00-7000-8000-00000000000a",
        "subject": "/v1/invoices/019ae8a3-5c00-7000-8000-000000000003",
    },
}

AddressLines = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "null"]}}),
]


class PausesReport(BaseModel):
    """What goes on by itself, and what is paused."""

    billing: bool
    collection: bool


def _page_of_examples(schema: dict[str, Any], page: type[BaseModel]) -> None:
    """Show a page of what it lists, if that shows examples."""
    for item in page.__pydantic_generic_metadata__["args"]:
        shown = item.model_config["json_schema_extra"]["examples"]
        schema["examples"] = [{"data": shown, "next_cursor": None}]


class Page(BaseModel, Generic[Item]):
    """One page of a list. ``next_cursor`` asks for the next one; null on the last."""

    model_config = ConfigDict(json_schema_extra=_page_of_examples)

    data: list[Item]
    next_cursor: str | None = None


class Subject(BaseModel):
    """What a job works on."""

    type: str
    id: UUID


class JobError(BaseModel):
    """The last error of a job: its class, and its first line."""

    type: str
    message: str


class JobReport(BaseModel):
    """A unit of asynchronous work. `reason` is the stable code of why it was skipped or is dead."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]})

    id: UUID
    kind: str
    state: str
    queue: str
    subject: Subject | None
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: dict[str, Any] | None
    reason: str | None
    error: JobError | None
    links: dict[str, str]
