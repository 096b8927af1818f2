"""How the sandbox behaves beyond what each request says. Set from the control side, kept."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from gateways.sandbox.stripe.errors import JsonObject

DeliveryOrder = Literal["oldest", "newest", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times are in seconds.

    Attributes:
        webhook_url: Where events are delivered; nowhere when ``None``.
        webhook_events: The types of event that are delivered, with commas; ``*`` for all.
        webhook_secret: What deliveries are signed with.
        own_webhooks: The ``url`` and ``secret`` of accounts that have a webhook of their own, by
            account: nobody else is told of these.
        webhooks_paused: Events collect and none is delivered.
        webhook_order: In which order those that are due go out.
        webhook_copies: How often each event is delivered.
        webhook_delay: How long after the event the first try is.
        webhook_retry: The wait after a first failed try; it doubles up to an hour.
        webhook_parallel: How many deliveries may be under way; 1 keeps the order.
        webhook_timeout: How long a receiver may take.
        settle_after: When a bank debit or a pending refund comes to its end by itself; only by
            hand when ``None``.
        search_delay: How long a new object cannot be found by searching. At Stripe it is up to a
            minute; lists show it at once.
        creates_per_second: How many POST requests an account may send; any when ``None``.
        refuse_declining_cards: Whether a card that declines is refused already when attached, as
            at Stripe. Off, so that every decline can be met off session.
        key_lifetime: How long answers are kept under idempotency keys.
    """

    webhook_url: str | None = None
    webhook_events: str = "*"
    webhook_secret: str = ""
    own_webhooks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    webhooks_paused: bool = False
    webhook_order: DeliveryOrder = "oldest"
    webhook_copies: int = 1
    webhook_delay: float = 0.0
    webhook_retry: float = 1.0
    webhook_parallel: int = 4
    webhook_timeout: float = 10.0
    settle_after: float | None = 30.0
    search_delay: float = 0.0
    creates_per_second: float | None = None
    refuse_declining_cards: bool = False
    key_lifetime: float = 24 * 3600.0

    @classmethod
    def of(cls, values: JsonObject) -> Self:
        """Those values, the rest at their defaults.

        Raises:
            ValueError: One has no such name, or another type.
        """
        for name, value in values.items():
            _check(cls, name, value)
        return cls(**values)

    def delivers(self, event_type: str) -> bool:
        """Whether somebody wants to be told of such events."""
        wanted = self.webhook_events.split(",")
        return self.webhook_url is not None and ("*" in wanted or event_type in wanted)

    def as_json(self) -> JsonObject:
        """All of them by name."""
        return asdict(self)


_WORDS = {"webhook_order": ("oldest", "newest", "random")}
_TYPES: dict[object, tuple[type, ...]] = {
    str: (str,),
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str | None: (str, type(None)),
    Mapping[str, Mapping[str, str]]: (dict,),
    float | None: (int, float, type(None)),
    DeliveryOrder: (str,),
}


def _check(settings: type[Settings], name: str, value: Any) -> None:  # noqa: ANN401 - it is JSON.
    types = {one.name: one.type for one in fields(settings)}
    if name not in types:
        raise ValueError(f"no setting {name}")
    allowed = _TYPES[types[name]]
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ValueError(f"{name} cannot be {value!r}")
    if name in _WORDS and value not in _WORDS[name]:
        raise ValueError(f"{name} must be one of {', '.join(_WORDS[name])}")
