"""What the API answers when it refuses: problem documents (RFC 9457), each with a stable code."""

from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from http import HTTPMethod, HTTPStatus
from types import MappingProxyType
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

from billing.errors import InvalidInput, NotFound, RuleViolation

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS_LISTED = 50
RETRY_AFTER_SECONDS = 5

_log = structlog.get_logger(__name__)

STATUSES: Mapping[str, int] = MappingProxyType(
    {
        "malformed": 400,
        "unauthenticated": 401,
        "untrusted_events": 401,
        "scope_missing": 403,
        "not_found": 404,
        "account_not_found": 404,
        "api_key_not_found": 404,
        "backup_method_not_found": 404,
        "billing_method_not_found": 404,
        "billing_run_not_found": 404,
        "charge_not_found": 404,
        "client_not_found": 404,
        "credit_note_not_found": 404,
        "difference_not_found": 404,
        "dispute_not_found": 404,
        "invoice_not_found": 404,
        "job_not_found": 404,
        "payment_not_found": 404,
        "queue_not_found": 404,
        "reconciliation_not_found": 404,
        "schedule_not_found": 404,
        "stripe_key_not_found": 404,
        "tax_rate_not_found": 404,
        "method_not_allowed": 405,
        "billing_already_started": 409,
        "charge_already_invoiced": 409,
        "charge_amended": 409,
        "charge_locked": 409,
        "charge_voided": 409,
        "client_archived": 409,
        "client_has_drafts": 409,
        "difference_already_acknowledged": 409,
        "difference_not_acknowledged": 409,
        "difference_not_standing": 409,
        "edit_the_original": 409,
        "external_ref_taken": 409,
        "insufficient_credit": 409,
        "invoice_already_reissued": 409,
        "invoice_credited": 409,
        "invoice_not_draft": 409,
        "invoice_not_finalized": 409,
        "invoice_not_open": 409,
        "invoice_not_void": 409,
        "invoice_partly_paid": 409,
        "job_not_cancellable": 409,
        "job_not_retryable": 409,
        "line_already_credited": 409,
        "no_billing_method": 409,
        "no_email": 409,
        "nothing_to_bill": 409,
        "nothing_to_credit": 409,
        "nothing_to_refund": 409,
        "nothing_to_send": 409,
        "number_format_taken": 409,
        "number_series_used": 409,
        "payment_disputed": 409,
        "payment_in_flight": 409,
        "refund_in_flight": 409,
        "stripe_account_taken": 409,
        "stripe_customer_taken": 409,
        "total_changed": 409,
        "too_large": 413,
        "amount_exceeds_due": 422,
        "books_closed": 422,
        "amount_exceeds_invoice": 422,
        "amount_exceeds_paid": 422,
        "idempotency_key_reused": 422,
        "invalid": 422,
        "internal_error": 500,
        "database_unavailable": 503,
        "links_not_configured": 503,
        "not_ready": 503,
        "webhooks_not_configured": 503,
    }
)
"""Every code there is, with the HTTP status it goes with."""

_CODES_OF_HTTP = {
    400: "malformed",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
}

# Two requests can pass the same check at once; the database then refuses the second.
_CODES_OF_CONSTRAINTS = {
    "uq_clients_external_ref": ("external_ref_taken", "Another client has this external_ref."),
    "uq_charges_external_ref": ("external_ref_taken", "Another charge has this external_ref."),
}


class FieldError(BaseModel):
    """One field that is wrong: its name, such as ``charges[3].unit_price``, and what to do."""

    field: str
    message: str


class Problem(BaseModel):
    """Why a request was refused. ``code`` is for programs, ``detail`` for people."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] = []


class Refusal(Exception):  # noqa: N818 - named as the fact it states
    """A request that is refused; ``code`` is one of ``STATUSES``."""

    def __init__(self, code: str, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = errors


def problem_response(
    code: str,
    detail: str,
    errors: Iterable[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    *,
    status: int | None = None,
) -> JSONResponse:
    """The problem document for ``code``, at most ``MAX_ERRORS_LISTED`` of its errors."""
    listed = list(errors)
    if len(listed) > MAX_ERRORS_LISTED:
        detail = f"{detail} The first {MAX_ERRORS_LISTED} of {len(listed)} are listed."
    status = STATUSES[code] if status is None else status
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        errors=listed[:MAX_ERRORS_LISTED],
    )
    return JSONResponse(
        problem.model_dump(), status, headers=dict(headers or {}), media_type=MEDIA_TYPE
    )


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of an operation that may answer with these codes."""
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in codes:
        by_status[STATUSES[code]].append(code)
    return {
        status: {
            "description": f"{HTTPStatus(status).phrase}: "
            + ", ".join(f"`{c}`" for c in of_status),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": {
                        "type": "about:blank",
                        "title": HTTPStatus(status).phrase,
                        "status": status,
                        "code": of_status[0],
                        "detail": "What is wrong, in a sentence.",
                        "errors": [],
                    },
                }
            },
        }
        for status, of_status in sorted(by_status.items())
    }


async def _refused(_request: Request, refusal: Refusal) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if refusal.code == "unauthenticated" else None
    return problem_response(refusal.code, refusal.detail, refusal.errors, headers)


async def _invalid_input(_request: Request, error: InvalidInput) -> JSONResponse:
    return problem_response(
        error.code, _INVALID, [FieldError(field=error.field, message=error.message)]
    )


async def _not_found(_request: Request, error: NotFound) -> JSONResponse:
    return problem_response(error.code, f"There is no {error.kind.replace('_', ' ')} {error.key}.")


async def _rule_violated(_request: Request, error: RuleViolation) -> JSONResponse:
    return problem_response(error.code, _sentence(error.message))


async def _unreadable(_request: Request, error: RequestValidationError) -> JSONResponse:
    problems = error.errors()
    for problem in problems:
        if problem["type"] == "json_invalid":
            position, reason = problem["loc"][-1], problem["ctx"]["error"]
            return problem_response(
                "malformed", f"The body is not JSON: {reason}, at character {position}."
            )
        if problem["loc"][0] == "path":
            # What does not even look like an id or a name is the id of nothing.
            kind, _, known_by = str(problem["loc"][1]).rpartition("_")
            by = "with that id" if known_by == "id" else "of that name"
            return problem_response(
                f"{kind}_not_found", f"There is no {kind.replace('_', ' ')} {by}."
            )
    return problem_response("invalid", _INVALID, (_field_error(problem) for problem in problems))


async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The router knows only the methods of the first operation at the address.
        headers = {"Allow": ", ".join(_methods_at(request))}
    return problem_response(
        _CODES_OF_HTTP.get(error.status_code, "malformed"),
        _DETAILS_OF_HTTP.get(error.status_code, str(error.detail)),
        headers=headers,
        status=error.status_code,
    )


def _methods_at(request: Request) -> list[str]:
    return [
        method.value
        for method in HTTPMethod
        if any(
            route.matches({**request.scope, "method": method.value})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _conflict(request: Request, error: IntegrityError) -> JSONResponse:
    constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    if constraint not in _CODES_OF_CONSTRAINTS:
        return await _unexpected(request, error)
    code, detail = _CODES_OF_CONSTRAINTS[constraint]
    return problem_response(code, detail)


async def _database_away(_request: Request, error: SQLAlchemyError) -> JSONResponse:
    _log.warning("request refused, database away", error=str(error).split("\n", 1)[0])
    return problem_response(
        "database_unavailable",
        "The database does not answer, or is too busy. Try again; an Idempotency-Key makes it safe.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


async def _unexpected(_request: Request, error: Exception) -> JSONResponse:
    _log.error("request failed", exc_info=error)
    return problem_response("internal_error", "Something went wrong here; the log says what.")


HANDLERS: Mapping[
    int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]
] = MappingProxyType(
    {
        Refusal: _refused,
        InvalidInput: _invalid_input,
        NotFound: _not_found,
        RuleViolation: _rule_violated,
        RequestValidationError: _unreadable,
        HTTPException: _http_error,
        IntegrityError: _conflict,
        OperationalError: _database_away,
        InterfaceError: _database_away,
        PoolTimeout: _database_away,
        Exception: _unexpected,
    }
)
"""What answers each class of error."""

_INVALID = "The request is understood, but some of it is wrong; errors names each field."

_DETAILS_OF_HTTP = {
    400: "The body cannot be read as JSON in UTF-8.",
    404: "There is nothing at this address; /openapi.json lists what there is.",
    405: "This address does not take this method.",
}

_MESSAGES = {
    "extra_forbidden": "is not known here: remove it",
    "missing": "is required",
    "model_attributes_type": "must be a JSON object, sent as application/json",
    "dict_type": "must be a JSON object, sent as application/json",
    "model_type": "must be a JSON object, sent as application/json",
    "list_type": "must be a list",
    "string_type": "must be a text",
    "string_unicode": "must be a text of whole characters, without lone surrogates",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} entries",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_parsing_size": "must be an integer of fewer digits",
    "int_from_float": "must be an integer",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "enum": "must be {expected}",
    "uuid_type": "must be an id, such as 019ae8a3-5c00-7000-8000-000000000001",
    "uuid_parsing": "must be an id, such as 019ae8a3-5c00-7000-8000-000000000001",
    "refused": "{message}",
}
"""What is said of each type of error; ``{}`` stands for a part of its context.

The validating library's own words never reach a caller.
"""
_OTHERWISE = "is not taken here: /openapi.json says what is"


def field_path(location: Sequence[int | str]) -> str:
    """A field's name as its sender knows it: ``("charges", 3, "amount")`` is charges[3].amount."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif " " not in part:  # A part with a space tells variants of a body apart.
            path += f".{part}" if path else part
    return path


def _field_error(problem: Mapping[str, Any]) -> FieldError:
    place, *location = problem["loc"]
    message = _MESSAGES.get(problem["type"], _OTHERWISE).format_map(problem.get("ctx", {}))
    return FieldError(field=field_path(location) or place, message=message)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
