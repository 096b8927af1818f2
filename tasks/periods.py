"""Writing billing periods down, for any number of clients at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.periods import PlannedPeriod


@dataclass(frozen=True, slots=True)
class ClientPeriod:
    """A planned period and whose it is."""

    account_id: UUID
    client_id: UUID
    planned: PlannedPeriod


# A period that is there already was written by an earlier plan of the same chain.
_WRITE = text("""
INSERT INTO billing_periods (account_id, client_id, period_start, period_end, starts_at, ends_at,
                             reason)
SELECT * FROM unnest(:accounts ::uuid[], :clients ::uuid[], :starts ::date[], :ends ::date[],
                     :starts_at ::timestamptz[], :ends_at ::timestamptz[], :reasons ::text[])
    ON CONFLICT DO NOTHING
""")


def write_periods(session: Session, periods: Iterable[ClientPeriod]) -> None:
    """Write down what is not there yet, in one statement."""
    rows = list(periods)
    session.execute(
        _WRITE,
        {
            "accounts": [row.account_id for row in rows],
            "clients": [row.client_id for row in rows],
            "starts": [row.planned.period.start for row in rows],
            "ends": [row.planned.period.end for row in rows],
            "starts_at": [row.planned.starts_at for row in rows],
            "ends_at": [row.planned.ends_at for row in rows],
            "reasons": [row.planned.reason and row.planned.reason.value for row in rows],
        },
    )
