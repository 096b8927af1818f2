"""Files of charges: CSV rows read one by one, each either a charge or a line that says why not."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import BinaryIO
from uuid import UUID

from billing.errors import DuecourseError, InvalidInput
from billing.instants import iso_date
from billing.money import decimal_from
from billing.texts import MAX_SHORT, require_text
from tasks.charges import NewCharge, Refused, check_charge

COLUMNS = (
    "client",
    "charged_on",
    "description",
    "quantity",
    "unit_price",
    "currency",
    "external_ref",
)

_NOBODY = UUID(int=0)


class UnreadableFile(DuecourseError):  # noqa: N818 - named as the fact it states
    """The file as a whole is not one of charges; no row of it can be trusted."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be a charge: the line it starts on (the header is line 1), and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class ChargeRow:
    """A row whose every value is right by itself. ``client`` is the client's external_ref."""

    line: int
    client: str
    charged_on: date
    description: str
    quantity: Decimal
    unit_price: Decimal
    currency: str
    external_ref: str

    @property
    def content(self) -> tuple[object, ...]:
        """Everything but the line: what two rows of one external_ref must share."""
        return (
            self.client,
            self.charged_on,
            self.description,
            self.quantity,
            self.unit_price,
            self.currency.lower(),
        )

    def charge(self, client_id: UUID) -> NewCharge:
        """The charge to record, for the client found by its reference."""
        return NewCharge(
            client_id=client_id,
            description=self.description,
            currency=self.currency,
            charged_on=self.charged_on,
            quantity=self.quantity,
            unit_price=self.unit_price,
            external_ref=self.external_ref,
        )


def read_rows(file: BinaryIO) -> Iterator[ChargeRow | BadRow]:
    """Every row of a CSV file of charges, in its order; blank lines are passed over.

    The first line names the columns, in any order. Values are taken without the spaces around.

    Raises:
        UnreadableFile: A line is not UTF-8, or the columns are not the seven of ``COLUMNS``.
    """
    file.seek(0)
    reader = csv.reader(_lines(file), strict=True)
    columns = _columns(reader)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(line, f"not CSV: {error}")
            continue
        if fields:
            yield _row(line, columns, fields)


def _lines(file: BinaryIO) -> Iterator[str]:
    for number, raw in enumerate(file, start=1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UnreadableFile(
                f"line {number} is not UTF-8 text (byte {raw[error.start]:#04x} "
                f"at position {error.start + 1} of the line): save the file as UTF-8"
            ) from error


def _columns(reader: "Iterator[list[str]]") -> list[str]:
    try:
        columns = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise UnreadableFile(f"line 1 is not CSV: {error}") from error
    if not columns:
        raise UnreadableFile(f"line 1 must name the columns: {','.join(COLUMNS)}")
    problems = [
        f"{what} {', '.join(names)}"
        for what, names in (
            ("missing", [name for name in COLUMNS if name not in columns]),
            ("unknown", [name or "(empty)" for name in columns if name not in COLUMNS]),
            ("twice", sorted({name for name in columns if columns.count(name) > 1} & {*COLUMNS})),
        )
        if names
    ]
    if problems:
        raise UnreadableFile(f"line 1, columns: {'; '.join(problems)}")
    return columns


def _row(line: int, columns: Sequence[str], fields: Sequence[str]) -> ChargeRow | BadRow:
    if len(fields) != len(columns):
        return BadRow(line, f"has {len(fields)} fields, the header names {len(columns)}")
    values = {name: field.strip() for name, field in zip(columns, fields, strict=True)}
    try:
        row = ChargeRow(
            line,
            client=require_text("client", values["client"], MAX_SHORT),
            charged_on=iso_date(values["charged_on"], "charged_on"),
            description=values["description"],
            quantity=decimal_from(values["quantity"], "quantity"),
            unit_price=decimal_from(values["unit_price"], "unit_price"),
            currency=values["currency"],
            external_ref=require_text("external_ref", values["external_ref"], MAX_SHORT),
        )
    except InvalidInput as error:
        return BadRow(line, str(error))
    checked = check_charge(row.charge(_NOBODY))
    return BadRow(line, str(checked.error)) if isinstance(checked, Refused) else row
