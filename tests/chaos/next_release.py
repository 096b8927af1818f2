"""A kind of job that only the next release knows."""

from sqlalchemy.orm import Session

from models.job_ledger import NewJob
from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome

NEXT_KIND = "kind_of_the_next_release"


def register() -> None:
    """Be the next release."""

    @job(queue="ops")
    def kind_of_the_next_release(run: Run, _session: Session) -> Outcome:
        return Done({"job": str(run.job_id)})


def next_job() -> NewJob:
    """A job that only the next release can run; this one sets it aside as dead."""
    return NewJob(
        kind=NEXT_KIND, queue="ops", args={}, max_attempts=3, requested_by="chaos", priority=50
    )
