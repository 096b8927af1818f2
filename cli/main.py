"""The ``duecourse`` command; also ``python -m cli.main``."""

import signal
from importlib.metadata import version
from typing import Annotated

import typer

from cli.administration import accounts, api_keys, migrate, schedules
from cli.billing import bill
from cli.books import audit
from cli.demo import demo
from cli.differences import differences
from cli.doctor import doctor
from cli.failures import OneLineFailures
from cli.import_command import import_file
from cli.interrupts import interrupt_on
from cli.jobs import jobs
from cli.queues import queues
from cli.reconcile_command import reconcile
from cli.recovery import recovery
from cli.up import up

app = typer.Typer(
    cls=OneLineFailures,
    name="duecourse",
    help="Turns recorded charges into invoices, by durable jobs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"duecourse {version('duecourse')}")
        raise typer.Exit


@app.callback()
def of_every_command(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """What may be asked without a command."""


for command in (demo, up, migrate, doctor, bill, queues, schedules, audit, reconcile, recovery):
    app.command()(command)
app.command("import")(import_file)
app.add_typer(jobs, name="jobs")
app.add_typer(differences, name="differences")
app.add_typer(accounts, name="account")
app.add_typer(api_keys, name="api-key")


def main() -> None:
    """Run the command that the arguments name."""
    interrupt_on(signal.SIGINT)
    app(prog_name="duecourse")


if __name__ == "__main__":
    main()
