"""``duecourse queues``: what waits, what runs, and what has stopped."""

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from billing.job_states import JobState
from cli.context import Context, StackDirectory, open_context
from cli.output import AsJson, Output, table
from tasks.queue_reports import QueueReport, queue_reports

WATCH_EVERY_SECONDS = 0.5
_SHOWN = (
    JobState.READY,
    JobState.SCHEDULED,
    JobState.DISPATCHED,
    JobState.RUNNING,
    JobState.FAILED,
    JobState.DEAD,
)

_ALARMING = {JobState.FAILED: "[yellow]", JobState.DEAD: "[red]"}


def queues(
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking until Ctrl-C.")] = False,
    directory: StackDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Show every queue: jobs by state, the age of the oldest ready one, and whether it is paused."""
    if watch and as_json:
        raise typer.BadParameter("a watch has no end, so no JSON document", param_hint="--watch")
    output = Output(as_json=as_json)
    with open_context(directory) as context:
        if watch:
            _watch(context, output)
            return
        with context.transaction() as session:
            reports = queue_reports(session)
    output.document({"queues": [_as_json(report) for report in reports]})
    output.show(_table(reports))


def _watch(context: Context, output: Output) -> None:
    with output.live() as live:
        try:
            while True:
                _refresh(context, live)
                time.sleep(WATCH_EVERY_SECONDS)
        except KeyboardInterrupt:
            return


def _refresh(context: Context, live: Live) -> None:
    with context.transaction() as session:
        live.update(_table(queue_reports(session)), refresh=True)


def _as_json(report: QueueReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "paused": report.paused_at is not None,
        "jobs": report.jobs,
        "oldest_ready_age_seconds": round(report.oldest_ready_age_seconds, 3),
        "paused_at": report.paused_at,
        "paused_by": report.paused_by,
    }


def _table(reports: Sequence[QueueReport]) -> Table:
    counts = tuple(state.value for state in _SHOWN)
    rows = table("Queues", "queue", *counts, "oldest ready", numbers=(*counts, "oldest ready"))
    rows.add_column("paused")
    for report in reports:
        age = report.oldest_ready_age_seconds
        rows.add_row(
            report.name,
            *(_count(state, report.jobs[state]) for state in _SHOWN),
            f"{age:,.1f} s" if report.jobs[JobState.READY] else "",
            "" if report.paused_at is None else f"[yellow]by {report.paused_by or '?'}",
        )
    return rows


def _count(state: JobState, count: int) -> str:
    return f"{_ALARMING[state]}{count:,}" if count and state in _ALARMING else f"{count:,}"
