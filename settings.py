"""Process configuration, read once from the environment."""

import sys
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict


def _database_url(text: str) -> str:
    """A PostgreSQL address in the form the driver takes; Heroku's ``postgres://`` too."""
    if not _is_address(text, "postgres", "postgresql", "postgresql+psycopg"):
        raise PydanticCustomError("url", "must look like postgresql://user:password@host:5432/name")
    return f"postgresql+psycopg://{text.partition('://')[2]}"


def _redis_url(text: str) -> str:
    if not _is_address(text, "redis", "rediss", "unix"):
        raise PydanticCustomError("url", "must look like redis://host:6379/0")
    return text


def _is_address(text: str, *schemes: str) -> bool:
    """Whether it has one of the schemes, says where, and has a port that can be one.

    A password with a slash in it, not written as %2F, is seen here as a port that is none.
    """
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.netloc or parts.path) and parts.port != 0
    except ValueError:
        return False


# For people who run the system; pydantic's own words are for people who program it.
_WORDINGS = {
    "missing": "is not set",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "float_parsing": "must be a number",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
}


class Settings(BaseSettings):
    """Every knob of the system. Durations are in seconds."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True)

    database_url: Annotated[str, AfterValidator(_database_url)] = Field(alias="DATABASE_URL")
    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(alias="REDIS_URL")
    host: str = Field(default="127.0.0.1", alias="DUECOURSE_HOST")
    port: int = Field(default=8000, ge=1, le=65535, alias="PORT")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", alias="DUECOURSE_LOG_LEVEL"
    )
    # A killed worker's job starts again within a lease and a sweep.
    lease_seconds: float = Field(default=15, ge=1, le=600, alias="DUECOURSE_LEASE_SECONDS")
    # A run longer than this is taken to hang: its lease ends, and the job is rescued.
    run_limit_seconds: float = Field(default=600, ge=1, alias="DUECOURSE_RUN_LIMIT_SECONDS")
    drain_seconds: float = Field(default=25, ge=0, alias="DUECOURSE_DRAIN_SECONDS")
    # Messages outstanding in Redis per queue: 2 to 4 times its consumers' threads keeps them busy
    # and leaves order, pause and fairness to SQL.
    dispatch_window: int = Field(default=64, ge=1, le=10_000, alias="DUECOURSE_DISPATCH_WINDOW")
    poll_seconds: float = Field(default=0.25, gt=0, le=10, alias="DUECOURSE_POLL_SECONDS")


def settings_or_exit() -> Settings:
    """The settings, or the end of the process with one line that names what is wrong."""
    try:
        return Settings()
    except ValidationError as invalid:
        sys.stderr.write(f"duecourse: settings: {problems_of(invalid)}\n")
        raise SystemExit(2) from None


def problems_of(invalid: ValidationError) -> str:
    """One line that names every wrong setting and what it must be; never a value: some are secret."""
    return "; ".join(
        f"{error['loc'][0]}: "
        + _WORDINGS.get(error["type"], error["msg"]).format_map(error.get("ctx", {}))
        for error in invalid.errors(include_input=False)
    )
