"""What can be made to go wrong, and with which requests."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Literal, Self, get_args

from gateways.sandbox.stripe.errors import JsonObject

FaultKind = Literal[
    "lost_answer", "delay", "rate_limit", "server_error", "server_error_after", "conflict", "reset"
]


LimitCode = Literal["rate_limit", "lock_timeout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    - ``lost_answer``: the request is done and its answer kept, and the connection ends without it.
    - ``delay``: the answer takes ``seconds`` more, before the effect or, with ``after_effect``,
      after it. Until it goes out, the idempotency key is in use.
    - ``rate_limit``: 429 with ``code``, and a Retry-After of ``retry_after`` seconds if given.
    - ``server_error``: 500 before any effect; with ``is_saved`` kept under the key, so that the
      same key is answered 500 for good.
    - ``server_error_after``: 500 after the effect, kept under the key.
    - ``conflict``: 409, as if the key were in use.
    - ``reset``: the connection is reset before any effect.

    Attributes:
        kind: Which of these.
        times: How many requests it strikes; every one when ``None``.
        method: GET or POST; both when ``None``.
        path: A pattern of paths, such as ``/v1/payment_intents*``.
        parameters: Strikes only requests that carry these, by their names in the form:
            ``{"metadata[invoice]": "..."}``.
    """

    kind: FaultKind
    times: int | None = 1
    method: str | None = "POST"
    path: str = "*"
    parameters: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    after_effect: bool = False
    retry_after: int | None = None
    code: LimitCode = "rate_limit"
    is_saved: bool = False

    @classmethod
    def of(cls, values: JsonObject) -> Self:
        """A fault by its members' names.

        Raises:
            ValueError: One is unknown, or there is no such kind of fault.
        """
        unknown = values.keys() - {member.name for member in fields(cls)}
        if unknown:
            raise ValueError(f"a fault has no {', '.join(sorted(unknown))}")
        if values.get("kind") not in get_args(FaultKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(FaultKind))}")
        return cls(**values)

    def as_json(self) -> JsonObject:
        """Its members by name."""
        return asdict(self)

    def strikes(self, method: str, path: str, flat: Iterable[tuple[str, str]]) -> bool:
        """Whether it is meant for that request."""
        return (
            self.method in {None, method}
            and fnmatchcase(path, self.path)
            and self.parameters.items() <= set(flat)
        )
