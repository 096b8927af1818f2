"""A PostgreSQL that ends sessions, restarts, crashes, or has no room."""

import contextlib
import time

import psycopg

from tests.chaos.faults.target import Target


def end_database_sessions(target: Target) -> None:
    """Every backend of PostgreSQL terminated."""
    with contextlib.suppress(psycopg.Error), psycopg.connect(target.postgres.url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


def restart_postgres(target: Target) -> None:
    """PostgreSQL restarted, as for an upgrade (fast)."""
    target.postgres.stop()
    target.postgres.start()


def crash_postgres(target: Target) -> None:
    """PostgreSQL killed (immediate): it recovers from its log."""
    target.postgres.kill()
    target.postgres.start()


def exhaust_connections(target: Target) -> None:
    """Every connection that PostgreSQL gives, taken by somebody else."""
    taken: list[psycopg.Connection] = []
    try:
        while True:
            taken.append(psycopg.connect(target.postgres.url))
    except psycopg.OperationalError:
        time.sleep(2)
    finally:
        for connection in taken:
            connection.close()
