"""``python -m tests.chaos.plain``: what dramatiq's own way keeps of our promise, under our faults."""

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import dramatiq
import psycopg
import redis
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine

from gateways.sandbox.stripe.cardholders import make_cardholder
from tests.chaos.faults.catalogue import FAULTS, plan
from tests.chaos.faults.striking import strike_all
from tests.chaos.faults.target import Target
from tests.chaos.fleet import Fleet
from tests.chaos.load import Load
from tests.chaos.servers import Servers

COMMANDS = {"worker": ("dramatiq", "tests.chaos.plain_actors", "-p", "1", "-t", "4")}

NOT_FOR_IT = frozenset(
    {
        # Of processes, queues and webhooks that there are none of here.
        *("crash_at_points", "kill_all_workers", "skew_a_clock", "deploy_ahead", "pause_a_queue"),
        *("repeat_webhooks", "hold_webhooks", "withhold_webhooks", "tell_before_answering"),
    }
)
QUIET_SECONDS = 30.0
GIVE_UP_SECONDS = 300.0


@dataclass
class _Sender:
    """Sends invoices to be charged, and counts those that Redis took."""

    charge: "dramatiq.Actor[..., None]"
    database_url: str
    card: tuple[str, str]
    numbers: "count[int]" = field(default_factory=lambda: count(1))
    accepted: set[str] = field(default_factory=set)

    def send(self) -> None:
        number = next(self.numbers)
        self._patiently(lambda: self._write(number))
        self._patiently(lambda: self.charge.send(number, *self.card))
        self.accepted.add(str(number))

    def _write(self, number: int) -> None:
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                "INSERT INTO plain_invoices VALUES (%s, false) ON CONFLICT DO NOTHING", [number]
            )

    def _patiently(self, act: Callable[[], object]) -> None:
        while True:
            try:
                act()
            except (psycopg.Error, redis.RedisError, dramatiq.errors.BrokerConnectionError):
                time.sleep(0.2)
            else:
                return


def main() -> None:
    """Send invoices through, break the same things, and count what is left undone."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.plain", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--per-second", type=float, default=8.0)
    parser.add_argument(
        "--redis-on-disk", action="store_true", help="Redis keeps its data over a restart"
    )
    options = parser.parse_args()
    console = Console()
    found: Counter[str] = Counter()
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        with console.status(f"seed {seed}"):
            found.update(_run(seed, options.per_second, on_disk=options.redis_on_disk))
    table = Table("", "invoices", title=f"dramatiq's own way, {options.seeds} seeds")
    for what, invoices in found.items():
        table.add_row(what, f"{invoices:,}")
    console.print(table)


def _run(seed: int, per_second: float, *, on_disk: bool) -> Counter[str]:
    rng = random.Random(seed)  # noqa: S311 - it must be repeatable
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="duecourse-plain-")))
        servers = ends.enter_context(Servers(folder, redis_on_disk=on_disk))
        os.environ |= servers.environment
        with psycopg.connect(servers.postgres.url) as connection:
            connection.execute("CREATE TABLE plain_invoices (id int PRIMARY KEY, paid boolean)")
        fleet = ends.enter_context(
            Fleet(
                servers.environment,
                folder / "logs",
                commands=COMMANDS,
                workers=tuple(COMMANDS),
                twice=tuple(COMMANDS),
            )
        )
        holder = make_cardholder(servers.stripe.url)
        # Only now: the module builds its broker from the environment.
        from tests.chaos.plain_actors import charge, connect  # noqa: PLC0415

        connect(servers.environment)
        sender = _Sender(charge, servers.postgres.url, (holder.customer, holder.payment_method))
        target = Target(
            fleet=fleet,
            postgres=servers.postgres,
            redis=servers.redis,
            proxy=servers.proxy,
            stripe=servers.stripe,
            sendgrid=servers.sendgrid,
            engine=create_engine("postgresql+psycopg://"),
            rng=rng,
        )
        names = sorted(FAULTS.keys() - NOT_FOR_IT)
        with Load([sender.send], per_second=per_second):
            strike_all(target, plan(rng, len(names), names))
        servers.stripe.clear_faults()
        servers.sendgrid.clear_faults()
        _wait_until_quiet(servers)
        return _found(sender, servers)


def _found(sender: _Sender, servers: Servers) -> Counter[str]:
    charged = Counter(
        intent["metadata"]["attempt"]
        for intent in servers.stripe.payment_intents()
        if intent["status"] == "succeeded"
    )
    mailed = Counter(mail.custom_args["invoice"] for mail in servers.sendgrid.mails())
    paid = {str(number) for number in _paid(servers)}
    sent = sender.accepted
    return Counter(
        {
            "sent, and taken by Redis": len(sent),
            "never charged": len(sent - charged.keys()),
            "charged, and not marked as paid": len(charged.keys() - paid),
            "charged twice": sum(times > 1 for times in charged.values()),
            "paid, and not told": len(paid - mailed.keys()),
            "told twice": sum(times > 1 for times in mailed.values()),
        }
    )


def _paid(servers: Servers) -> list[int]:
    with psycopg.connect(servers.postgres.url) as connection:
        rows = connection.execute("SELECT id FROM plain_invoices WHERE paid").fetchall()
    return [row[0] for row in rows]


def _wait_until_quiet(servers: Servers) -> None:
    """Wait until nothing has moved for a while: it does not say itself when it is done."""
    last, since, began = (-1, -1), time.monotonic(), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS and time.monotonic() - began < GIVE_UP_SECONDS:
        now = len(_paid(servers)), len(servers.sendgrid.mails())
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(1)


if __name__ == "__main__":
    main()
