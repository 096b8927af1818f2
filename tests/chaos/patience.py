"""Asking a database that may be away just now, until it answers."""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

KEEP_TRYING_SECONDS = 90.0
PAUSE_SECONDS = 0.2

Value = TypeVar("Value")


def patiently(engine: Engine, ask: Callable[[Session], Value]) -> Value:
    """What ``ask`` says in a transaction that committed; what did not commit was not accepted.

    Raises:
        SQLAlchemyError: The database has been away for too long.
    """
    deadline = time.monotonic() + KEEP_TRYING_SECONDS
    while True:
        try:
            with Session(engine) as session, session.begin():
                value = ask(session)
        except SQLAlchemyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            return value
