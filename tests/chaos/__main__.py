"""``python -m tests.chaos``: break everything, many seeds in a row, and print what held."""

import argparse
import sys
import time

from rich.console import Console
from rich.table import Table

from tests.chaos.faults import FAULTS
from tests.chaos.run import Report, run


def main() -> None:
    """Run the seeds; exit with 1 when any promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many runs")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=240)
    parser.add_argument("--faults", type=int, default=len(FAULTS))
    parser.add_argument("--commands", type=int, default=400)
    parser.add_argument("--only", nargs="*", choices=sorted(FAULTS), default=())
    options = parser.parse_args()
    console = Console(width=200)
    reports: list[Report] = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        began = time.monotonic()
        with console.status(f"seed {seed}") as status:

            def say(what: str, seed: int = seed) -> None:
                status.update(f"seed {seed}: {what}")

            report = run(
                seed,
                clients=options.clients,
                faults=options.faults,
                commands=options.commands,
                only=options.only,
                say=say,
            )
        reports.append(report)
        console.print(
            f"seed {seed}: {report.jobs:,} jobs, {report.charges:,} charges, {report.mails:,} mails,"
            f" {report.restarts} processes restarted, {report.rescued} jobs rescued,"
            f" all done {report.settled_seconds:.1f} s after the last fault,"
            f" {len(report.violations)} promises broken ({time.monotonic() - began:.0f} s)"
        )
        for violation in report.violations[:500]:
            console.print(f"  [red]{violation}")
    _show(console, reports)
    sys.exit(1 if any(report.violations for report in reports) else 0)


def _show(console: Console, reports: list[Report]) -> None:
    table = Table(
        "seeds",
        "jobs",
        "charges",
        "mails",
        "faults",
        "restarts",
        "rescued",
        "replayed",
        "slowest end",
        "broken",
    )
    table.add_row(
        str(len(reports)),
        f"{sum(report.jobs for report in reports):,}",
        f"{sum(report.charges for report in reports):,}",
        f"{sum(report.mails for report in reports):,}",
        f"{sum(len(report.faults) for report in reports):,}",
        f"{sum(report.restarts for report in reports):,}",
        f"{sum(report.rescued for report in reports):,}",
        f"{sum(report.replayed for report in reports):,}",
        f"{max(report.settled_seconds for report in reports):.1f} s",
        str(sum(len(report.violations) for report in reports)),
    )
    console.print(table)


if __name__ == "__main__":
    main()
