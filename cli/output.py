"""What a command says: tables and text for people, or one JSON document for programs."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Annotated, Any

import typer
from rich import box
from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from cli import interrupts

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document to standard output, nothing else.")
]

# A pipe has no width: wide enough there that no table cuts off what a program looks for.
PIPE_WIDTH = 200
GAP = 3


class Output:
    """Standard output for the answer; standard error for progress, notes and warnings."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._answers = Console(highlight=False)
        if not self._answers.is_terminal and "COLUMNS" not in os.environ:
            self._answers.width = PIPE_WIDTH
        self._notes = Console(stderr=True, highlight=False)

    def show(self, *renderables: RenderableType) -> None:
        """Show people tables and such; programs that asked for JSON see nothing of it."""
        if not self.as_json:
            for renderable in renderables:
                self._answers.print(renderable, "")

    def beside(self, *renderables: RenderableType) -> None:
        """Show people things next to each other where all fit, else one after another."""
        measured = (
            Measurement.get(self._answers, self._answers.options, one).maximum
            for one in renderables
        )
        if sum(measured) + GAP * len(renderables) <= self._answers.width:
            self.show(Columns(renderables, padding=(0, GAP)))
        else:
            self.show(*renderables)

    def say(self, text: str) -> None:
        """Show people one line, never wrapped, so that it can be copied or searched."""
        if not self.as_json:
            self._answers.print(text, soft_wrap=True)

    def document(self, value: Mapping[str, Any]) -> None:
        """Give programs the answer; people see nothing of it."""
        if self.as_json:
            typer.echo(as_json_text(value))

    def note(self, text: str) -> None:
        """Tell something beside the answer, in one line."""
        self._notes.print(text, soft_wrap=True)

    def live(self) -> Live:
        """A place on standard output whose content is replaced as it changes."""
        return Live(console=self._answers, auto_refresh=False)

    @contextmanager
    def status(self, what: str) -> Iterator[None]:
        """Tell what goes on while the block runs, and how long it took."""
        began = time.monotonic()
        with self._notes.status(what) if self._notes.is_terminal else nullcontext():
            yield
        self.note(f"[green]✓[/] {what} [dim]{time.monotonic() - began:.1f} s")

    @contextmanager
    def progress(self) -> Iterator["ProgressBars"]:
        """Bars on standard error while the block runs; drawn only where somebody sees them."""
        with Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._notes,
            disable=not self._notes.is_terminal,
        ) as bars:
            yield ProgressBars(bars)


class ProgressBars:
    """A bar for each stage of a piece of work, made when the stage is first heard of."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def update(self, stage: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` of ``stage`` are behind us.

        Raises:
            KeyboardInterrupt: It was pressed before.
        """
        interrupts.check()
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=None)
        self._bars.update(self._tasks[stage], completed=done, total=total)


def table(title: str, *columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table; ``numbers`` names the columns that align to the right."""
    empty = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for column in columns:
        empty.add_column(
            column,
            justify="right" if column in numbers else "left",
            no_wrap=column in numbers,
            overflow="fold",
        )
    return empty


def count(number: int, what: str) -> str:
    """A number of things for people: ``1 invoice``, ``2,000 invoices``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def as_json_text(value: Mapping[str, Any]) -> str:
    """JSON for programs and people: indented, other types than JSON's as text."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=_as_text)


def instant(value: datetime | None) -> str:
    """An instant for people, in UTC to the second."""
    return "" if value is None else f"{value:%Y-%m-%d %H:%M:%S}Z"


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
