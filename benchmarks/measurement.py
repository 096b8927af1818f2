"""One measured amount of work."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measurement:
    """``count`` pieces of work, done in ``seconds`` of wall time.

    ``cpu_seconds`` is how long the process that did them had a processor, where that is known: the
    wall time is also that of whatever else the machine does.
    """

    name: str
    count: int
    seconds: float
    cpu_seconds: float | None = None

    @property
    def per_second(self) -> float:
        """Pieces of work a second."""
        return self.count / self.seconds

    @property
    def cpu_ms_each(self) -> float | None:
        """Processor time of one piece of work: a process of Python has one processor, no more."""
        return None if self.cpu_seconds is None else 1000 * self.cpu_seconds / self.count
