"""Keeping the leases of the jobs that this process runs."""

import threading
from datetime import timedelta

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from models import job_ledger
from models.job_ledger import Claim

_log = structlog.get_logger(__name__)


class LeaseKeeper(threading.Thread):
    """Extends every held lease three times within its length, from a thread of its own.

    One that cannot reach the database lets the leases run out: another process then takes the
    jobs, and the fence in ``job_ledger.finish`` keeps this one from committing.
    """

    def __init__(self, engine: Engine, *, lease: timedelta, run_limit: timedelta) -> None:
        super().__init__(name="leases", daemon=True)
        self._engine = engine
        self._lease = lease
        self._run_limit = run_limit
        self._claims: dict[Claim, None] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def hold(self, claim: Claim) -> None:
        """Keep this claim's lease alive from now on."""
        with self._lock:
            self._claims[claim] = None

    def release(self, claim: Claim) -> None:
        """Stop keeping it."""
        with self._lock:
            del self._claims[claim]

    @property
    def held(self) -> int:
        """How many jobs this process runs right now."""
        return len(self._claims)

    def run(self) -> None:
        """Extend until stopped."""
        while not self._stopping.wait(self._lease.total_seconds() / 3):
            self._extend()

    def stop(self) -> None:
        """Stop extending; call once no job runs any more."""
        self._stopping.set()

    def _extend(self) -> None:
        with self._lock:
            claims = list(self._claims)
        if not claims:
            return
        try:
            with self._engine.begin() as connection:
                job_ledger.extend_leases(
                    connection, claims, lease=self._lease, run_limit=self._run_limit
                )
        except SQLAlchemyError as error:
            _log.warning("leases not extended", jobs=len(claims), error=str(error))
