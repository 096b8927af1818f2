"""The server's memory: one SQLite file, in which whatever was answered has been committed."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gateways.sandbox.sendgrid.faults import Fault, FaultKind
from gateways.sandbox.sendgrid.letters import Letter, letters_of

_TABLES = """
CREATE TABLE IF NOT EXISTS sends (
    message_id TEXT PRIMARY KEY,
    accepted_at REAL NOT NULL,
    payload TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS mails (
    number INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL REFERENCES sends,
    position INTEGER NOT NULL,
    recipients TEXT NOT NULL,
    subject TEXT NOT NULL,
    custom_args TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS requests (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    connection TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    fault TEXT,
    status INTEGER,
    message_id TEXT,
    problems TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE TABLE IF NOT EXISTS faults (
    number INTEGER PRIMARY KEY,
    fault TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS webhook (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    webhook TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS deliveries (
    number INTEGER PRIMARY KEY,
    created_at REAL NOT NULL,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    status INTEGER,
    error TEXT,
    next_at REAL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class KeptMail:
    """One letter of an accepted request."""

    number: int
    message_id: str
    position: int
    accepted_at: float
    recipients: Sequence[str]
    subject: str
    custom_args: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request to send.

    Attributes:
        at: Seconds since 1970.
        connection: The same for requests that came over the same connection.
        status: What was answered; ``None`` when nothing was.
        message_id: Set when it was accepted, answered or not.
        problems: What was found wrong with it: ``message``, ``field`` and ``help`` each.
    """

    number: int
    at: float
    connection: str
    bytes: int
    fault: str | None
    status: int | None
    message_id: str | None
    problems: Sequence[Mapping[str, str | None]]


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where events go.

    Attributes:
        url: Posted to.
        automatic: The kinds of event that follow each accepted mail by themselves, in order.
        retry_seconds: How long after an attempt that failed the next one follows.
    """

    url: str
    automatic: Sequence[str] = ()
    retry_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One batch of events on its way.

    Attributes:
        events: As they are posted.
        status: What the receiver last answered; ``None`` when it did not.
        error: Why it did not.
        next_at: When it is tried again, in seconds since 1970; ``None``: not by itself.
    """

    number: int
    created_at: float
    events: Sequence[Mapping[str, Any]]
    attempts: int
    status: int | None
    error: str | None
    next_at: float | None

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300


class Store:
    """Used by one thread. Every method has committed when it returns."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA journal_mode = WAL")
        # Without a sync per commit a power cut may lose the last mails; a kill -9 does not.
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def accept(
        self,
        payload: Mapping[str, Any],
        letters: Sequence[Letter],
        *,
        request: int,
        message_id: str,
        at: float,
        deliveries: Sequence[str],
    ) -> list[int]:
        """Keep a valid request and the batches of events it sets off; the number of each letter."""
        with self._transaction():
            self._database.execute(
                "INSERT INTO sends VALUES (?, ?, ?)", (message_id, at, json.dumps(payload))
            )
            numbers = [
                self._insert(
                    "INSERT INTO mails (message_id, position, recipients, subject, custom_args)"
                    " VALUES (?, ?, ?, ?, ?)",
                    message_id,
                    position,
                    json.dumps(letter.recipients),
                    letter.subject,
                    json.dumps(letter.custom_args),
                )
                for position, letter in enumerate(letters)
            ]
            for body in deliveries:
                self.add_delivery(body, at=at, next_at=at)
            self._database.execute(
                "UPDATE requests SET message_id = ? WHERE number = ?", (message_id, request)
            )
        return numbers

    def mails(
        self, *, message_id: str | None = None, custom_args: Mapping[str, str] | None = None
    ) -> list[KeptMail]:
        """The kept mails, oldest first, with this id and with all of these custom arguments."""
        rows = self._database.execute(
            "SELECT mails.*, accepted_at FROM mails JOIN sends USING (message_id)"
            " WHERE message_id = coalesce(?, message_id) AND NOT EXISTS ("
            "  SELECT 1 FROM json_each(?) AS wanted WHERE NOT EXISTS ("
            "   SELECT 1 FROM json_each(mails.custom_args) AS given"
            "   WHERE given.key = wanted.key AND given.value = wanted.value))"
            " ORDER BY number",
            (message_id, json.dumps(custom_args or {})),
        )
        return [
            KeptMail(
                number=row["number"],
                message_id=row["message_id"],
                position=row["position"],
                accepted_at=row["accepted_at"],
                recipients=json.loads(row["recipients"]),
                subject=row["subject"],
                custom_args=json.loads(row["custom_args"]),
            )
            for row in rows
        ]

    def letter(self, mail: KeptMail) -> Letter:
        """The letter of a kept mail, whole."""
        (payload,) = self._database.execute(
            "SELECT payload FROM sends WHERE message_id = ?", (mail.message_id,)
        ).fetchone()
        return list(letters_of(json.loads(payload)))[mail.position]

    def begin_request(self, *, at: float, connection: str, size: int) -> int:
        """Log a request that has come, and return its number."""
        return self._insert(
            "INSERT INTO requests (at, connection, bytes) VALUES (?, ?, ?)", at, connection, size
        )

    def end_request(
        self,
        number: int,
        *,
        status: int | None,
        fault: Fault | None,
        problems: Sequence[Mapping[str, str | None]] = (),
    ) -> None:
        """Log what became of a request; a ``status`` of ``None`` where nothing is answered."""
        self._database.execute(
            "UPDATE requests SET status = ?, fault = ?, problems = ? WHERE number = ?",
            (status, fault and fault.kind, json.dumps(list(problems)), number),
        )

    def requests(self) -> list[LoggedRequest]:
        """The log of requests, oldest first."""
        rows = self._database.execute("SELECT * FROM requests ORDER BY number")
        return [LoggedRequest(**{**row, "problems": json.loads(row["problems"])}) for row in rows]

    def add_fault(self, fault: Fault) -> None:
        """Put a fault at the end of the line."""
        self._database.execute("INSERT INTO faults (fault) VALUES (?)", (_fault_text(fault),))

    def take_fault(self) -> Fault | None:
        """The fault that the send at hand meets, once less in line."""
        with self._transaction():
            row = self._database.execute("SELECT * FROM faults ORDER BY number LIMIT 1").fetchone()
            if row is None:
                return None
            fault = _fault(row["fault"])
            if fault.times > 1:
                rest = replace(fault, times=fault.times - 1)
                self._database.execute(
                    "UPDATE faults SET fault = ? WHERE number = ?",
                    (_fault_text(rest), row["number"]),
                )
            else:
                self._database.execute("DELETE FROM faults WHERE number = ?", (row["number"],))
        return fault

    def faults(self) -> list[Fault]:
        """The faults still in line."""
        rows = self._database.execute("SELECT fault FROM faults ORDER BY number")
        return [_fault(row["fault"]) for row in rows]

    def clear_faults(self) -> None:
        """Let all sends go well."""
        self._database.execute("DELETE FROM faults")

    @property
    def webhook(self) -> Webhook | None:
        """Where events go, when that was said."""
        row = self._database.execute("SELECT webhook FROM webhook").fetchone()
        return None if row is None else Webhook(**json.loads(row["webhook"]))

    @webhook.setter
    def webhook(self, webhook: Webhook) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO webhook VALUES (1, ?)", (json.dumps(asdict(webhook)),)
        )

    def add_delivery(self, body: str, *, at: float, next_at: float | None) -> int:
        """Keep a batch of events to post, and return its number."""
        return self._insert(
            "INSERT INTO deliveries (created_at, body, next_at) VALUES (?, ?, ?)",
            at,
            body,
            next_at,
        )

    def delivery_body(self, number: int) -> str:
        """What is posted, to the byte.

        Raises:
            KeyError: There is no such delivery.
        """
        row = self._database.execute(
            "SELECT body FROM deliveries WHERE number = ?", (number,)
        ).fetchone()
        if row is None:
            raise KeyError(number)
        return str(row["body"])

    def note_attempt(
        self, number: int, *, status: int | None, error: str | None, next_at: float | None
    ) -> None:
        """Record how an attempt to post a batch ended."""
        self._database.execute(
            "UPDATE deliveries SET attempts = attempts + 1, status = ?, error = ?, next_at = ?"
            " WHERE number = ?",
            (status, error, next_at, number),
        )

    def deliveries(self) -> list[Delivery]:
        """All batches, oldest first."""
        rows = self._database.execute("SELECT * FROM deliveries ORDER BY number")
        return [
            Delivery(
                number=row["number"],
                created_at=row["created_at"],
                events=json.loads(row["body"]),
                attempts=row["attempts"],
                status=row["status"],
                error=row["error"],
                next_at=row["next_at"],
            )
            for row in rows
        ]

    def due_deliveries(self, now: float) -> list[tuple[int, float]]:
        """Number and time of making of each batch that is to be posted now, oldest first."""
        rows = self._database.execute(
            "SELECT number, created_at FROM deliveries WHERE next_at <= ? ORDER BY number", (now,)
        )
        return [(row["number"], row["created_at"]) for row in rows]

    def _insert(self, statement: str, *values: float | str | None) -> int:
        """Insert a row and return its number."""
        return int(self._database.execute(statement, values).lastrowid or 0)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _fault_text(fault: Fault) -> str:
    return json.dumps(asdict(fault))


def _fault(text: str) -> Fault:
    fields = json.loads(text)
    return Fault(**{**fields, "kind": FaultKind(fields["kind"])})
