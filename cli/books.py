"""``duecourse audit``: whether the books agree."""

import typer
from rich.text import Text

from cli.context import AccountName, StackDirectory, open_context
from cli.failures import FOUND_A_PROBLEM
from cli.output import AsJson, Output, count, table
from tasks import audits


def audit(
    directory: StackDirectory = None, account_name: AccountName = None, as_json: AsJson = False
) -> None:
    """Check every rule of the books and print each place where one does not hold."""
    output = Output(as_json=as_json)
    with open_context(directory) as context, context.transaction() as session:
        account = context.account(session, account_name)
        differences = audits.audit(session, account.id)
    output.document(
        {
            "account": account.name,
            "ok": not differences,
            "rules": list(audits.RULES),
            "differences": [
                {"rule": one.rule, "subject": one.subject, "found": one.found}
                for one in differences
            ],
        }
    )
    if not differences:
        output.say(f"[green]✓[/] {len(audits.RULES)} rules checked, no difference found")
        return
    found = table(count(len(differences), "difference"), "rule", "subject", "found")
    for one in differences:
        found.add_row(one.rule, Text(one.subject), Text(one.found))
    output.show(found)
    raise typer.Exit(FOUND_A_PROBLEM)
