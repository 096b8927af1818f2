"""Importing a file of charges: one transaction, every bad row named, safe to run again."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import islice
from typing import Any, BinaryIO
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from billing.cycles import BillingCycle
from billing.errors import InvalidInput
from cli.charge_files import BadRow, ChargeRow, read_rows
from models import Account, Charge, Client
from models.database import database_now
from tasks.charges import Recorded, Refused, created_among, record_charges
from tasks.clients import LATEST_START_AHEAD, NewClient, create_clients
from tasks.joining import join_drafts

CHUNK = 1_000
"""Rows recorded by one statement."""

OnProgress = Callable[[str, int, int], None]
"""Hears of a stage's name, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What clients are given that the file names and the account does not know.

    ``auto_collect`` says whether their cards are charged by themselves; ``None`` leaves it to the
    account. ``skip_bad`` keeps the good rows of a file that has bad ones; otherwise none is kept.
    """

    billing_cycle: BillingCycle = BillingCycle.MANUAL
    time_zone: str | None = None
    auto_collect: bool | None = None
    skip_bad: bool = False


@dataclass(slots=True)
class ImportReport:
    """What became of a file: rows that are now charges, were there already, or are bad.

    ``kept`` is false when bad rows made everything be left out.
    """

    rows: int = 0
    created: int = 0
    already_there: int = 0
    clients_created: int = 0
    kept: bool = True
    seconds: float = 0.0
    bad: list[BadRow] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "rows": self.rows,
            "created": self.created,
            "already_there": self.already_there,
            "clients_created": self.clients_created,
            "kept": self.kept,
            "bad": [{"line": one.line, "reason": one.reason} for one in self.bad],
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self.rows / self.seconds) if self.seconds else None,
        }


def import_charges(
    session: Session,
    account: Account,
    file: BinaryIO,
    options: ImportOptions,
    on_progress: OnProgress,
) -> ImportReport:
    """Record a file's charges in the caller's transaction; to be rolled back unless ``kept``.

    The file is read twice: clients are created with the month of their first charge, which may
    stand anywhere in it.

    Raises:
        InvalidInput: The time zone is unknown.
        UnreadableFile: The file is not one of charges.
    """
    began = time.monotonic()
    if not file.seekable():
        file = io.BytesIO(file.read())
    # Two imports at once would both create a client that neither finds.
    session.refresh(account, with_for_update={"key_share": True})
    now = database_now(session)
    report = ImportReport()
    survey = _Survey(session, account.id, options, now)
    survey.read(file, report, on_progress)
    clients = survey.known | _create(session, account, survey, options, now)
    report.clients_created = len(survey.first_charges)
    _record(session, account.id, file, clients=clients, report=report, on_progress=on_progress)
    report.bad.sort(key=lambda one: one.line)
    if report.bad and not options.skip_bad:
        report.kept = False
        report.created = report.already_there = report.clients_created = 0
    report.seconds = time.monotonic() - began
    return report


class _Survey:
    """The first reading: which rows are bad, who is new, and when each new one's work began."""

    def __init__(
        self, session: Session, account_id: UUID, options: ImportOptions, now: datetime
    ) -> None:
        self.known: dict[str, UUID] = {}
        self.first_charges: dict[str, date] = {}
        self._session = session
        self._account_id = account_id
        self._on_cycle = options.billing_cycle != BillingCycle.MANUAL
        self._latest_start = (now + LATEST_START_AHEAD).date()
        # By external_ref: the line, and what its content hashes to.
        self._seen: dict[str, tuple[int, int]] = {}

    def read(self, file: BinaryIO, report: ImportReport, on_progress: OnProgress) -> None:
        size = file.seek(0, io.SEEK_END)
        for chunk in _chunks(read_rows(file)):
            report.rows += len(chunk)
            report.bad += [row for row in chunk if isinstance(row, BadRow)]
            rows = [row for row in chunk if isinstance(row, ChargeRow)]
            self._know({row.client for row in rows})
            owners = self._owners_of_refs(rows)
            for row in rows:
                reason = self._against(row, owners)
                if reason is not None:
                    report.bad.append(BadRow(row.line, reason))
                elif row.client not in self.known:
                    first = self.first_charges.get(row.client, row.charged_on)
                    self.first_charges[row.client] = min(first, row.charged_on)
            on_progress("reading", min(file.tell(), size), size)
        on_progress("reading", size, size)

    def _against(self, row: ChargeRow, owners: dict[str, UUID]) -> str | None:
        """What speaks against a row that is right by itself."""
        client_id = self.known.get(row.client)
        if row.external_ref in owners:
            if owners[row.external_ref] != client_id:
                return f"external_ref: {row.external_ref} belongs to another client's charge"
            # The charge that is there decides, when this row is recorded; no row of the file does.
            return None
        if client_id is None and (
            self._on_cycle and row.charged_on.replace(day=1) > self._latest_start
        ):
            return "charged_on: a new client's billing cannot start more than a year from now"
        content = hash(row.content)
        line, other = self._seen.setdefault(row.external_ref, (row.line, content))
        if other != content:
            return f"external_ref: {row.external_ref} is on line {line} with other content"
        return None

    def _know(self, refs: set[str]) -> None:
        """Look up clients not asked for before."""
        asked = refs - self.known.keys() - self.first_charges.keys()
        found = self._session.execute(
            select(Client.external_ref, Client.id).where(
                Client.account_id == self._account_id, Client.external_ref.in_(asked)
            )
        )
        self.known.update((ref, client_id) for ref, client_id in found if ref is not None)

    def _owners_of_refs(self, rows: Sequence[ChargeRow]) -> dict[str, UUID]:
        """Whose charges have the rows' references already, by reference."""
        found = self._session.execute(
            select(Charge.external_ref, Charge.client_id).where(
                Charge.account_id == self._account_id,
                Charge.external_ref.in_([row.external_ref for row in rows]),
            )
        )
        return {ref: client_id for ref, client_id in found if ref is not None}


def _create(
    session: Session, account: Account, survey: _Survey, options: ImportOptions, now: datetime
) -> dict[str, UUID]:
    """Create the clients that only the file knows; their ids by reference."""
    on_cycle = options.billing_cycle != BillingCycle.MANUAL
    created = create_clients(
        session,
        account,
        [
            NewClient(
                name=ref,
                external_ref=ref,
                time_zone=options.time_zone,
                auto_collect=options.auto_collect,
                billing_cycle=options.billing_cycle,
                billing_starts_on=first.replace(day=1) if on_cycle else None,
            )
            for ref, first in survey.first_charges.items()
        ],
        now=now,
    )
    return {client.name: client.id for client in created}


def _record(
    session: Session,
    account_id: UUID,
    file: BinaryIO,
    *,
    clients: dict[str, UUID],
    report: ImportReport,
    on_progress: OnProgress,
) -> None:
    """The second reading: record what the first one found nothing against."""
    bad_lines = {one.line for one in report.bad}
    created: list[UUID] = []
    done = 0
    for chunk in _chunks(read_rows(file)):
        rows = [row for row in chunk if isinstance(row, ChargeRow) and row.line not in bad_lines]
        answers = record_charges(
            session, account_id, [row.charge(clients[row.client]) for row in rows], join=False
        )
        created += created_among(answers)
        for row, answer in zip(rows, answers, strict=True):
            match answer:
                case Recorded(created=True):
                    report.created += 1
                case Recorded():
                    report.already_there += 1
                case Refused(error=error):
                    report.bad.append(BadRow(row.line, _reason(error)))
        done += len(chunk)
        on_progress("recording", done, report.rows)
    # Last, and all at once: drafts are locked in one order, and for no longer than it takes.
    join_drafts(session, created)


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidInput):
        return str(error)
    if getattr(error, "code", None) == "client_archived":
        return f"client: {error}"
    return f"external_ref: {error}"


def _chunks(
    rows: Iterator[ChargeRow | BadRow],
) -> Iterator[list[ChargeRow | BadRow]]:
    while chunk := list(islice(rows, CHUNK)):
        yield chunk
