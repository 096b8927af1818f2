"""The sandbox's one SQLite file: what it must still know after a ``kill -9``."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateways.sandbox.stripe.errors import JsonObject

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    sequence       INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT NOT NULL UNIQUE,
    account        TEXT NOT NULL,
    kind           TEXT NOT NULL,
    made_at        REAL NOT NULL,
    customer       TEXT AS (json_extract(body, '$.customer')) VIRTUAL,
    payment_intent TEXT AS (json_extract(body, '$.payment_intent')) VIRTUAL,
    charge         TEXT AS (json_extract(body, '$.charge')) VIRTUAL,
    type           TEXT AS (json_extract(body, '$.type')) VIRTUAL,
    email          TEXT AS (json_extract(body, '$.email')) VIRTUAL,
    created        INTEGER AS (json_extract(body, '$.created')) VIRTUAL,
    body           TEXT NOT NULL,
    hidden         TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS objects_in_order ON objects (account, kind, sequence);
CREATE INDEX IF NOT EXISTS objects_of_customer ON objects (account, kind, customer);
CREATE INDEX IF NOT EXISTS objects_of_intent ON objects (account, kind, payment_intent);

CREATE TABLE IF NOT EXISTS idempotency_keys (
    account    TEXT NOT NULL,
    key        TEXT NOT NULL,
    digest     TEXT NOT NULL,
    request_id TEXT NOT NULL,
    status     INTEGER NOT NULL,
    headers    TEXT NOT NULL,
    body       TEXT NOT NULL,
    saved_at   REAL NOT NULL,
    PRIMARY KEY (account, key)
) STRICT;

CREATE TABLE IF NOT EXISTS requests (
    sequence        INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id      TEXT NOT NULL,
    at              REAL NOT NULL,
    method          TEXT NOT NULL,
    path            TEXT NOT NULL,
    parameters      TEXT NOT NULL,
    idempotency_key TEXT,
    account         TEXT NOT NULL,
    status          INTEGER,
    object_id       TEXT,
    fault           TEXT,
    replayed        INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE IF NOT EXISTS deliveries (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    event       TEXT NOT NULL,
    due_at      REAL NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    state       TEXT NOT NULL DEFAULT 'pending',
    last_status INTEGER,
    last_error  TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (state, due_at);

CREATE TABLE IF NOT EXISTS settlements (
    object_id TEXT PRIMARY KEY,
    due_at    REAL NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS faults (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    left_over INTEGER,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""

FILTERS = frozenset({"customer", "payment_intent", "charge", "type", "email"})
_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


@dataclass(frozen=True, slots=True)
class SavedAnswer:
    """What a request was answered, kept under its idempotency key."""

    digest: str
    request_id: str
    status: int
    headers: dict[str, str]
    body: JsonObject


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it is shown, whose it is, and what Stripe knows of it and does not show."""

    account: str
    body: JsonObject
    hidden: JsonObject


class Store:
    """Used from one thread, that of the server's loop."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        # A crash of the process loses nothing that was committed; one of the machine may lose
        # the newest, which a sandbox can bear.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Give the file free."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """All or nothing, within a transaction."""
        self._connection.execute("SAVEPOINT step")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK TO step")
            self._connection.execute("RELEASE step")
            raise
        self._connection.execute("RELEASE step")

    # Objects

    def put(self, account: str, body: JsonObject, hidden: JsonObject, at: float) -> None:
        """Write an object, new or changed. It keeps its place in the order."""
        self._connection.execute(
            "INSERT INTO objects (id, account, kind, made_at, body, hidden)"
            " VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET body = excluded.body, hidden = excluded.hidden",
            (body["id"], account, body["object"], at, json.dumps(body), json.dumps(hidden)),
        )

    def find(self, object_id: str) -> Stored | None:
        """An object of any account."""
        row = self._connection.execute(
            "SELECT account, body, hidden FROM objects WHERE id = ?", (object_id,)
        ).fetchone()
        return _stored(row) if row else None

    def sequence(self, object_id: str) -> int | None:
        """An object's place in the order of making."""
        row = self._connection.execute(
            "SELECT sequence FROM objects WHERE id = ?", (object_id,)
        ).fetchone()
        return int(row["sequence"]) if row else None

    def select(
        self,
        kind: str,
        *,
        account: str | None = None,
        filters: Mapping[str, str] | None = None,
        types: Sequence[str] = (),
        created: Mapping[str, int] | None = None,
        before: int | None = None,
        after: int | None = None,
        made_until: float | None = None,
        limit: int = -1,
        oldest_first: bool = False,
    ) -> list[Stored]:
        """Objects of a kind, newest first unless told otherwise; no customers that were deleted.

        Args:
            kind: Stripe's ``object``.
            account: Whose; everyone's when ``None``.
            filters: Values of the columns named in ``FILTERS``.
            types: Values of ``type``, any of which will do.
            created: Bounds of ``created``, by Stripe's names.
            before: Only those made before that place in the order.
            after: Only those made after it.
            made_until: Only those made until then, in seconds.
            limit: At most so many; all when negative.
            oldest_first: The other order.
        """
        clauses, values = ["kind = ?"], list[object]([kind])
        if account is not None:
            clauses.append("account = ?")
            values.append(account)
        for column, value in (filters or {}).items():
            if column not in FILTERS:
                raise ValueError(column)
            clauses.append(f"{column} = ?")
            values.append(value)
        if types:
            clauses.append(f"type IN ({', '.join('?' * len(types))})")
            values.extend(types)
        if kind == "customer":
            clauses.append("json_extract(body, '$.deleted') IS NULL")
        for bound, at in (created or {}).items():
            clauses.append(f"created {_COMPARISONS[bound]} ?")
            values.append(at)
        for comparison, limiting in (
            ("sequence < ?", before),
            ("sequence > ?", after),
            ("made_at <= ?", made_until),
        ):
            if limiting is not None:
                clauses.append(comparison)
                values.append(limiting)
        rows = self._connection.execute(
            "SELECT account, body, hidden FROM objects"  # noqa: S608 - the clauses are ours, above.
            f" WHERE {' AND '.join(clauses)}"
            f" ORDER BY sequence {'ASC' if oldest_first else 'DESC'} LIMIT ?",
            (*values, limit),
        )
        return [_stored(row) for row in rows]

    # Idempotency keys

    def saved_answer(self, account: str, key: str, since: float) -> SavedAnswer | None:
        """What is kept under a key, if it was saved after ``since``."""
        row = self._connection.execute(
            "SELECT * FROM idempotency_keys WHERE account = ? AND key = ? AND saved_at > ?",
            (account, key, since),
        ).fetchone()
        if row is None:
            return None
        return SavedAnswer(
            digest=row["digest"],
            request_id=row["request_id"],
            status=row["status"],
            headers=json.loads(row["headers"]),
            body=json.loads(row["body"]),
        )

    def save_answer(self, account: str, key: str, answer: SavedAnswer, at: float) -> None:
        """Keep an answer under a key, over an expired one."""
        self._connection.execute(
            "INSERT OR REPLACE INTO idempotency_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                account,
                key,
                answer.digest,
                answer.request_id,
                answer.status,
                json.dumps(answer.headers),
                json.dumps(answer.body),
                at,
            ),
        )

    def forget_keys(self, saved_until: float) -> int:
        """Let keys expire; returns how many."""
        return self._connection.execute(
            "DELETE FROM idempotency_keys WHERE saved_at <= ?", (saved_until,)
        ).rowcount

    # The request log

    def log(self, entry: Mapping[str, object]) -> int:
        """Keep that a request came; returns its number."""
        row = self._connection.execute(
            "INSERT INTO requests (request_id, at, method, path, parameters, idempotency_key,"
            " account) VALUES (:request_id, :at, :method, :path, :parameters, :idempotency_key,"
            " :account) RETURNING sequence",
            {**entry, "parameters": json.dumps(entry["parameters"])},
        ).fetchone()
        return int(row["sequence"])

    def log_answer(
        self,
        number: int,
        *,
        status: int | None,
        object_id: str | None,
        fault: str | None,
        is_replayed: bool,
    ) -> None:
        """Keep what became of it; ``status`` is ``None`` when the caller got no answer."""
        self._connection.execute(
            "UPDATE requests SET status = ?, object_id = ?, fault = ?, replayed = ?"
            " WHERE sequence = ?",
            (status, object_id, fault, is_replayed, number),
        )

    def requests(self) -> list[JsonObject]:
        """The whole log, oldest first."""
        return [
            {
                **dict(row),
                "parameters": json.loads(row["parameters"]),
                "replayed": bool(row["replayed"]),
            }
            for row in self._connection.execute("SELECT * FROM requests ORDER BY sequence")
        ]

    # Deliveries of events

    def add_deliveries(self, event: str, due_at: float, copies: int) -> None:
        """Have an event delivered, so many times."""
        self._connection.executemany(
            "INSERT INTO deliveries (event, due_at) VALUES (?, ?)", [(event, due_at)] * copies
        )

    def due_deliveries(self, now: float) -> list[JsonObject]:
        """What is to be delivered, oldest first."""
        return _rows(
            self._connection.execute(
                "SELECT * FROM deliveries WHERE state = 'pending' AND due_at <= ? ORDER BY id",
                (now,),
            )
        )

    def delivered(self, delivery: int, status: int) -> None:
        """The receiver took it."""
        self._connection.execute(
            "UPDATE deliveries SET state = 'delivered', attempts = attempts + 1,"
            " last_status = ?, last_error = NULL WHERE id = ?",
            (status, delivery),
        )

    def not_delivered(
        self, delivery: int, *, status: int | None, error: str | None, again_at: float | None
    ) -> None:
        """The receiver did not take it; it is tried again, unless ``again_at`` is ``None``."""
        self._connection.execute(
            "UPDATE deliveries SET state = CASE WHEN :again_at IS NULL THEN 'failed'"
            " ELSE 'pending' END, due_at = coalesce(:again_at, due_at),"
            " attempts = attempts + 1, last_status = :status, last_error = :error WHERE id = :id",
            {"id": delivery, "status": status, "error": error, "again_at": again_at},
        )

    def deliveries(self) -> list[JsonObject]:
        """All of them, oldest first."""
        return _rows(self._connection.execute("SELECT * FROM deliveries ORDER BY id"))

    # What settles later

    def settle_at(self, object_id: str, due_at: float) -> None:
        """Have a bank debit, a refund or a checkout session come to its end."""
        self._connection.execute(
            "INSERT OR REPLACE INTO settlements VALUES (?, ?)", (object_id, due_at)
        )

    def due_settlements(self, now: float) -> list[str]:
        """Whose end has come."""
        rows = self._connection.execute(
            "SELECT object_id FROM settlements WHERE due_at <= ? ORDER BY due_at", (now,)
        )
        return [row["object_id"] for row in rows]

    def forget_settlement(self, object_id: str) -> None:
        """It came to its end."""
        self._connection.execute("DELETE FROM settlements WHERE object_id = ?", (object_id,))

    # Faults and settings

    def add_fault(self, body: JsonObject, times: int | None) -> int:
        """Keep a fault; returns its number."""
        row = self._connection.execute(
            "INSERT INTO faults (left_over, body) VALUES (?, ?) RETURNING id",
            (times, json.dumps(body)),
        ).fetchone()
        return int(row["id"])

    def faults(self) -> list[tuple[int, JsonObject]]:
        """Those that can still strike, oldest first."""
        return [
            (row["id"], {**json.loads(row["body"]), "times": row["left_over"]})
            for row in self._connection.execute(
                "SELECT * FROM faults WHERE left_over IS NULL OR left_over > 0 ORDER BY id"
            )
        ]

    def use_fault(self, number: int) -> None:
        """It strikes once."""
        self._connection.execute(
            "UPDATE faults SET left_over = left_over - 1 WHERE id = ?", (number,)
        )

    def clear_faults(self) -> None:
        """None strikes any more."""
        self._connection.execute("DELETE FROM faults")

    def settings(self) -> JsonObject:
        """What was set, by name."""
        rows = self._connection.execute("SELECT name, value FROM settings")
        return {row["name"]: json.loads(row["value"]) for row in rows}

    def set(self, values: Mapping[str, object]) -> None:
        """Set some by name."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO settings VALUES (?, ?)",
            [(name, json.dumps(value)) for name, value in values.items()],
        )


def _stored(row: sqlite3.Row) -> Stored:
    return Stored(row["account"], json.loads(row["body"]), json.loads(row["hidden"]))


def _rows(rows: Iterable[sqlite3.Row]) -> list[JsonObject]:
    return [dict(row) for row in rows]
