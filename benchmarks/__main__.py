"""``python -m benchmarks``: every measurement, on embedded servers of its own."""

import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.billing_pages import measure_pages
from benchmarks.job_engine import measure_engine
from benchmarks.measurement import Measurement
from benchmarks.taxed_pages import measure_taxed_pages
from benchmarks.vendor_calls import measure_vendor_calls
from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.redis import EmbeddedRedis


def main() -> None:
    """Measure, and print each group beside its own baseline."""
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="duecourse-bench-") as directory,
        EmbeddedPostgres(Path(directory) / "postgres") as postgres,
        EmbeddedRedis(Path(directory) / "redis", append_only=False) as redis,
    ):
        console.print("Billing a month, a page of many clients against one client at a time ...")
        console.print(_table("Billing", "clients", measure_pages(postgres.url)))
        console.print("Billing a page with taxes against one without ...")
        console.print(_table("Taxes", "clients", measure_taxed_pages(postgres.url)))
        console.print("Draining no-op jobs through real processes ...")
        console.print(_table("Jobs", "jobs", measure_engine(postgres.url, redis.url)))
        console.print("Charging cards and sending mails, each call with a vendor's latency ...")
        calls = measure_vendor_calls(postgres.url, redis.url, Path(directory))
        console.print(_table("Cards", "charges", calls.charges))
        console.print(_table("Mail", "mails", calls.mails))


def _table(title: str, unit: str, measurements: list[Measurement]) -> Table:
    table = Table(title=title)
    table.add_column("what")
    for heading in (unit, "seconds", f"{unit}/s", "ratio"):
        table.add_column(heading, justify="right")
    baseline = measurements[0].per_second
    for one in measurements:
        table.add_row(
            one.name,
            f"{one.count:,}",
            f"{one.seconds:.2f}",
            f"{one.per_second:,.0f}",
            f"{one.per_second / baseline:.2f}",
        )
    return table


if __name__ == "__main__":
    main()
