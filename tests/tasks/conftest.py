from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

import billing.periods
import models.billing_period
import tasks.previews


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged, kept as it is: drawing a traceback for a terminal takes seconds."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def six_periods_a_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run takes six periods of a client, of which three are written down: a year is long."""
    billing.periods.first_periods.cache_clear()
    monkeypatch.setattr(billing.periods, "MAX_WAITING_WRITTEN", 3)
    for module in (models.billing_period, tasks.previews):
        monkeypatch.setattr(module, "MAX_PERIODS_PER_RUN", 6)
    yield
    billing.periods.first_periods.cache_clear()
