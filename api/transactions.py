"""One database transaction a request."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine
from sqlalchemy.orm import Session


def engine_of(request: Request) -> Engine:
    """The engine that the application was made with."""
    engine = request.app.state.engine
    if not isinstance(engine, Engine):
        raise TypeError("create_app was given no engine")
    return engine


async def turn(request: Request) -> AsyncIterator[None]:
    """Wait, without a thread, until a connection is free.

    A request holds its connection between its steps, each of which needs a thread. If all the
    threads could wait for a connection, those who hold one would wait for a thread for ever.
    """
    turns: asyncio.Semaphore = request.app.state.turns
    async with turns:
        yield


def transaction(
    request: Request,
    engine: Annotated[Engine, Depends(engine_of)],
    _turn: Annotated[None, Depends(turn, scope="function")],
) -> Iterator[Session]:
    """Commits after the operation's function returned and before its answer is sent.

    What is only read is read as of one instant, however many statements that takes.
    """
    if request.method == "GET":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


Transaction = Annotated[Session, Depends(transaction, scope="function")]
EngineOf = Annotated[Engine, Depends(engine_of)]
