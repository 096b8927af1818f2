"""Query parameters that no operation declares are refused, as unknown body fields are."""

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from api.auth import Known


def only_declared(request: Request, _caller: Known) -> None:
    """Take no query parameter that the OpenAPI document does not list for the operation.

    Raises:
        RequestValidationError: There are others; each is named.
    """
    if not request.query_params:
        return
    route: APIRoute = request.scope["route"]
    operation: dict[str, Any] = request.app.openapi()["paths"][route.path][request.method.lower()]
    declared = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
    unknown = [name for name in request.query_params if name not in declared]
    if unknown:
        raise RequestValidationError(
            [{"type": "extra_forbidden", "loc": ("query", name)} for name in unknown]
        )
