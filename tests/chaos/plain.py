"""``python -m tests.chaos.plain``: what the plain way of using dramatiq loses under our faults."""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
from redis import Redis
from rich.console import Console
from rich.table import Table

from gateways.sandbox.postgres import EmbeddedPostgres
from gateways.sandbox.redis import EmbeddedRedis
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
from gateways.sandbox.stripe.cardholders import make_cardholder
from gateways.sandbox.stripe.server import StripeSandbox

ROOT = Path(__file__).resolve().parents[2]
QUIET_SECONDS = 20.0
GIVE_UP_SECONDS = 240.0


def main() -> None:
    """Send invoices through, break the same things, and count what is left undone."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.plain", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--invoices", type=int, default=1_000)
    options = parser.parse_args()
    console = Console()
    found = _run(random.Random(options.seed), options.invoices)  # noqa: S311 - repeatable
    table = Table("", "invoices", title=f"Plain dramatiq, seed {options.seed}")
    for what, count in found.items():
        table.add_row(what, f"{count:,}")
    console.print(table)


def _run(rng: random.Random, invoices: int) -> dict[str, int]:
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="duecourse-plain-")))
        postgres = ends.enter_context(EmbeddedPostgres(folder / "postgres"))
        redis = ends.enter_context(EmbeddedRedis(folder / "redis", append_only=False))
        stripe = ends.enter_context(StripeSandbox(folder / "stripe"))
        sendgrid = ends.enter_context(SendGridSandbox(folder / "sendgrid"))
        mails = ends.enter_context(closing(sendgrid.control()))
        os.environ |= {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": redis.url,
            "STRIPE_API_BASE": stripe.url,
            "SENDGRID_API_BASE": sendgrid.url,
        }
        with psycopg.connect(postgres.url) as connection:
            connection.execute("CREATE TABLE plain_invoices (id int PRIMARY KEY, paid boolean)")
            connection.execute(
                "INSERT INTO plain_invoices SELECT n, false FROM generate_series(1, %s) AS n",
                [invoices],
            )
        workers = [_start(folder) for _ in range(2)]
        ends.callback(_kill_all, workers)
        card = make_cardholder(stripe.url)
        # Only now: the module builds its broker from the environment.
        from tests.chaos.plain_actors import charge  # noqa: PLC0415

        with closing(Redis.from_url(redis.url)) as doorbell:

            def restart_redis() -> None:
                redis.kill()
                time.sleep(2)
                redis.start()

            def fill_redis() -> None:
                doorbell.config_set("maxmemory", "1")
                time.sleep(2)
                doorbell.config_set("maxmemory", "0")

            def kill_worker() -> None:
                number = rng.randrange(len(workers))
                _kill(workers[number])
                workers[number] = _start(folder)

            faults: tuple[Callable[[], object], ...] = (
                kill_worker,
                fill_redis,
                restart_redis,
                kill_worker,
                doorbell.flushall,
            )
            sent = 0
            for fault in faults:
                for _ in range(invoices // len(faults)):
                    sent += 1
                    charge.send(sent, card.customer, card.payment_method)
                time.sleep(1 + rng.random())
                fault()
                _keep_two(workers, folder)
            _wait_until_quiet(postgres.url, lambda: len(mails.mails()), workers, folder)
        charged = Counter(
            intent["metadata"]["attempt"]
            for intent in stripe.control.payment_intents()
            if intent["status"] == "succeeded"
        )
        mailed = Counter(mail.custom_args["invoice"] for mail in mails.mails())
        with psycopg.connect(postgres.url) as connection:
            paid = {
                str(row[0])
                for row in connection.execute("SELECT id FROM plain_invoices WHERE paid")
            }
        return {
            "sent to the queue": sent,
            "charged and paid": len(paid & charged.keys()),
            "never charged": sent - len(charged),
            "charged and not marked as paid": len(charged.keys() - paid),
            "paid and never told": len(paid - mailed.keys()),
            "told twice": sum(times > 1 for times in mailed.values()),
        }


def _start(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "plain.log").open("ab") as log:
        command = ["-m", "dramatiq", "tests.chaos.plain_actors", "-p", "1", "-t", "4"]
        return subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """With its own children, which do the work and would outlive it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _kill_all(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        _kill(worker)


def _keep_two(workers: list[subprocess.Popen[bytes]], folder: Path) -> None:
    for number, worker in enumerate(workers):
        if worker.poll() is not None:
            workers[number] = _start(folder)


def _wait_until_quiet(
    database_url: str,
    mails: Callable[[], int],
    workers: list[subprocess.Popen[bytes]],
    folder: Path,
) -> None:
    """Wait until nothing has moved for a while."""
    last, since, began = (-1, -1), time.monotonic(), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS and time.monotonic() - began < GIVE_UP_SECONDS:
        _keep_two(workers, folder)
        with psycopg.connect(database_url) as connection:
            row = connection.execute("SELECT count(*) FROM plain_invoices WHERE paid").fetchone()
        now = (row[0] if row else 0, mails())
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(1)


if __name__ == "__main__":
    main()
