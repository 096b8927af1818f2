"""Recovery: what became of invoices whose first automatic try failed, and which step brought it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID
from zoneinfo import ZoneInfo

from billing.collection import Origin
from billing.cycles import boundary_instant
from billing.errors import InvalidInput

DEFAULT_DAYS = 90
"""How many days a report is about that is asked for without them."""

EARLIEST_DAY, LATEST_DAY = date(1970, 1, 1), date(9998, 12, 31)
"""Days that have instants in every zone; nobody has billed before the one or after the other."""

_RETRY = "retry_"
_FOUR_PLACES = Decimal("0.0001")


class Step(StrEnum):
    """What brought money in, but for a retry of the schedule: those are counted, from ``retry_1``."""

    # Another card was left, and tried by itself.
    NEW_CARD = "new_card"
    # The second card, tried at once after the first one refused.
    BACKUP_CARD = "backup_card"
    # Somebody pressed the button.
    STAFF = "staff"
    # The client paid on a page, or confirmed a payment that had waited for that.
    CLIENT = "client"
    # From outside.
    OUTSIDE = "outside"
    # Credit that came after the first try.
    CREDIT = "credit"


_ORDER = tuple(Step)


@dataclass(frozen=True, slots=True)
class Try:
    """One payment attempt of an invoice.

    ``card`` is Stripe's payment method. ``job_id`` made it, in a run that began at ``run_at``.
    """

    id: UUID
    origin: Origin
    card: str
    job_id: UUID
    run_at: datetime


@dataclass(frozen=True, slots=True)
class Incoming:
    """Money for an invoice after its first try, in minor units.

    ``attempt_id`` is the try that brought it; ``None`` where it came from outside, or is credit.
    """

    amount: int
    attempt_id: UUID | None = None
    is_credit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedInvoice:
    """An invoice whose first automatic try failed.

    Attributes:
        currency: Of all its amounts, which are in minor units.
        amount: What the first try was for.
        tries: All of its attempts, in their order; the first automatic one is the one that failed.
        incoming: All that came since, in its order.
        due: What is due of it now.
        written_off: What was given up of it, and did not come since.
        is_void: Whether it was voided: then nothing of it was recovered.
    """

    currency: str
    amount: int
    tries: Sequence[Try]
    incoming: Sequence[Incoming]
    due: int
    written_off: int
    is_void: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """How many invoices, and how much of what had failed, in minor units."""

    invoices: int = 0
    amount: int = 0

    def and_one(self, amount: int) -> Part:
        """With one invoice more, if there is anything of it."""
        return Part(self.invoices + 1, self.amount + amount) if amount else self

    def rate_of(self, failed: Part) -> Decimal:
        """Which part of the amount that had failed, from 0 to 1."""
        if not failed.amount:
            return Decimal(0)
        return (Decimal(self.amount) / failed.amount).quantize(_FOUR_PLACES)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of one currency's failed invoices: steps, open, given up and withdrawn are all.

    ``recovered`` counts the invoices that were recovered whole, and every amount that was.
    ``withdrawn`` was voided or taken back by credit notes: nobody owes it any more.
    """

    failed: Part
    recovered: Part
    steps: Mapping[str, Part]
    open: Part
    given_up: Part
    withdrawn: Part

    @property
    def outcomes(self) -> dict[str, Part]:
        """Every outcome by its name, in the order in which they are shown."""
        return {
            "failed": self.failed,
            "recovered": self.recovered,
            **self.steps,
            "open": self.open,
            "given_up": self.given_up,
            "withdrawn": self.withdrawn,
        }


def recovery_of(invoices: Iterable[FailedInvoice]) -> dict[str, Recovery]:
    """What became of them, by currency; amounts in two currencies are never added up."""
    by_currency: dict[str, list[FailedInvoice]] = defaultdict(list)
    for invoice in invoices:
        by_currency[invoice.currency].append(invoice)
    return {currency: _recovery(of) for currency, of in sorted(by_currency.items())}


def _recovery(invoices: Sequence[FailedInvoice]) -> Recovery:
    failed = recovered = open_ = given_up = withdrawn = Part()
    steps: dict[str, Part] = {}
    for invoice in invoices:
        failed = failed.and_one(invoice.amount)
        left = invoice.amount
        for step, amount in _by_step(invoice).items():
            # No more than had failed: what else came was for what was added to the debt since.
            taken = min(amount, left)
            if taken:
                steps[step] = steps.get(step, Part()).and_one(taken)
            left -= taken
        whole = invoice.amount if left == 0 else 0
        recovered = Part(recovered.invoices + bool(whole), recovered.amount + invoice.amount - left)
        still_due = min(invoice.due, left)
        given = min(invoice.written_off, left - still_due)
        open_, given_up = open_.and_one(still_due), given_up.and_one(given)
        withdrawn = withdrawn.and_one(left - still_due - given)
    ordered = dict(sorted(steps.items(), key=lambda item: _place(item[0])))
    return Recovery(failed, recovered, ordered, open_, given_up, withdrawn)


def _by_step(invoice: FailedInvoice) -> dict[str, int]:
    amounts: dict[str, int] = {}
    for one in () if invoice.is_void else invoice.incoming:
        step = step_of(one, invoice.tries)
        amounts[step] = amounts.get(step, 0) + one.amount
    return amounts


def step_of(money: Incoming, tries: Sequence[Try]) -> str:
    """Which step brought money in; a retry of the schedule is ``retry_`` and its number."""
    if money.is_credit:
        return Step.CREDIT
    if money.attempt_id is None:
        return Step.OUTSIDE
    place = next(index for index, one in enumerate(tries) if one.id == money.attempt_id)
    this = tries[place]
    if this.origin == Origin.STAFF:
        return Step.STAFF
    before = [one for one in tries[:place] if one.origin == Origin.AUTOMATIC]
    # The first try itself pays once its client has confirmed it.
    if this.origin == Origin.CLIENT or not before:
        return Step.CLIENT
    if this.card == before[0].card:
        return f"{_RETRY}{sum(one.card == this.card for one in before)}"
    return Step.BACKUP_CARD if _is_of_one_run(before[-1], this) else Step.NEW_CARD


def _is_of_one_run(refused: Try, this: Try) -> bool:
    """Whether the run that was refused went on with the second card; a new one has its own."""
    return (refused.job_id, refused.run_at) == (this.job_id, this.run_at)


def _place(step: str) -> tuple[int, int]:
    """The schedule's retries come first, in their order."""
    if step.startswith(_RETRY):
        return 0, int(step.removeprefix(_RETRY))
    return 1, _ORDER.index(Step(step))


def days_asked_for(first: date | None, last: date | None, *, today: date) -> tuple[date, date]:
    """The first and the last day of a report; up to today, and of ``DEFAULT_DAYS``, unless named.

    Raises:
        InvalidInput: The last is before the first, or one is none that anybody bills on.
    """
    for field, day in (("from", first), ("to", last)):
        if day is not None and not EARLIEST_DAY <= day <= LATEST_DAY:
            raise InvalidInput(field, f"must be from {EARLIEST_DAY} to {LATEST_DAY}")
    last = last or (today if first is None else max(first, today))
    first = first or last - timedelta(days=DEFAULT_DAYS - 1)
    if last < first:
        raise InvalidInput("to", f"must not be before from, {first}")
    return first, last


def span_of(first: date, last: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """From the first instant of the first day to the first after the last, in ``zone``."""
    return boundary_instant(first, zone), boundary_instant(last + timedelta(days=1), zone)
