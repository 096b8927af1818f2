"""``python -m tests.chaos``: break everything, many seeds in a row, and print what held."""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.faults.catalogue import FAULTS
from tests.chaos.report import GOAL_RESTARTED_SECONDS, GOAL_SETTLED_SECONDS, Report
from tests.chaos.run import run


def main() -> None:
    """Run the seeds; exit with 1 when any promise was broken, or kept too late."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many runs")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=240, help="how many there are to bill")
    parser.add_argument("--faults", type=int, default=len(FAULTS), help="how many in a run")
    parser.add_argument("--per-second", type=float, default=12.0, help="commands besides billing")
    parser.add_argument("--only", nargs="*", choices=sorted(FAULTS), default=())
    options = parser.parse_args()
    console = Console(width=120)
    reports: list[Report] = []
    with Progress(
        BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
        console=console,
    ) as progress:  # fmt: skip
        task = progress.add_task("starting", total=options.seeds)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            began = time.monotonic()

            def say(what: str, seed: int = seed) -> None:
                progress.update(task, description=f"seed {seed}: {what}")

            report = run(
                seed,
                clients=options.clients,
                faults=options.faults,
                per_second=options.per_second,
                only=options.only,
                say=say,
            )
            reports.append(report)
            progress.console.print(_line(report, time.monotonic() - began))
            if report.settled_seconds > GOAL_SETTLED_SECONDS:
                progress.console.print(f"  last was {report.last}", highlight=False)
            if report.never_done:
                never_done = ", ".join(report.never_done)
                progress.console.print(f"  never done: {never_done}", highlight=False)
            for violation in report.violations:
                progress.console.print(f"  [red]{violation}", highlight=False)
            progress.advance(task)
    console.print(_totals(reports))
    console.print(_done(reports))
    console.print(_by_fault(reports))
    sys.exit(0 if all(report.is_good for report in reports) else 1)


def _line(report: Report, seconds: float) -> str:
    broken = f"[red]{len(report.violations)} broken[/]" if report.violations else "0 broken"
    return (
        f"seed {report.seed}: {report.jobs:,} jobs, {report.charges:,} charges,"
        f" {report.mails:,} mails, {len(report.faults)} faults, {broken};"
        f" done {report.settled_seconds:.1f} s after the last ({seconds:.0f} s)"
    )


def _totals(reports: Sequence[Report]) -> Table:
    def total(name: str) -> str:
        return f"{sum(getattr(report, name) for report in reports):,}"

    broken = sum(len(report.violations) for report in reports)
    settled = [report.settled_seconds for report in reports]
    restarted = sorted(wait for report in reports for wait in report.restarted_seconds)
    table = Table("what", "goal", "found", title=f"{len(reports)} seeds")
    table.add_row("promises broken (lost, double, wrong)", "0", str(broken))
    table.add_row(
        "all work done after the last fault, slowest run",
        f"{GOAL_SETTLED_SECONDS:.0f} s",
        f"{max(settled):.1f} s (median {statistics.median(settled):.1f})",
    )
    table.add_row(
        "a killed worker's job starts again, slowest",
        f"{GOAL_RESTARTED_SECONDS:.0f} s",
        f"{restarted[-1]:.1f} s (median {statistics.median(restarted):.1f})" if restarted else "-",
        end_section=True,
    )
    table.add_row("jobs", "", total("jobs"))
    table.add_row(
        "charges at Stripe, mails at SendGrid", "", f"{total('charges')}, {total('mails')}"
    )
    table.add_row("faults", "", f"{sum(len(report.faults) for report in reports):,}")
    table.add_row("processes started again", "", total("restarts"))
    table.add_row("jobs rescued from dead or paused workers", "", total("rescued"))
    table.add_row("runs that had lost their lease, nothing kept", "", total("fenced"))
    table.add_row("requests over HTTP made again", "", total("repeated"))
    table.add_row("dead jobs replayed", "", total("replayed"))
    return table


def _done(reports: Sequence[Report]) -> Table:
    done = sum((report.done for report in reports), Counter[str]())
    table = Table("what", "times", title="What clients and banks did, and what came of it")
    for what, times in done.items():
        table.add_row(what, f"{times:,}")
    return table


def _by_fault(reports: Sequence[Report]) -> Table:
    made = Counter(name for report in reports for name in report.faults)
    table = Table("fault", "times", "what it is", title="What was broken")
    for name, fault in FAULTS.items():
        summary = (fault.__doc__ or "").partition("\n")[0]
        table.add_row(name, str(made[name]), summary)
    return table


if __name__ == "__main__":
    main()
