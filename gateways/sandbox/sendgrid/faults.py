"""What can be made to go wrong with the next sends."""

from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """How a send goes wrong."""

    LOST_REPLY = "lost_reply"
    """The mail is accepted, and the connection closed without an answer."""
    LATE_REPLY = "late_reply"
    """The mail is accepted, and the answer comes ``seconds`` later."""
    HANG = "hang"
    """Nothing is accepted and nothing answered, until the client leaves or ``seconds`` are over."""
    RESET = "reset"
    """Nothing is accepted; the connection is reset."""
    STATUS = "status"
    """Nothing is accepted; the answer is an error ``status``, 429 and 5xx among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to the next ``times`` sends that bring a key, valid or not.

    Faults wait in line: the first added is used up before the second.
    """

    kind: FaultKind
    times: int = 1
    status: int = 503
    seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense, with a ``ValueError`` that says so."""
        if self.times < 1:
            raise ValueError("times must be at least 1")
        if not 400 <= self.status <= 599:
            raise ValueError("status must be an error, 400 to 599")
        if not 0 <= self.seconds <= 3_600:
            raise ValueError("seconds must be 0 to 3600")
