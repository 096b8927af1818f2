"""A kind of job that only the next release knows."""

from sqlalchemy.orm import Session

from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome

NEXT_KIND = "kind_of_the_next_release"


def register() -> None:
    """Be the next release."""

    @job(queue="ops")
    def kind_of_the_next_release(run: Run, _session: Session) -> Outcome:
        return Done({"job": str(run.job_id)})
