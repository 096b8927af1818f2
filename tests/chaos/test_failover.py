from pathlib import Path

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from models import Job
from tasks.enqueueing import enqueue
from tasks.pruning import prune
from tests.chaos.sentinels import Sentinels
from tests.processes import Stack
from tests.waiting import wait_for


def test_jobs_go_on_when_sentinels_replace_a_killed_primary(
    engine: Engine, stack: Stack, tmp_path: Path
) -> None:
    with Sentinels(tmp_path) as sentinels:
        stack.start("dispatcher", REDIS_URL=sentinels.url)
        stack.start("worker", REDIS_URL=sentinels.url)
        _ask(engine, 20)
        wait_for(lambda: _ended(engine) == 20)

        sentinels.kill_primary()
        _ask(engine, 20)

        wait_for(lambda: _ended(engine) == 40)
        assert sentinels.new_primary_port() != sentinels.primary_port


def _ask(engine: Engine, jobs: int) -> None:
    with Session(engine) as session, session.begin():
        for _ in range(jobs):
            enqueue(session, prune, account_id=None, requested_by="test")


def _ended(engine: Engine) -> int:
    with Session(engine) as session:
        return len(session.scalars(select(Job.id).where(Job.state == "succeeded")).all())
