"""Errors, grouped by what the caller should do next."""

# ruff: noqa: N818 -- an error is named as the fact it states, not by what kind of thing it is.

from __future__ import annotations


class DuecourseError(Exception):
    """Base class for everything this system raises on purpose."""


class InvalidInput(DuecourseError):
    """A value is wrong whatever the state: the caller must send another one.

    Attributes:
        field: The name of the value, as the caller knows it.
        message: What is expected instead.
        code: A stable snake_case name for programs.
    """

    def __init__(self, field: str, message: str, code: str = "invalid") -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
        self.code = code


class RuleViolation(DuecourseError):
    """The state forbids it. Retrying cannot help.

    Attributes:
        code: A stable snake_case name for programs; a queued job ends skipped with it.
        message: The reason, for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class IllegalTransition(RuleViolation):
    """The invoice cannot take this event in its current status."""

    def __init__(self, status: str, event: str) -> None:
        code = "invoice_not_draft" if event == "finalize" else "invoice_not_open"
        super().__init__(code, f"cannot {event} an invoice that is {status}")
        self.status = status
        self.event = event


class NotFound(DuecourseError):
    """Nothing by that key is visible to the caller.

    Attributes:
        kind: What was looked for, in the product's vocabulary ("invoice", "job").
        key: The id or reference that was given.
        code: ``{kind}_not_found``.
    """

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"no {kind} {key}")
        self.kind = kind
        self.key = key
        self.code = f"{kind}_not_found"


class TransientFailure(DuecourseError):
    """A dependency misbehaved. The same call may succeed later."""
