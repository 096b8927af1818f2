"""One measured amount of work."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measurement:
    """``count`` pieces of work, done in ``seconds`` of wall time."""

    name: str
    count: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Pieces of work a second."""
        return self.count / self.seconds
