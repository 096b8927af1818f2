"""A job that does nothing, and a worker that knows it."""

from sqlalchemy.orm import Session

from tasks.kinds import Run, job
from tasks.outcomes import Done, Outcome
from workers.main import main

QUEUE = "ops"


@job(queue=QUEUE)
def no_op(_run: Run, _session: Session) -> Outcome:
    """Nothing but the engine's own work."""
    return Done({})


if __name__ == "__main__":
    main()
