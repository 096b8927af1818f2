"""Creating and changing clients, with what that means for their billing periods."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from billing.currencies import currency_code
from billing.cycles import BillingCycle, Cadence, time_zone
from billing.dates import MAX_NET_DAYS
from billing.errors import InvalidInput, NotFound, RuleViolation
from billing.texts import MAX_SHORT, require_text
from billing.top_ups import AutoTopUp
from models import Account, Client
from models.client import client_alone, clients_for_update
from tasks.accounts import switches_after
from tasks.archiving import with_archiving
from tasks.auto_top_ups import checked_auto_top_up, set_auto_top_up
from tasks.automation import columns_of_client
from tasks.card_changes import stop_waiting_for_backup
from tasks.cycles import (
    complete_chains,
    forget_periods,
    leave_cycle,
    move_to_zone,
    plan_cycle,
    resume_cycle,
)
from tasks.pauses import release_held
from tasks.periods import ClientPeriod, write_periods
from tasks.tax_rates import require_tax_rates
from tasks.taxing import retax_drafts

EARLIEST_START = date(1970, 1, 1)
LATEST_START_AHEAD = timedelta(days=366)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClient:
    """A client to be created; ``None`` falls back to the account's value, where it has one.

    So does each mail that ``notifications`` does not switch on or off, by the kind of mail.
    ``review_hours`` of ``PERSON`` leave drafts to a person; ``paused`` has what is, by name.
    """

    name: str
    external_ref: str | None = None
    legal_name: str | None = None
    email: str | None = None
    address: Mapping[str, Any] | None = None
    tax_ids: Sequence[str] = field(default_factory=list)
    tax_rates: Sequence[UUID] | None = None
    tax_exempt: bool = False
    currency: str | None = None
    time_zone: str | None = None
    net_days: int | None = None
    auto_collect: bool | None = None
    review_hours: int | Literal["person"] | None = None
    paused: Mapping[str, bool] = field(default_factory=dict)
    notifications: Mapping[str, bool | None] = field(default_factory=dict)
    billing_cycle: BillingCycle = BillingCycle.MANUAL
    anchor_day: int = 1
    billing_starts_on: date | None = None
    use_backup_card: bool = False
    auto_top_up: Mapping[str, Any] | None = None


CHANGEABLE = frozenset(NewClient.__dataclass_fields__)
"""The names of the fields that ``change_client`` takes."""


def create_clients(
    session: Session, account: Account, new: Sequence[NewClient], *, now: datetime
) -> list[Client]:
    """Create clients, and write down the billing periods of those that are on a cycle.

    Raises:
        InvalidInput: A field's value is wrong.
        RuleViolation: Another client has the same ``external_ref`` (``external_ref_taken``).
    """
    account = _with_its_zone(session, account.id)
    _require_free_refs(session, account.id, [one.external_ref for one in new])
    for rates in {tuple(one.tax_rates) for one in new if one.tax_rates}:
        require_tax_rates(session, account.id, rates)
    # Their ids first: rows whose key the database gives are inserted one by one.
    ids = session.scalars(select(func.uuid7()).select_from(func.generate_series(1, len(new))))
    clients: list[Client] = []
    top_ups: dict[UUID, AutoTopUp] = {}
    periods: list[ClientPeriod] = []
    for client_id, one in zip(ids.all(), new, strict=True):
        _check_start(one.billing_starts_on, now)
        client = Client(id=client_id, account_id=account.id)
        wanted = {name: getattr(one, name) for name in CHANGEABLE}
        checked = _checked_all({}, wanted)
        top_up = checked.pop("auto_top_up")
        if top_up is not None:
            top_ups[client_id] = top_up
        for name, value in checked.items():
            setattr(client, name, value)
        _check_cadence(client)
        if client.billing_cycle != BillingCycle.MANUAL:
            periods += plan_cycle(client, account, activated_at=now)
        clients.append(client)
    session.add_all(clients)
    session.flush()
    for client in clients:
        if client.id in top_ups:
            set_auto_top_up(session, client, top_ups[client.id])
    write_periods(session, periods)
    return clients


def change_client(
    session: Session,
    account: Account,
    client_id: UUID,
    changes: Mapping[str, Any],
    *,
    now: datetime,
) -> Client:
    """Change the given fields of a client, under its lock.

    Of ``notifications`` and ``paused`` only the switches that are given change; a mail's given as
    None is the account's again. What a pause has held is open again when it ends. ``archived``
    takes it off its cycle.

    Raises:
        InvalidInput: A field's value is wrong.
        NotFound: The account has no such client.
        RuleViolation: ``external_ref_taken``, or ``billing_already_started`` where the start of
            a cycle would move after periods of it were decided; ``client_has_drafts`` where it
            cannot be archived, ``client_archived`` where it would go on a cycle all the same.
    """
    account = _with_its_zone(session, account.id)
    lock = client_alone(client_id) if changes.get("archived") else clients_for_update([client_id])
    client = session.scalars(lock).one_or_none()
    if client is None or client.account_id != account.id:
        raise NotFound("client", str(client_id))
    changes = with_archiving(session, client, _checked_all(client.notifications, changes), now=now)
    if changes.get("external_ref") not in (None, client.external_ref):
        _require_free_refs(session, account.id, [changes["external_ref"]])
    require_tax_rates(session, account.id, changes.get("tax_rates"))
    taxed = client.tax_rates, client.tax_exempt
    was_on_cycle = client.billing_cycle != BillingCycle.MANUAL
    if was_on_cycle and changes.keys() & {"billing_cycle", "anchor_day", "time_zone"}:
        complete_chains(session, account, [client], now=now)
    if "auto_top_up" in changes:
        set_auto_top_up(session, client, changes.pop("auto_top_up"))
    starts_on = changes.pop("billing_starts_on", client.billing_starts_on)
    _check_start(starts_on, now)
    zone = client.zone(account)
    for name, value in changes.items():
        setattr(client, name, value)
    _check_cadence(client)
    if was_on_cycle and client.zone(account) != zone:
        move_to_zone(session, account, [client], now=now)
    _replan(session, client, account, starts_on, was_on_cycle=was_on_cycle, now=now)
    session.flush()
    if (client.tax_rates, client.tax_exempt) != taxed:
        retax_drafts(session, Client.id == client.id)
    if changes.get("billing_paused") is False:
        release_held(session, client_id=client.id)
    if changes.get("use_backup_card") is False:
        stop_waiting_for_backup(session, client.id)
    return client


def _replan(
    session: Session,
    client: Client,
    account: Account,
    starts_on: date | None,
    *,
    was_on_cycle: bool,
    now: datetime,
) -> None:
    """Bring a client's periods in line with its new cycle or start."""
    is_on_cycle = client.billing_cycle != BillingCycle.MANUAL
    if was_on_cycle and not is_on_cycle:
        leave_cycle(session, client, now=now)
    if starts_on != client.billing_starts_on:
        client.billing_starts_on = starts_on
        periods = plan_cycle(client, account, activated_at=now) if is_on_cycle else []
        forget_periods(session, client)
        write_periods(session, periods)
    elif is_on_cycle and not was_on_cycle:
        write_periods(session, resume_cycle(session, client, account, now=now))


def _with_its_zone(session: Session, account_id: UUID) -> Account:
    """The account, whose zone cannot change until the caller has planned periods by it."""
    return session.get_one(Account, account_id, with_for_update={"read": True})


def _checked_all(switches: Mapping[str, bool], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields' values, in the form that is kept; ``switches`` are those set so far."""
    checked = {name: _checked(name, value) for name, value in changes.items()}
    if "notifications" in checked:
        checked["notifications"] = switches_after(switches, checked["notifications"])
    if "auto_top_up" in checked:
        checked["auto_top_up"] = checked_auto_top_up(checked["auto_top_up"])
    return columns_of_client(checked)


def _checked(name: str, value: Any) -> Any:  # noqa: ANN401 - one of several types, by name
    """A field's value, in the form that is kept."""
    match name, value:
        case "name", _:
            return require_text("name", value or "", MAX_SHORT)
        case "time_zone", str():
            return time_zone(value).key
        case "currency", str():
            return currency_code(value)
        case "billing_cycle", _ if value not in list(BillingCycle):
            raise InvalidInput("billing_cycle", f"must be one of {', '.join(BillingCycle)}")
        case "billing_cycle", _:
            return BillingCycle(value).value
        case "anchor_day", _ if value not in range(1, 32):
            raise InvalidInput("anchor_day", "must be 1 to 31")
        case "net_days", int() if not 0 <= value <= MAX_NET_DAYS:
            raise InvalidInput("net_days", f"must be 0 to {MAX_NET_DAYS} days")
        case "auto_collect" | "tax_exempt" | "use_backup_card", _ if not isinstance(
            value, bool | None
        ):
            raise InvalidInput(name, "must be true or false")
        case "tax_ids" | "tax_rates", _ if name == "tax_ids" or value is not None:
            return list(value or [])
        case _:
            return value


def _check_cadence(client: Client) -> None:
    """Refuse an anchor that the cycle does not have: each alone may be right."""
    if client.billing_cycle != BillingCycle.MANUAL:
        Cadence(BillingCycle(client.billing_cycle), client.anchor_day)


def _check_start(starts_on: date | None, now: datetime) -> None:
    if starts_on is not None and not (
        EARLIEST_START <= starts_on <= now.date() + LATEST_START_AHEAD
    ):
        raise InvalidInput("billing_starts_on", f"must be from {EARLIEST_START} to a year from now")


def _require_free_refs(session: Session, account_id: UUID, refs: Sequence[str | None]) -> None:
    given = [ref for ref in refs if ref is not None]
    twice = (ref for ref, times in Counter(given).items() if times > 1)
    others = select(Client.external_ref).where(
        Client.account_id == account_id, Client.external_ref.in_(given)
    )
    taken = next(twice, None) or session.scalars(others).first()
    if taken is not None:
        raise RuleViolation("external_ref_taken", f"another client is {taken} already")
