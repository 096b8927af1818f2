"""Automatic top-ups: when a client's card fills its credit again by itself, and how that goes."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from api.fields import FORBID_UNKNOWN, CurrencyCode, PositiveAmount
from billing.top_ups import PAUSE_AFTER_DECLINE
from models import AutoTopUpSetting


class AutoTopUpSettings(TypedDict):
    """Below `threshold` the card is charged up to `target`, in `currency`'s minor unit.

    Another setting forgets what was declined under the last one.
    """

    __pydantic_config__ = FORBID_UNKNOWN  # type: ignore[misc]  # pydantic's way to set it here.

    threshold: PositiveAmount
    target: PositiveAmount
    currency: CurrencyCode


class AutoTopUpReport(BaseModel):
    """A client's setting. `declines` are those since the last top-up that was paid.

    Until `paused_until` none is made; once they are `off`, none before the setting or the card is
    set anew.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "threshold": 5000,
                    "target": 20000,
                    "currency": "usd",
                    "declines": 1,
                    "paused_until": "2026-06-01T13:00:01Z",
                    "off": False,
                }
            ]
        }
    )

    threshold: int
    target: int
    currency: str
    declines: int
    paused_until: datetime | None
    off: bool

    @classmethod
    def of(cls, kept: AutoTopUpSetting) -> "AutoTopUpReport":
        """The setting as it is shown."""
        paused_at = None if kept.is_off else kept.declined_at
        return cls(
            threshold=kept.threshold,
            target=kept.target,
            currency=kept.currency,
            declines=kept.declines,
            paused_until=None if paused_at is None else paused_at + PAUSE_AFTER_DECLINE,
            off=kept.is_off,
        )


def top_ups_of(session: Session, client_ids: Sequence[UUID]) -> dict[UUID, AutoTopUpSetting]:
    """The settings of those clients that have one, by client."""
    kept = session.scalars(
        select(AutoTopUpSetting).where(AutoTopUpSetting.client_id.in_(client_ids))
    )
    return {one.client_id: one for one in kept}
