"""Connections to PostgreSQL."""

from datetime import datetime

from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.orm import Session

from models.cursors import UndescribedCursor

CONNECT_TIMEOUT_SECONDS = 5
# A statement that waits this long for a lock meets a stuck transaction, not a busy one: it fails
# and its job is tried again.
LOCK_TIMEOUT_MS = 30_000
# A transaction left open by a stalled or cut-off process would hold its locks for ever.
IDLE_TIMEOUT_MS = 20_000
# How soon each side notices that the other's host is gone: after 5 s of silence it asks, every
# 2 s, 3 times; what it has sent is given up after as long.
_KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
_USER_TIMEOUT_MS = 11_000
# A statement whose client was killed would otherwise wait on for its lock, and then run.
CLIENT_CHECK_MS = 2_000


def connect(
    database_url: str,
    *,
    process: str,
    connections: int,
    pre_ping: bool = True,
    durable: bool = True,
    autocommit: bool = False,
) -> Engine:
    """An engine with at most ``connections`` open at once, for one process.

    ``process`` is the name that the server shows for its connections. ``pre_ping`` tries a pooled
    connection before it is handed out, so that a restarted server is not noticed; it costs a
    round trip, so a worker goes without and tries its claim again. What is committed where it is
    not ``durable`` may be lost by a crash of the server, and waits for no disk. With ``autocommit``
    each statement is a transaction: one around it would triple its round trips. Build it after any
    fork.
    """
    return create_engine(
        database_url,
        pool_size=connections,
        max_overflow=0,
        # The connection used last is the one with its statements prepared and its plans made:
        # a few do most of the work.
        pool_use_lifo=True,
        pool_pre_ping=pre_ping,
        **({"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None} if autocommit else {}),
        # Rows hold names and addresses, which have no place in a log of errors.
        hide_parameters=True,
        connect_args={
            "application_name": f"duecourse {process}",
            "cursor_factory": UndescribedCursor,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            **_KEEPALIVES,
            "tcp_user_timeout": _USER_TIMEOUT_MS,
            "options": f"-c timezone=UTC -c lock_timeout={LOCK_TIMEOUT_MS}"
            f" -c idle_in_transaction_session_timeout={IDLE_TIMEOUT_MS}"
            f" -c client_connection_check_interval={CLIENT_CHECK_MS}"
            f" -c tcp_user_timeout={_USER_TIMEOUT_MS}"
            + ("" if durable else " -c synchronous_commit=off")
            + "".join(f" -c tcp_{name}={value}" for name, value in _KEEPALIVES.items()),
        },
    )


def database_now(session: Session) -> datetime:
    """When the current transaction began, by the one clock that every host shares."""
    return session.execute(select(func.now())).scalar_one()
