"""Which days to look at, the first and the last of them included."""

from datetime import date

from pydantic import BaseModel, Field

from api.fields import IsoDate
from billing.errors import InvalidInput


class Days(BaseModel):
    """From a day to a day, both of them in it; without one of them, from or to any."""

    first: IsoDate | None = Field(
        default=None, alias="from", description="The first effective day; by default the earliest."
    )
    to: IsoDate | None = Field(
        default=None, description="The last effective day, which is in it; by default the latest."
    )


def require_in_order(first: date | None, last: date | None) -> None:
    """Check that the last day is not before the first.

    Raises:
        InvalidInput: It is.
    """
    if first is not None and last is not None and last < first:
        raise InvalidInput("to", f"must not be before from, {first}")
