"""Turns that many threads want at once: taken together, each as if it had come alone."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from models import Account
from models.stripe_limit import OF_THE_DEPLOYMENT
from tasks.accounts import create_account
from tasks.turnstile import Lane, Taken, Turnstile
from tests.jobs import a_job, wait_until_blocked
from tests.waiting import wait_for

RATE = 10.0
LIMIT_SECONDS = 20


@contextmanager
def held_up(engine: Engine) -> Iterator[Connection]:
    """Somebody else takes a turn, and goes on with it."""
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO stripe_limits (merchant_id) VALUES (:id)"), {"id": OF_THE_DEPLOYMENT}
        )
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM stripe_limits FOR UPDATE"))
        yield connection


def taken_at_once(
    engine: Engine, turnstile: Turnstile, owners: Sequence[Account]
) -> list[Future[Taken]]:
    """A turn of each of these accounts: the first is held up until all the others want one, too."""
    jobs = [a_job(engine) for _ in owners]
    with ThreadPoolExecutor(len(owners)) as threads, held_up(engine):
        wanted = []
        for place, (job, owner) in enumerate(zip(jobs, owners, strict=True)):
            lane = Lane(OF_THE_DEPLOYMENT, owner.id, is_bulk=True)
            wanted.append(threads.submit(turnstile.take, job, lane))
            wait_until_blocked(engine)
            wait_for(partial(_are_waiting, turnstile, place))
    return wanted


def _are_waiting(turnstile: Turnstile, count: int) -> bool:
    return turnstile.waiting == count


def test_what_all_threads_want_is_taken_in_one_transaction_each_a_moment_of_its_own(
    engine: Engine, account: Account
) -> None:
    commits: list[Connection] = []
    own = engine.execution_options(logging_token="turns")
    event.listen(own, "commit", commits.append)
    turnstile = Turnstile(own, RATE)

    taken = [one.result(LIMIT_SECONDS) for one in taken_at_once(engine, turnstile, [account] * 12)]

    # The one that was held up, and all that came meanwhile.
    assert len(commits) == 2
    moments = sorted(one.turn.at for one in taken)
    assert min((b - a).total_seconds() for a, b in pairwise(moments)) >= 1 / RATE
    with engine.connect() as connection:
        promised = set(connection.scalars(text("SELECT at FROM stripe_turns")))
    assert promised == {one.turn.at for one in taken if not one.turn.is_now}
    assert any(one.turn.is_now for one in taken)
    assert promised


def test_among_those_that_are_taken_together_no_account_waits_for_all_of_anothers(
    engine: Engine, account: Account
) -> None:
    with Session(engine, expire_on_commit=False) as session, session.begin():
        other = create_account(session, "Cardinal Prep")
    owners = [*[account] * 12, other]

    *of_one, of_other = [
        one.result(LIMIT_SECONDS) for one in taken_at_once(engine, Turnstile(engine, RATE), owners)
    ]

    assert sum(one.turn.at < of_other.turn.at for one in of_one) <= 4


def test_a_database_that_refuses_is_told_to_all_that_wanted_a_turn_and_the_next_get_theirs(
    engine: Engine, account: Account
) -> None:
    turnstile = Turnstile(engine, RATE)
    with ThreadPoolExecutor(1) as threads, held_up(engine):
        wanted = threads.submit(
            turnstile.take, a_job(engine), Lane(OF_THE_DEPLOYMENT, account.id, is_bulk=True)
        )
        wait_until_blocked(engine)
        with engine.begin() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )
        with pytest.raises(DBAPIError):
            wanted.result(LIMIT_SECONDS)

    taken = turnstile.take(a_job(engine), Lane(OF_THE_DEPLOYMENT, account.id, is_bulk=True))
    assert taken.turn.is_now
