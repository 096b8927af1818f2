"""The sample month: what a prep centre with two warehouses records for its clients."""

import calendar
import csv
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import chain, product
from pathlib import Path
from zoneinfo import ZoneInfo

from billing.cycles import local_date
from cli.charge_files import COLUMNS

CHARGES = 5_000
CLIENTS = 200
IDLE_CLIENTS = 6
BOTH_CURRENCIES_EVERY = 24
LARGE_CLIENTS = 12
DISCOUNT_EVERY = 16
SKEW = 0.85
"""The larger, the more of the work belongs to the few largest clients."""


@dataclass(frozen=True, slots=True)
class Warehouse:
    """One site: its clients' zone and currency, and how its prices compare to the list."""

    name: str
    time_zone: str
    currency: str
    price_level: Decimal
    clients: int
    other_currency: str


CHICAGO = Warehouse("Chicago", "America/Chicago", "usd", Decimal(1), 128, "gbp")
LONDON = Warehouse("London", "Europe/London", "gbp", Decimal("0.82"), CLIENTS - 128, "usd")
WAREHOUSES = (CHICAGO, LONDON)


@dataclass(frozen=True, slots=True)
class Service:
    """A line of the price list: price in US dollars, and the usual quantity's range."""

    kind: str
    description: str
    price: str
    low: int
    high: int
    decimals: int = 0
    weight: int = 10
    at_month_end: bool = False


PREP, STORAGE, SHIPPING, DISCOUNT = "prep", "storage", "shipping", "discounts"

SERVICES = (
    Service(PREP, "FNSKU labelling", "0.2750", 20, 1_200, weight=30),
    Service(PREP, "Poly bagging", "0.3825", 10, 600, weight=22),
    Service(PREP, "Bubble wrapping", "0.4650", 10, 300, weight=12),
    Service(PREP, "Bundling, set of 2", "0.6175", 10, 250, weight=8),
    Service(PREP, "Bundling, set of 3 or more", "0.8450", 5, 120, weight=5),
    Service(PREP, "Inspection", "0.1525", 20, 900, weight=18),
    Service(PREP, "Removal of old labels", "0.1975", 20, 400, weight=6),
    Service(PREP, "Expiry date label", "0.0850", 20, 500, weight=5),
    Service(PREP, "Receiving, per carton", "1.9500", 1, 40, weight=14),
    Service(STORAGE, "Storage, per cubic foot", "0.6875", 12, 900, 3, 9, at_month_end=True),
    Service(STORAGE, "Storage, per pallet", "18.5000", 1, 14, 4, 6, at_month_end=True),
    Service(SHIPPING, "Carton forwarding to FBA", "1.6500", 1, 45, weight=20),
    Service(SHIPPING, "Shipping label fee", "0.3500", 1, 45, weight=14),
    Service(SHIPPING, "FBA freight, per lb", "0.4125", 15, 1_400, 2, 14),
    Service(SHIPPING, "Pallet build and wrap", "24.7500", 1, 4, weight=4),
    Service(SHIPPING, "Carton, 18 x 14 x 12 in", "2.3825", 1, 30, weight=8),
)
DISCOUNT_LINE = Service(
    DISCOUNT, "Volume discount, FNSKU labelling", "-0.0275", 500, 3_000, at_month_end=True
)
KINDS = {service.description: service.kind for service in (*SERVICES, DISCOUNT_LINE)}
"""What kind of work a description is."""

_FIRST = (
    "Alder", "Amber", "Atlas", "Birch", "Blue Heron", "Cedar", "Cobalt", "Copper", "Driftwood",
    "Ember", "Falcon", "Fern", "Golden Hare", "Granite", "Harbour", "Hazel", "Indigo", "Juniper",
    "Kestrel", "Lantern", "Larkspur", "Maple", "Meadow", "Northwind", "Oak & Ivy", "Otter",
    "Pebble", "Pinecone", "Quill", "Redwood", "River", "Saffron", "Summit", "Thistle", "Tidewater",
    "Wren",
)  # fmt: skip
_SECOND = (
    "Baby", "Books", "Candles", "Coffee", "Cycling", "Garden", "Home", "Kitchen", "Naturals",
    "Outdoor", "Paper", "Pet Supply", "Skincare", "Sports", "Tea", "Tools", "Toys", "Yoga",
)  # fmt: skip
_FORMS = {"usd": ("LLC", "Inc.", "Co."), "gbp": ("Ltd", "Ltd", "& Sons Ltd")}


@dataclass(frozen=True, slots=True)
class SampleMonth:
    """Rows of ``COLUMNS`` by warehouse, and clients who exist but had no work done."""

    first_day: date
    rows: dict[Warehouse, list[list[str]]]
    idle: dict[Warehouse, list[str]]


def last_full_month(now: datetime) -> date:
    """The first day of the last month that is over at every warehouse."""
    today = min(local_date(now, ZoneInfo(one.time_zone)) for one in WAREHOUSES)
    return (today.replace(day=1) - timedelta(days=1)).replace(day=1)


def sample_month(first_day: date, seed: int = 1) -> SampleMonth:
    """The month that begins on ``first_day``; the same for the same month and seed."""
    # Made-up data: nothing secret hangs on it, and it must come out the same again.
    rng = random.Random(f"{first_day} {seed}")  # noqa: S311
    names = [" ".join(both) for both in product(_FIRST, _SECOND)]
    rng.shuffle(names)
    rows: dict[Warehouse, list[list[str]]] = {}
    idle: dict[Warehouse, list[str]] = {}
    given = 0
    for warehouse in WAREHOUSES:
        forms = _FORMS[warehouse.currency]
        clients = [
            f"{names.pop()}, {form}" if form == "Inc." else f"{names.pop()} {form}"
            for form in rng.choices(forms, k=warehouse.clients)
        ]
        idle_here = IDLE_CLIENTS // len(WAREHOUSES)
        idle[warehouse], active = clients[:idle_here], clients[idle_here:]
        is_last = warehouse is WAREHOUSES[-1]
        count = CHARGES - given if is_last else CHARGES * warehouse.clients // CLIENTS
        given += count
        rows[warehouse] = list(_rows(rng, warehouse, active, first_day, count))
    return SampleMonth(first_day, rows, idle)


def write_csv(path: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write rows as ``duecourse import`` reads them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def _rows(
    rng: random.Random, warehouse: Warehouse, clients: Sequence[str], first_day: date, count: int
) -> Iterator[list[str]]:
    """``count`` rows by date, at least one for each client."""
    weights = [1 / (rank + 1) ** SKEW for rank in range(len(clients))]
    busy = rng.choices(range(len(clients)), weights, k=count - len(clients))
    charges = sorted(
        (_charge(rng, warehouse, client, first_day) for client in chain(range(len(clients)), busy)),
        key=lambda charge: charge[0],
    )
    for number, (day, client, description, quantity, price, currency) in enumerate(charges, 1):
        reference = f"{warehouse.name[:3].upper()}-{first_day:%Y%m}-{number:05}"
        yield [
            clients[client], day.isoformat(), description, quantity, price, currency, reference
        ]  # fmt: skip


def _charge(
    rng: random.Random, warehouse: Warehouse, client: int, first_day: date
) -> tuple[date, int, str, str, str, str]:
    """One charge; clients are numbered from the largest."""
    large = client < LARGE_CLIENTS
    service = (
        DISCOUNT_LINE
        if large and rng.randrange(DISCOUNT_EVERY) == 0
        else rng.choices(SERVICES, [one.weight for one in SERVICES])[0]
    )
    last = calendar.monthrange(first_day.year, first_day.month)[1]
    day = first_day.replace(day=last if service.at_month_end else rng.randint(1, last))
    # The largest clients also send the largest lots.
    lot = rng.triangular(0, 1, 0.08) * (1 if large else 0.5)
    size = Decimal(service.low + (service.high - service.low) * lot)
    quantity = size.quantize(Decimal(1).scaleb(-service.decimals))
    price = Decimal(service.price) * warehouse.price_level
    abroad = client % BOTH_CURRENCIES_EVERY == 5 and rng.random() < 0.3
    currency = warehouse.other_currency if abroad else warehouse.currency
    return day, client, service.description, str(quantity), f"{price:.4f}", currency
