"""How a command that cannot go on ends: one line on standard error, never a traceback."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import redis
import typer
from sqlalchemy.exc import DBAPIError, IntegrityError
from typer.core import TyperGroup
from typer.exceptions import TyperException
from typing_extensions import override

from billing.errors import DuecourseError, InvalidInput
from cli.output import as_json_text

FOUND_A_PROBLEM, WRONG_USAGE = 1, 2

# Classes of SQLSTATE that say the server, the login or the database is not to be had.
_UNREACHABLE = ("08", "28", "3D", "53", "57")
# What the rules call a value, where the command line calls it otherwise.
_AS_TYPED = {
    "as_of": "--as-of",
    "time_zone": "--time-zone",
    "currency": "--currency",
    "to": "--to",
    "reason": "--reason",
}
_SCHEMA_IS_MISSING = ("42P01", "42703", "42883")


class SettingsProblem(DuecourseError):  # noqa: N818 - named as the fact it states
    """A setting, an option or their absence stops the command before it does anything."""


class OneLineFailures(TyperGroup):
    """Commands whose failures are one line that says what is wrong, and an exit code.

    With ``--json`` the line is a document on standard output as well. ``DUECOURSE_LOG_LEVEL=DEBUG``
    adds the traceback.
    """

    _as_json = False

    @override
    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # What typer really passes; its base class is private.
        self._as_json = "--json" in args
        with self._usage_errors_as_documents():
            return super().parse_args(ctx, args)

    @override
    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]  # As above.
        try:
            with self._usage_errors_as_documents():
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort, TyperException, BrokenPipeError):
            raise  # typer's own ways to end; the last is a reader who has had enough.
        except Exception as error:
            message, code = described(error)
            tell(message, as_json=self._as_json)
            if os.environ.get("DUECOURSE_LOG_LEVEL") == "DEBUG":
                traceback.print_exc()
            raise typer.Exit(code) from error

    @contextmanager
    def _usage_errors_as_documents(self) -> Iterator[None]:
        """Tell programs what typer tells people by itself: that the command is typed wrong."""
        try:
            yield
        except TyperException as error:
            if self._as_json:
                typer.echo(as_json_text({"error": error.format_message()}))
            raise


def tell(message: str, *, as_json: bool = False) -> None:
    """Say why the command ends, in one line; to programs also as a document."""
    line = " ".join(message.split("\n", 1)[0].split())
    typer.echo(f"duecourse: {line}", err=True)
    for more in message.split("\n")[1:]:
        typer.echo(more, err=True)
    if as_json:
        typer.echo(as_json_text({"error": line}))


def described(error: Exception) -> tuple[str, int]:
    """What to tell of an error, and the exit code it means."""
    match error:
        case InvalidInput():
            return _as_typed(error), WRONG_USAGE
        case SettingsProblem():
            return str(error), WRONG_USAGE
        case DuecourseError() | OSError():
            message = str(error)
        case IntegrityError():
            message = f"someone else changed the same rows: {_first_line(error)}; run it again"
        case DBAPIError():
            message = _of_the_database(error)
        case redis.RedisError():
            message = f"REDIS_URL: Redis does not answer: {error}"
        case _:
            message = (
                f"unexpected {type(error).__name__}: {error} "
                "(set DUECOURSE_LOG_LEVEL=DEBUG to see where)"
            )
    return message, FOUND_A_PROBLEM


def _as_typed(error: InvalidInput) -> str:
    """A rule's refusal in the words of the command line."""
    message = error.message.replace("dry_run", "--dry-run")
    return f"{_AS_TYPED.get(error.field, error.field)}: {message}"


def _of_the_database(error: DBAPIError) -> str:
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is None or state.startswith(_UNREACHABLE):
        return f"DATABASE_URL: the database cannot be reached: {_first_line(error)}"
    if state in _SCHEMA_IS_MISSING:
        return f"the database's schema is not this version's ({_first_line(error)}): run duecourse migrate"
    return f"the database refused: {_first_line(error)}"


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().split("\n", 1)[0]
