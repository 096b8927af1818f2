"""Process configuration, read once from the environment."""

import sys
from typing import Annotated, NoReturn
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


def _database_url(text: str) -> str:
    """A PostgreSQL address in the form the driver takes; Heroku's ``postgres://`` too."""
    scheme, separator, rest = text.partition("://")
    if scheme not in ("postgres", "postgresql", "postgresql+psycopg") or not separator or not rest:
        raise ValueError("must look like postgresql://user:password@host:5432/name")
    return f"postgresql+psycopg://{rest}"


def _redis_url(text: str) -> str:
    if urlsplit(text).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must look like redis://host:6379/0")
    return text


class Settings(BaseSettings):
    """Every knob of the system. Durations are in seconds."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True)

    database_url: Annotated[str, AfterValidator(_database_url)] = Field(alias="DATABASE_URL")
    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(alias="REDIS_URL")
    host: str = Field(default="127.0.0.1", alias="DUECOURSE_HOST")
    port: int = Field(default=8000, ge=1, le=65535, alias="PORT")
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", alias="DUECOURSE_LOG_LEVEL"
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
    page_size: int = Field(default=1_000, ge=1, le=1_000, alias="DUECOURSE_PAGE_SIZE")
    job_retention_days: int = Field(default=30, ge=1, alias="DUECOURSE_JOB_RETENTION_DAYS")


def settings_or_exit() -> Settings:
    """The settings, or the end of the process with one line that names what is wrong."""
    try:
        return Settings()
    except ValidationError as invalid:
        _exit(invalid)


def _exit(invalid: ValidationError) -> NoReturn:
    problems = (
        f"{error['loc'][0]}: " + ("is not set" if error["type"] == "missing" else error["msg"])
        for error in invalid.errors(include_input=False)
    )
    sys.stderr.write(f"duecourse: settings: {'; '.join(problems)}\n")
    raise SystemExit(2)
