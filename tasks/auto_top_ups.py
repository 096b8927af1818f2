"""Clients' settings of automatic top-ups: setting them, and looking at once where credit was spent."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from billing.errors import InvalidInput
from billing.top_ups import AutoTopUp, TopUpTries, auto_top_up
from models import AutoTopUpSetting, Client
from tasks.enqueueing import enqueue_for_each
from tasks.kinds import JobKind

_FIELDS = frozenset({"threshold", "target", "currency"})

_BELOW = text("""
SELECT settings.account_id, settings.client_id
  FROM auto_top_ups AS settings LEFT JOIN credit_balances USING (client_id, currency)
 WHERE settings.client_id = ANY(:clients) AND NOT is_off AND COALESCE(balance, 0) < threshold
""")


def checked_auto_top_up(value: object) -> AutoTopUp | None:
    """A setting as it was given, by its fields; ``None`` is none.

    Raises:
        InvalidInput: One of its fields is missing, unknown or wrong; it is named.
    """
    match value:
        case None | AutoTopUp():
            return value
        case Mapping():
            for name in sorted(_FIELDS ^ set(value)):
                what = "is required" if name in _FIELDS else "is not known here: remove it"
                raise InvalidInput(f"auto_top_up.{name}", what)
            return auto_top_up(**value)
        case _:
            raise InvalidInput("auto_top_up", "must be threshold, target and currency")


def set_auto_top_up(session: Session, client: Client, wanted: AutoTopUp | None) -> None:
    """Have a client's credit topped up like this from now on, or no more. Hold the client's lock.

    Another setting begins anew. The same again changes nothing, but where declines had switched
    it off: it is on again. Call ``wake_top_ups`` for what it may ask for at once.
    """
    kept = session.get(AutoTopUpSetting, client.id)
    if wanted is None:
        if kept is not None:
            session.delete(kept)
    elif kept is None:
        session.add(AutoTopUpSetting.of(client, wanted))
    elif kept.setting != wanted or kept.is_off:
        kept.setting, kept.tries = wanted, TopUpTries()
    session.flush()


def begin_anew(session: Session, client_id: UUID) -> None:
    """Forget a client's declined top-ups: another card may do better. Hold the client's lock."""
    kept = session.get(AutoTopUpSetting, client_id)
    if kept is not None:
        kept.tries = TopUpTries()
        session.flush()


def wake_top_ups(session: Session, client_ids: Sequence[UUID], *, requested_by: str) -> None:
    """Top up those of these clients whose credit is too low, without waiting for the next sweep."""
    below = session.execute(_BELOW, {"clients": list(client_ids)}).all()
    start_top_ups(session, [(one.account_id, one.client_id) for one in below], requested_by)


def start_top_ups(
    session: Session, clients: Sequence[tuple[UUID, UUID]], requested_by: str
) -> None:
    """Enqueue one job for each account and client; it looks again at what is to be done."""
    if not clients:
        return
    enqueue_for_each(
        session,
        _top_up_client(),
        [(account_id, {"client_id": client_id}) for account_id, client_id in clients],
        requested_by=requested_by,
        unique_key=lambda arguments: f"top_up:{arguments['client_id']}",
    )


def _top_up_client() -> JobKind:
    # A top-up ends in credit that is spent, and that may ask for the next one: either needs the
    # other.
    from tasks.top_ups import top_up_client  # noqa: PLC0415

    return top_up_client
