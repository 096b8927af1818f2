from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func

from models.job_ledger import Claim
from tasks.leases import LeaseKeeper
from tests.jobs import a_job, change_job, database_away, job_of, started
from tests.waiting import wait_for


@pytest.fixture
def keeper(engine: Engine) -> Iterator[LeaseKeeper]:
    keeper = LeaseKeeper(engine, lease=timedelta(seconds=0.3), run_limit=timedelta(minutes=10))
    keeper.start()
    yield keeper
    keeper.stop()
    keeper.join(10)
    assert not keeper.is_alive()


def a_run(engine: Engine) -> Claim:
    return started(engine, a_job(engine))


def wait_for_extension(engine: Engine, run: Claim) -> None:
    before = job_of(engine, run.job_id).lease_expires_at
    wait_for(lambda: job_of(engine, run.job_id).lease_expires_at != before)


def test_a_held_lease_is_extended_again_and_again(engine: Engine, keeper: LeaseKeeper) -> None:
    run = a_run(engine)
    keeper.hold(run)

    for _ in range(3):
        wait_for_extension(engine, run)


def test_a_released_lease_is_left_to_run_out(engine: Engine, keeper: LeaseKeeper) -> None:
    released, held = a_run(engine), a_run(engine)
    before = job_of(engine, released.job_id).lease_expires_at
    keeper.hold(held)
    keeper.hold(released)
    keeper.release(released)
    assert keeper.held == 1

    wait_for_extension(engine, held)
    wait_for_extension(engine, held)

    assert job_of(engine, released.job_id).lease_expires_at == before


def test_a_run_past_its_limit_is_left_to_be_rescued(engine: Engine, keeper: LeaseKeeper) -> None:
    hung, other = a_run(engine), a_run(engine)
    change_job(engine, hung.job_id, started_at=func.now() - timedelta(minutes=11))
    before = job_of(engine, hung.job_id).lease_expires_at
    keeper.hold(hung)
    keeper.hold(other)

    wait_for_extension(engine, other)
    wait_for_extension(engine, other)

    assert job_of(engine, hung.job_id).lease_expires_at == before


def test_leases_are_extended_again_after_an_outage(
    engine: Engine, server: str, keeper: LeaseKeeper
) -> None:
    run = a_run(engine)
    keeper.hold(run)
    with database_away(engine, server):
        keeper._extend()

    wait_for_extension(engine, run)
