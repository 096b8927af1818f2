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

    PostgreSQL and Redis are started too, each unless DATABASE_URL or REDIS_URL is set.
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
        with output.status("starting PostgreSQL, Redis, web, scheduler, dispatcher, worker"):
            stack.start()
    except LocalServerError:
        if stopping.is_set():
            return
        raise
    try:
        output.document(
            {**stack.settings, "url": stack.url, "directory": stack.directory, "pids": stack.pids}
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
    public_url = stack.settings["PUBLIC_URL"]
    for name, value in (
        ("HTTP API", f"{stack.url}  [dim](/openapi.json, /readyz, /metrics)"),
        *([("known as", public_url)] if public_url != stack.url else ()),
        ("API key", stack.settings[API_KEY]),
        ("PostgreSQL", stack.settings["DATABASE_URL"]),
        ("Redis", stack.settings["REDIS_URL"]),
        ("settings", str(settings_file(stack.directory))),
        ("logs", str(stack.logs)),
        ("stop", "Ctrl-C; the data stays and is there again at the next start"),
    ):
        rows.add_row(f"[dim]{name}", value)
    return rows
