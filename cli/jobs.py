"""``duecourse jobs``: finding any job, and everything about one."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.text import Text
from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.errors import NotFound
from billing.instants import instant as read_instant
from billing.job_states import JobState
from cli.context import AccountName, StackDirectory, open_context
from cli.output import AsJson, Output, as_json_text, count, instant, table
from models import Job
from models.job_ledger import DeadJobs
from tasks.job_reports import full_job_report, job_report
from tasks.operating import cancel_job, replay_dead_jobs, retry_job

jobs = typer.Typer(no_args_is_help=True, help="Find jobs, see what became of one, and try again.")

MAX_LISTED = 1_000
_COLOURS = {
    JobState.SUCCEEDED: "green",
    JobState.RUNNING: "cyan",
    JobState.FAILED: "yellow",
    JobState.DEAD: "red",
}


@jobs.command("list")
def list_jobs(
    *,
    state: Annotated[JobState | None, typer.Option(show_default=False)] = None,
    kind: Annotated[str | None, typer.Option(help="Such as bill_page.", show_default=False)] = None,
    queue: Annotated[str | None, typer.Option(show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LISTED)] = 50,
    directory: StackDirectory = None,
    account_name: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first; of every account unless one is named."""
    output = Output(as_json=as_json)
    found = select(Job).order_by(Job.id.desc()).limit(limit)
    with open_context(directory) as context, context.transaction() as session:
        if account_name is not None:
            found = found.where(Job.account_id == context.account(session, account_name).id)
        for column, wanted in ((Job.state, state), (Job.kind, kind), (Job.queue, queue)):
            if wanted is not None:
                found = found.where(column == wanted)
        rows = session.scalars(found).all()
        output.document({"jobs": [job_report(job) for job in rows]})
    _show_list(output, rows)


@jobs.command("show")
def show_job(
    job_id: Annotated[UUID, typer.Argument(metavar="ID")],
    directory: StackDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Show one job with its attempts and its children."""
    output = Output(as_json=as_json)
    with open_context(directory) as context, context.transaction() as session:
        job = session.get(Job, job_id)
        if job is None:
            raise NotFound("job", str(job_id))
        report = full_job_report(session, job)
    output.document(report)
    _show(output, report)


@jobs.command("retry")
def retry(
    job_id: Annotated[UUID, typer.Argument(metavar="ID")],
    directory: StackDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Make a dead, failed or cancelled job ready again, with fresh attempts."""
    _operate(job_id, directory, retry_job, "is ready again", as_json=as_json)


@jobs.command("cancel")
def cancel(
    job_id: Annotated[UUID, typer.Argument(metavar="ID")],
    directory: StackDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Stop a job that has not started."""
    _operate(job_id, directory, cancel_job, "will not start", as_json=as_json)


@jobs.command("replay")
def replay(
    *,
    kind: Annotated[str | None, typer.Option(show_default=False)] = None,
    queue: Annotated[str | None, typer.Option(show_default=False)] = None,
    reason: Annotated[
        str | None, typer.Option(help="Such as unknown_kind or poison.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only what died at or after this instant.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many there are; change nothing.")
    ] = False,
    directory: StackDirectory = None,
    account_name: AccountName = None,
    as_json: AsJson = False,
) -> None:
    """Make dead jobs ready again, each once; of every account unless one is named."""
    output = Output(as_json=as_json)
    died_since = None if since is None else read_instant(since, "--since")
    with open_context(directory) as context, context.transaction() as session:
        owner = None if account_name is None else context.account(session, account_name).id
        wanted = DeadJobs(account_id=owner, kind=kind, queue=queue, reason=reason, since=died_since)
        replayed = replay_dead_jobs(session, wanted, dry_run=dry_run)
    output.document({"jobs": replayed, "dry_run": dry_run})
    output.say(f"{count(replayed, 'dead job')} {'would be replayed' if dry_run else 'replayed'}")


def _operate(
    job_id: UUID,
    directory: StackDirectory,
    operation: Callable[[Session, UUID], Job],
    outcome: str,
    *,
    as_json: bool,
) -> None:
    output = Output(as_json=as_json)
    with open_context(directory) as context, context.transaction() as session:
        report = job_report(operation(session, job_id))
    output.document(report)
    output.say(f"{report['kind']} {report['id']} {outcome}")


def _show_list(output: Output, rows: Sequence[Job]) -> None:
    listed = table("Jobs", "id", "kind", "state", "attempt", "created", numbers=("attempt",))
    listed.columns[0].no_wrap = True
    for job in rows:
        state = JobState(job.state)
        why = job.reason or (job.error or {}).get("message")
        listed.add_row(
            str(job.id),
            job.kind,
            Text(f"{state} ({why})" if why else state, style=_COLOURS.get(state, "")),
            f"{job.attempt}/{job.max_attempts}",
            instant(job.created_at),
        )
    output.show(listed)
    output.say(f"[dim]{count(len(rows), 'job')}; duecourse jobs show ID tells all about one")


def _show(output: Output, report: dict[str, Any]) -> None:
    attempts, children = report.pop("attempts"), report.pop("children")
    fields = table(f"Job {report['id']}", "field", "value")
    for name, value in report.items():
        if value not in (None, {}):
            fields.add_row(name, Text(_readable(value)))
    output.show(fields)
    for title, rows in (("Attempts", attempts), ("Children", children)):
        if rows:
            listed = table(title, *rows[0])
            for row in rows:
                listed.add_row(*(Text(_readable(value)) for value in row.values()))
            output.show(listed)


def _readable(value: object) -> str:
    if value is None:
        return ""
    return as_json_text(value) if isinstance(value, dict) else str(value)
