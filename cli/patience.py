"""Waiting for jobs that other processes do."""

import time
from collections.abc import Callable, Collection, Sequence
from uuid import UUID

from sqlalchemy import select

from billing.errors import DuecourseError
from billing.job_states import FINAL, JobState
from cli import interrupts
from cli.context import Context
from cli.liveness import obstacles
from cli.output import Output
from models import Job

POLL_SECONDS = 0.05
# Counting what is left costs the database as much as work on it: not more than this share of the
# time is spent on it.
COUNTING_SHARE = 0.1
# A stack that is just starting, or between two heartbeats, is not reported missing.
WARN_AFTER_SECONDS = 2.0


class JobFailed(DuecourseError):  # noqa: N818 - named as the fact it states
    """A job that was waited for has ended without doing its work."""

    def __init__(self, job: Job) -> None:
        why = job.reason or (job.error or {}).get("message", "")
        super().__init__(f"{job.kind} is {job.state} ({why}): duecourse jobs show {job.id}")


class Patience:
    """Waits in short rounds, lets others work, and says once why nothing happens.

    Args:
        tend: Called between rounds, such as to keep the processes alive that do the work.
    """

    def __init__(self, context: Context, output: Output, tend: Callable[[], None]) -> None:
        self._context = context
        self._output = output
        self._tend = tend
        self._warn_at = time.monotonic() + WARN_AFTER_SECONDS
        self._warned = False

    def wait(self, queues: Collection[str]) -> None:
        """Wait a moment for jobs in these queues.

        Raises:
            KeyboardInterrupt: It was pressed before.
        """
        if not self._warned and time.monotonic() >= self._warn_at:
            self._warn(queues)
        interrupts.check()
        self._tend()
        time.sleep(POLL_SECONDS)

    def _warn(self, queues: Collection[str]) -> None:
        with self._context.transaction() as session:
            found = obstacles(session, queues)
        if found:
            self._warned = True
            self._output.note(
                f"[yellow]{' and '.join(found)}[/]; the work waits until that changes "
                "(`duecourse doctor` says more)"
            )

    def wait_for_jobs(self, ids: Sequence[UUID]) -> None:
        """Wait until these jobs have ended.

        Raises:
            JobFailed: One of them did not do its work.
        """
        while True:
            with self._context.transaction() as session:
                jobs = session.scalars(select(Job).where(Job.id.in_(ids))).all()
            failed = [job for job in jobs if job.state in FINAL - {JobState.SUCCEEDED}]
            if failed:
                raise JobFailed(failed[0])
            waiting = {job.queue for job in jobs if job.state not in FINAL}
            if not waiting:
                return
            self.wait(waiting)
