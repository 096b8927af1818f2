"""Answers as JSON, or as CSV where Accept asks for it."""

import csv
import io
import re
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Header, Response
from pydantic import BaseModel

from api.operations import Responses

Accept = Annotated[str, Header(description="`text/csv` for CSV, else JSON.")]

# A spreadsheet runs a cell that begins so, whoever wrote its text; but it reads a number as one.
_FORMULA = re.compile(r"[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


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
    return likes_best(accept, "text/csv")


def likes_best(accept: str, media_type: str) -> bool:
    """Whether the caller names this type first."""
    return accept.split(",", 1)[0].split(";", 1)[0].strip().lower() == media_type


def as_csv(columns: type[BaseModel], rows: Iterable[BaseModel]) -> Response:
    """The rows under their fields' names; no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns.model_fields)
    cells: list[dict[str, Any]] = [row.model_dump() for row in rows]
    writer.writerows(map(_cell, row.values()) for row in cells)
    return Response(out.getvalue(), media_type="text/csv")


def _cell(value: object) -> object:
    """The value; a text that a spreadsheet would run gets an apostrophe before it."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
