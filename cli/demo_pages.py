"""The demo's account of itself: tables, a bar plot, one invoice, and the verdict."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.align import Align
from rich.bar import Bar
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from billing.money import format_amount
from billing.periods import PeriodState
from cli.demo_checks import MAILS
from cli.demo_report import STAGES, DemoReport
from cli.following_up import show_follow_up
from cli.output import Output, count, table
from cli.sample_month import DISCOUNT, KINDS, PREP, SHIPPING, STORAGE
from models import Invoice, InvoiceLine
from tasks.audits import RULES

BAR_WIDTH = 24
INVOICE_WIDTH = 80
DIFFERING_SHOWN = 10
_TICK, _CROSS = "[green]✓[/]", "[red]✗[/]"
_COLOURS = {PREP: "cyan", STORAGE: "blue", SHIPPING: "magenta", DISCOUNT: "red"}


def show(output: Output, report: DemoReport) -> None:
    """Tell people what ran, what came in, what came out, and whether it agrees."""
    output.say("")
    output.show(
        f"[bold]{report.month:%B %Y} of a prep centre[/]: two warehouses, two time zones, two "
        "currencies; real servers, real processes, a local Stripe and SendGrid"
    )
    output.say("")
    output.beside(_stack(report), _imported(report))
    output.show(_before_billing(report))
    output.say("")
    output.beside(_outcomes(report), _invoices(report))
    show_follow_up(output, report.followed)
    output.show(_agreements(report))
    output.beside(_trial_balance(report), _revenue(report))
    output.show(_invoice(report.sample.invoice, report.sample.lines))
    for line in (_timings(report), *_verdict(report), *_where_to_look(report)):
        output.say(line)


def _stack(report: DemoReport) -> Table:
    rows = table("The stack", "process", "pid", numbers=("pid",))
    for name, pid in report.pids.items():
        rows.add_row(name, str(pid))
    return rows


def _imported(report: DemoReport) -> Table:
    numbers = ("rows", "charges", "clients", "bad")
    rows = table("Imported", "file", *numbers, numbers=numbers)
    for name, path in report.prepared.files.items():
        imported = report.prepared.imports[name]
        counts = imported.rows, imported.created, imported.clients_created, len(imported.bad)
        rows.add_row(path.name, *(f"{one:,}" for one in counts))
    return rows


def _before_billing(report: DemoReport) -> str:
    prepared = report.prepared
    deposits = " and ".join(
        f"{count(one['deposits'], 'deposit')} of {format_amount(one['total'], currency)}"
        for currency, one in sorted(prepared.paid_ahead.items())
    )
    return (
        f"[dim]Then {count(prepared.cards, 'client')} got a card at Stripe and "
        f"{prepared.emails:,} an email address; {deposits} came ahead."
    )


def _outcomes(report: DemoReport) -> Table:
    rows = table("Billing periods", "outcome", "periods", "why", numbers=("periods",))
    whys = {
        PeriodState.BILLED: "drafted, finalized, posted",
        PeriodState.EMPTY: "no charges in the month",
        PeriodState.SKIPPED: "",
        PeriodState.FAILED: "; ".join(sorted({one["error"] for one in report.billed.failures})),
    }
    for state, why in whys.items():
        periods = report.billed.periods[state]
        rows.add_row(state.value, f"{periods:,}", Text(why if periods else "", style="dim"))
    return rows


def _invoices(report: DemoReport) -> Table:
    numbers = ("invoices", "total", "sum over the files")
    rows = table("Invoices", *numbers, "", numbers=numbers)
    for currency, sums in report.by_currency.items():
        rows.add_row(
            f"{report.billed.invoiced.get(currency, Counter())['invoices']:,}",
            format_amount(sums["invoices"], currency),
            format_amount(sums["files"], currency),
            _mark(ok=sums["invoices"] == sums["files"]),
        )
    return rows


def _agreements(report: DemoReport) -> Table:
    """What each record says of the same thing, side by side."""
    currencies = (*report.currencies, MAILS)
    rows = table("Who says what", "what", "who says so", *currencies, "", numbers=currencies)
    for one in report.agreements:
        last = len(one.said) - 1
        for place, who in enumerate(one.said):
            totals = one.totals(who)
            rows.add_row(
                one.what if place == 0 else "",
                who,
                *(_total(totals, currency) for currency in currencies),
                _mark(ok=one.ok) if place == last else "",
                end_section=place == last,
            )
    return rows


def _total(totals: dict[str, int], currency: str) -> str:
    if currency not in totals:
        return ""
    total = totals[currency]
    return f"{total:,}" if currency == MAILS else format_amount(total, currency)


def _trial_balance(report: DemoReport) -> Table:
    numbers = ("debits", "credits")
    rows = table("Trial balance", "ledger account", *numbers, "", numbers=numbers)
    for currency in report.currencies:
        for line in report.trial_balance:
            if line.currency == currency:
                sides = (line.debits, line.credits)
                rows.add_row(
                    line.ledger_account,
                    *(format_amount(side, currency) if side else "" for side in sides),
                )
        debits, credits_ = report.sides(currency)
        rows.add_row(
            "",
            format_amount(debits, currency),
            format_amount(credits_, currency),
            _mark(ok=debits == credits_),
            style="bold",
            end_section=True,
        )
    return rows


def _revenue(report: DemoReport) -> Table:
    """A bar for each kind of work; each currency has its own scale."""
    rows = table("Revenue by kind of work", "kind", "", "amount", numbers=("amount",))
    for currency, by_description in report.revenue.items():
        by_kind = Counter[str]()
        for description, amount in by_description.items():
            by_kind[KINDS[description]] += amount
        largest = max(by_kind.values())
        for kind, amount in by_kind.most_common():
            bar = Bar(largest, 0, abs(amount), width=BAR_WIDTH, color=_COLOURS[kind])
            rows.add_row(kind, bar, format_amount(amount, currency))
        rows.add_section()
    return rows


def _invoice(invoice: Invoice, lines: Iterable[InvoiceLine]) -> Panel:
    """One invoice, as its client will read it."""
    parties = Table.grid(expand=True, padding=(0, 2))
    parties.add_column()
    parties.add_column(justify="right")
    parties.add_row(_party("from", invoice.bill_from), f"issued {invoice.issued_on}")
    parties.add_row(_party("to", invoice.bill_to), f"due {invoice.due_on}")
    rows = Table(box=None, expand=True, header_style="dim", pad_edge=False)
    rows.add_column("date", no_wrap=True)
    rows.add_column("description", ratio=1)
    for name in ("quantity", "unit price", "amount"):
        rows.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        rows.add_row(
            line.charged_on.isoformat(),
            Text(line.description),
            f"{line.quantity.normalize():f}",
            "" if line.unit_price is None else f"{line.unit_price:.4f}",
            format_amount(line.amount, invoice.currency),
        )
    sums = Table.grid(padding=(0, 2))
    sums.add_column()
    sums.add_column(justify="right")
    for name, amount in (
        ("total", invoice.total),
        ("credit applied", -invoice.credit_applied),
        ("paid by card", -invoice.amount_paid),
    ):
        if amount:
            sums.add_row(f"[dim]{name}", format_amount(amount, invoice.currency))
    sums.add_row("amount due", format_amount(invoice.amount_due, invoice.currency), style="bold")
    return Panel(
        Group(parties, "", rows, "", Align.right(sums)),
        title=f"[bold]{invoice.number}[/] ({invoice.status})",
        title_align="left",
        width=INVOICE_WIDTH,
        padding=(1, 2),
    )


def _party(role: str, party: dict[str, object] | None) -> Text:
    return Text.assemble((f"{role} ", "dim"), str((party or {}).get("name", "")))


def _timings(report: DemoReport) -> str:
    billed = report.billed
    times = ", ".join(f"{name} {report.seconds[name]:.1f} s" for name in STAGES)
    return f"[dim]{times}; {billed.invoices / billed.seconds:,.0f} invoices billed a second[/]"


def _verdict(report: DemoReport) -> Iterable[str]:
    lines = sum(one.rows for one in report.prepared.imports.values())
    yield (
        f"{_mark(ok=report.files_agree)} every client is invoiced what an independent sum over "
        f"{lines:,} CSV rows says"
    )
    yield f"{_mark(ok=report.books_agree)} debits equal credits, and revenue equals the invoices"
    yield (
        f"{_mark(ok=report.followed.adds_up)} what credit and cards paid and what is due sum to "
        "what was invoiced"
    )
    for one in report.agreements:
        agree = "agree item by item" if one.ok else "differ"
        yield f"{_mark(ok=one.ok)} {one.what}: {_listed(list(one.said))} {agree}"
        for item in one.differing[:DIFFERING_SHOWN]:
            yield f"  [red]{item}"
    found = len(report.differences)
    yield f"{_mark(ok=not found)} audit: {len(RULES)} rules, {count(found, 'difference') if found else 'no difference'}"
    for difference in report.differences:
        yield f"  [red]{difference.rule}[/] {difference.subject}: {difference.found}"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _where_to_look(report: DemoReport) -> Iterable[str]:
    folder = _from_here(report.directory)
    yield ""
    yield "[bold]Nothing is left running. Where to look[/]"
    yield f"  the invoice above       {_from_here(report.sample.document)}"
    if report.sample.mail is not None:
        yield f"  the mail that told it   {_from_here(report.sample.mail)}/mail.html"
    yield f"  every mail              {_from_here(report.mails)}/"
    yield f"  what went in            {folder}/charges-*.csv"
    yield f"  what each process said  {folder}/logs/"
    yield f"  the same books again    duecourse up --dir {folder}"
    yield f"  and, while that runs    duecourse jobs list --dir {folder}"
    yield "                          (or queues, schedules, audit, doctor)"


def _from_here(path: Path) -> Path:
    """A path as one would type it."""
    here = Path.cwd()
    whole = path.resolve()
    return whole.relative_to(here) if whole.is_relative_to(here) else path


def _mark(*, ok: bool) -> str:
    return _TICK if ok else _CROSS
