"""Which stack and which account a command talks to."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine, Text, cast, select
from sqlalchemy.orm import Session

from cli.failures import SettingsProblem
from cli.stack import (
    API_KEY,
    DEFAULT_DIRECTORY,
    SECRET_KEY,
    VENDORS,
    is_running,
    settings_file,
    settings_from,
)
from models import Account
from models.api_key import key_with_prefix, split_key
from models.database import connect
from settings import Settings

StackDirectory = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        help="Talk to the stack that `duecourse up` runs in this directory.",
        file_okay=False,
        show_default=False,
    ),
]
AccountName = Annotated[
    str | None,
    typer.Option(
        "--account",
        help="The account's name; needed only where there are several.",
        show_default=False,
    ),
]

# A command does one thing at a time; a second connection serves what must commit meanwhile.
CONNECTIONS = 2


@dataclass(frozen=True, slots=True)
class Context:
    """An open stack. ``origin`` says where its settings came from."""

    settings: Settings
    api_key: str | None
    origin: str
    engine: Engine

    def session(self) -> Session:
        """A session for a caller who decides whether to commit."""
        return Session(self.engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session whose transaction commits when the block ends well."""
        with self.session() as session, session.begin():
            yield session

    def account(self, session: Session, name_or_id: str | None) -> Account:
        """The account that a command is about.

        Raises:
            SettingsProblem: There is none so called, none at all, or more than one.
        """
        accounts = select(Account).order_by(Account.name, Account.id)
        if name_or_id is not None:
            called = (Account.name == name_or_id) | (cast(Account.id, Text) == name_or_id)
            found = session.scalars(accounts.where(called)).all()
            if not found:
                raise SettingsProblem(f"--account: there is no account {name_or_id}")
        elif self.api_key is not None:
            return self._account_of_key(session, self.api_key)
        else:
            found = session.scalars(accounts).all()
            if not found:
                raise SettingsProblem("there is no account yet: duecourse account create NAME")
        if len(found) > 1:
            listed = ", ".join(f"{account.name} ({account.id})" for account in found)
            raise SettingsProblem(f"say which account with --account; there are {listed}")
        return found[0]

    def _account_of_key(self, session: Session, text: str) -> Account:
        parts = split_key(text)
        key = session.scalar(key_with_prefix(parts[0])) if parts else None
        if parts is None or key is None or not key.admits(parts[1]):
            raise SettingsProblem(f"{API_KEY}: is no valid key of this database")
        return session.get_one(Account, key.account_id)


@contextmanager
def open_context(directory: Path | None) -> Iterator[Context]:
    """The stack of ``directory``, else of the environment, else of an ``up`` in ./var.

    Raises:
        SettingsProblem: No stack runs in the directory, or there is none to be found.
    """
    settings, api_key, origin = _find(directory)
    engine = connect(settings.database_url, process="cli", connections=CONNECTIONS)
    try:
        yield Context(settings, api_key, origin, engine)
    finally:
        engine.dispose()


def read_settings_file(path: Path) -> dict[str, str]:
    """The settings of a file that ``up`` wrote: lines of ``NAME=value``, quoted as for a shell."""
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {name: "".join(shlex.split(value)) for name, _, value in pairs}


def _find(directory: Path | None) -> tuple[Settings, str | None, str]:
    if directory is not None:
        return _of_directory(directory)
    if os.environ.get("DATABASE_URL"):
        origin = "the environment"
        return settings_from({}, origin), os.environ.get(API_KEY) or None, origin
    if is_running(DEFAULT_DIRECTORY):
        return _of_directory(DEFAULT_DIRECTORY)
    raise SettingsProblem(
        "no stack to talk to: start one with `duecourse up`, or give --dir, or set DATABASE_URL"
    )


def _of_directory(directory: Path) -> tuple[Settings, str | None, str]:
    path = settings_file(directory)
    if not is_running(directory):
        raise SettingsProblem(
            f"no stack runs in {directory}: start it with `duecourse up --dir {directory}`"
        )
    try:
        values = read_settings_file(path)
    except FileNotFoundError as missing:
        raise SettingsProblem(f"the stack in {directory} is not ready yet") from missing
    ours: dict[str, str] = {
        name: values[name] for name in ("DATABASE_URL", "REDIS_URL", "PORT") if name in values
    }
    # What it has not got it does without: the environment's keys are another stack's.
    names = ("PUBLIC_URL", SECRET_KEY, *(name for vendor in VENDORS for name in vendor))
    ours |= {name: values.get(name, "") for name in names}
    return settings_from(ours, str(path)), values.get(API_KEY), str(path)
