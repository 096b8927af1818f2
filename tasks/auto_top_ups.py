"""Clients' settings of automatic top-ups: setting them, and asking for one where credit was spent."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from billing.errors import InvalidInput
from billing.top_ups import AutoTopUp, TopUpTries, auto_top_up
from models import AutoTopUpSetting, Client

_FIELDS = frozenset({"threshold", "target", "currency"})

_ASKED_FOR = "top_ups_asked_for"


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
    it off: it is on again. Call ``wake_top_ups`` for what it may want at once.
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


def ask_for_top_ups(session: Session, client_ids: Sequence[UUID], *, requested_by: str) -> None:
    """Have a top-up of these clients started at the end of this transaction, if it is time.

    At the end since jobs come last of all that is locked, and since what is spent first may be
    paid in later. Whoever runs the work does it (``tasks.top_ups.start_asked_for``).
    """
    asked: dict[UUID, str] = session.info.setdefault(_ASKED_FOR, {})
    asked |= dict.fromkeys(client_ids, requested_by)


def asked_for(session: Session) -> Mapping[UUID, str]:
    """The clients that were asked for in this transaction since the last call, and by whom."""
    asked: dict[UUID, str] = session.info.pop(_ASKED_FOR, {})
    return asked
