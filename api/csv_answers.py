"""Answers as JSON, or as CSV where Accept asks for it."""

import csv
import io
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Header, Response
from pydantic import BaseModel

from api.operations import Responses

Accept = Annotated[str, Header(description="`text/csv` for CSV, else JSON.")]


def or_csv(model: type[BaseModel], example: str) -> Responses:
    """What the contract says of an operation that answers ``model``, or CSV."""
    return {
        200: {
            "model": model,
            "content": {"text/csv": {"schema": {"type": "string"}, "example": example}},
        }
    }


def wants_csv(accept: str) -> bool:
    """Whether CSV is what the caller would like best."""
    return accept.split(",", 1)[0].split(";", 1)[0].strip().lower() == "text/csv"


def as_csv(columns: type[BaseModel], rows: Iterable[BaseModel]) -> Response:
    """The rows under their fields' names."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns.model_fields)
    cells: list[dict[str, Any]] = [row.model_dump() for row in rows]
    writer.writerows(row.values() for row in cells)
    return Response(out.getvalue(), media_type="text/csv")
