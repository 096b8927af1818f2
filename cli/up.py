"""``duecourse up``: the whole stack on this machine, until Ctrl-C."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cli.output import AsJson, Output
from cli.stack import API_KEY, DEFAULT_DIRECTORY, Stack, settings_file
from gateways.sandbox.processes import LocalServerError
from workers.stopping import stop_on_signals

TEND_EVERY_SECONDS = 0.25


def up(
    directory: Annotated[
        Path,
        typer.Option("--dir", help="Holds data, logs and duecourse.env.", file_okay=False),
    ] = DEFAULT_DIRECTORY,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Of the HTTP API; else PORT, else a free one.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start everything, and keep it running until Ctrl-C or SIGTERM.

    PostgreSQL, Redis and a local Stripe and SendGrid are started too, each unless DATABASE_URL,
    REDIS_URL, STRIPE_SECRET_KEY or SENDGRID_API_KEY is set.
    """
    output = Output(as_json=as_json)
    stopping = stop_on_signals()
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # Under nohup it means nothing.
        signal.signal(signal.SIGHUP, lambda _signal, _frame: stopping.set())
    stack = Stack(
        directory,
        port=port,
        environment=os.environ,
        stopping=stopping,
        say=lambda text: output.note(f"[yellow]{escape(text)}"),
    )
    try:
        with output.status("starting servers and processes"):
            stack.start()
    except LocalServerError:
        if stopping.is_set():
            return
        raise
    try:
        output.document(
            {
                **stack.printable_settings,
                "url": stack.url,
                "directory": stack.directory,
                "pids": stack.pids,
            }
        )
        output.show(_addresses(stack))
        while not stopping.wait(TEND_EVERY_SECONDS):
            stack.tend()
    finally:
        with output.status("stopping; work under way is finished first"):
            stack.stop()


def _addresses(stack: Stack) -> Table:
    rows = Table.grid(padding=(0, 2))
    rows.title = "[bold green]Duecourse runs[/]"
    rows.title_justify = "left"
    settings = stack.printable_settings
    public_url = settings["PUBLIC_URL"]
    for name, value in (
        ("HTTP API", f"{stack.url}  [dim](/openapi.json, /readyz, /metrics)"),
        *([("known as", public_url)] if public_url != stack.url else ()),
        ("API key", settings[API_KEY]),
        ("PostgreSQL", settings["DATABASE_URL"]),
        ("Redis", settings["REDIS_URL"]),
        ("Stripe", _vendor(stack, "stripe", "STRIPE_API_BASE", "local: no money moves")),
        (
            "SendGrid",
            _vendor(stack, "sendgrid", "SENDGRID_API_BASE", f"local: mails stay in {stack.mails}"),
        ),
        ("settings", str(settings_file(stack.directory))),
        ("logs", str(stack.logs)),
        ("stop", "Ctrl-C; the data stays and is there again at the next start"),
    ):
        rows.add_row(f"[dim]{name}", value)
    return rows


def _vendor(stack: Stack, server: str, setting: str, while_local: str) -> str:
    address = stack.settings.get(setting, "the real one")
    return f"{address}  [dim]({escape(while_local)})" if server in stack.pids else address
