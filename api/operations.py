"""What OpenAPI says that every operation of a sort may answer."""

from typing import Any

from api.problems import documented
from api.shapes import JobReport

Responses = dict[int | str, dict[str, Any]]

_ALWAYS = ("unauthenticated", "scope_missing", "invalid", "internal_error", "database_unavailable")
_WITH_BODY = ("malformed", "too_large")


def reads(*codes: str) -> Responses:
    """The problems of a read: those of every operation, and ``codes``."""
    return documented(*_ALWAYS, *codes)


def writes(*codes: str) -> Responses:
    """The problems of a change that is made at once."""
    return documented(*_ALWAYS, *_WITH_BODY, *codes)


def posts(*codes: str) -> Responses:
    """The problems of a POST, which may bear an Idempotency-Key."""
    return writes("idempotency_key_reused", *codes)


def commands(*codes: str) -> Responses:
    """The answers of a command beside 202: the finished job, and its problems."""
    return {
        200: {"model": JobReport, "description": "`Prefer: wait` was given, and the job has ended"},
        **posts(*codes),
    }
