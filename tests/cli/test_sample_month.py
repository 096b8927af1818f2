from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from cli.charge_files import ChargeRow, read_rows
from cli.sample_month import (
    CHICAGO,
    DISCOUNT,
    KINDS,
    LONDON,
    SampleMonth,
    Warehouse,
    last_full_month,
    sample_month,
    write_csv,
)

MONTH = date(2026, 2, 1)


@pytest.fixture(scope="module")
def month() -> SampleMonth:
    return sample_month(MONTH)


@pytest.fixture(scope="module")
def rows(
    month: SampleMonth, tmp_path_factory: pytest.TempPathFactory
) -> dict[Warehouse, list[ChargeRow]]:
    """The rows as the import reads them: none is bad."""
    read: dict[Warehouse, list[ChargeRow]] = {}
    for warehouse, written in month.rows.items():
        path = tmp_path_factory.mktemp("sample") / "charges.csv"
        write_csv(path, written)
        with path.open("rb") as file:
            read[warehouse] = [row for row in read_rows(file) if isinstance(row, ChargeRow)]
        assert len(read[warehouse]) == len(written)
    return read


@pytest.fixture(scope="module")
def all_rows(rows: dict[Warehouse, list[ChargeRow]]) -> list[ChargeRow]:
    return [row for one in rows.values() for row in one]


def test_it_has_five_thousand_charges_of_about_two_hundred_clients(
    month: SampleMonth, all_rows: list[ChargeRow]
) -> None:
    assert len(all_rows) == 5_000
    assert len({row.external_ref for row in all_rows}) == 5_000
    idle = {name for names in month.idle.values() for name in names}
    active = {row.client for row in all_rows}
    assert idle
    assert not idle & active
    assert len(idle | active) == 200


def test_it_is_the_same_for_the_same_month_and_seed() -> None:
    assert sample_month(MONTH) == sample_month(MONTH)
    assert sample_month(MONTH, seed=2) != sample_month(MONTH)
    assert sample_month(date(2026, 3, 1)) != sample_month(MONTH)


def test_prices_have_four_decimals_and_storage_has_fractions(
    month: SampleMonth, all_rows: list[ChargeRow]
) -> None:
    prices = {row[4] for written in month.rows.values() for row in written}
    assert all(len(price.partition(".")[2]) == 4 for price in prices)
    assert any(not price.endswith("00") for price in prices)
    storage = [row for row in all_rows if KINDS[row.description] == "storage"]
    assert any(row.quantity != int(row.quantity) for row in storage)


def test_it_has_two_zones_and_two_currencies_and_clients_with_both(
    month: SampleMonth, all_rows: list[ChargeRow]
) -> None:
    assert [one.time_zone for one in month.rows] == ["America/Chicago", "Europe/London"]
    assert {row.currency for row in all_rows} == {"usd", "gbp"}
    currencies = Counter(client for client, _ in {(row.client, row.currency) for row in all_rows})
    assert 2 <= sum(count == 2 for count in currencies.values()) <= 20


def test_a_warehouse_has_its_own_clients(rows: dict[Warehouse, list[ChargeRow]]) -> None:
    chicago = {row.client for row in rows[CHICAGO]}
    assert not chicago & {row.client for row in rows[LONDON]}


def test_a_few_clients_have_much_of_the_work(all_rows: list[ChargeRow]) -> None:
    counts = sorted(Counter(row.client for row in all_rows).values(), reverse=True)
    assert sum(counts[:20]) > 5_000 * 0.3
    assert counts[-1] >= 1


def test_every_kind_of_work_and_some_discounts_are_there(all_rows: list[ChargeRow]) -> None:
    assert {KINDS[row.description] for row in all_rows} == {"prep", "storage", "shipping", DISCOUNT}
    assert all((row.unit_price < 0) == (KINDS[row.description] == DISCOUNT) for row in all_rows)
    assert all(row.quantity >= Decimal(1) for row in all_rows)


def test_every_day_is_of_the_month(all_rows: list[ChargeRow]) -> None:
    assert {(row.charged_on.year, row.charged_on.month) for row in all_rows} == {(2026, 2)}


@pytest.mark.parametrize(
    ("now", "first_day"),
    [
        (datetime(2026, 11, 22, tzinfo=UTC), date(2026, 10, 1)),
        (datetime(2026, 1, 1, 12, tzinfo=UTC), date(2025, 12, 1)),
        # London is in March; Chicago has six hours of February left.
        (datetime(2026, 3, 1, 3, tzinfo=UTC), date(2026, 1, 1)),
        (datetime(2026, 3, 1, 7, tzinfo=UTC), date(2026, 2, 1)),
    ],
)
def test_the_month_is_over_at_both_warehouses(now: datetime, first_day: date) -> None:
    assert last_full_month(now) == first_day


def test_a_file_is_written_as_it_is_read(tmp_path: Path) -> None:
    write_csv(tmp_path / "one.csv", [["Oak & Ivy, Inc.", "2026-02-01", "x", "1", "1", "usd", "r"]])
    with (tmp_path / "one.csv").open("rb") as file:
        (row,) = read_rows(file)
    assert isinstance(row, ChargeRow)
    assert row.client == "Oak & Ivy, Inc."
