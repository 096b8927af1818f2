"""The job ledger: one row per unit of asynchronous work, and one per run of it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Computed, ForeignKey, Index, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column

from billing.job_states import FINAL, JobState
from models.base import Base, CreatedAt, JsonObject, PrimaryKey, one_of

FINAL_STATES = "(" + ", ".join(sorted(repr(state.value) for state in FINAL)) + ")"
NO_ACCOUNT = "00000000-0000-0000-0000-000000000000"


class Job(Base):
    """One unit of asynchronous work. Its state is the truth; a message over Redis only rings.

    ``args`` holds ids only. ``priority`` counts up: 0 is served first. ``lease_token`` is new
    with every claim and fences the run that holds it. ``rerun`` asks a running job to run again,
    because something changed after it began. ``children_pending`` counts unfinished children,
    kept by a trigger on their rows.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(one_of("state", JobState), name="state"),
        CheckConstraint("(state = 'running') = (lease_token IS NOT NULL)", name="lease"),
        CheckConstraint(f"(state IN {FINAL_STATES}) = (finished_at IS NOT NULL)", name="finished"),
        CheckConstraint("children_pending >= 0", name="children_pending"),
        # `running` is inside: a failing job's own finish must not meet a twin.
        Index(
            "uq_jobs_unique_key",
            "unique_key",
            unique=True,
            postgresql_where=f"state NOT IN {FINAL_STATES}",
        ),
        Index(
            "ix_jobs_ready",
            "queue",
            "priority",
            "lane",
            "run_at",
            "id",
            postgresql_where="state = 'ready'",
        ),
        Index("ix_jobs_later", "run_at", postgresql_where="state IN ('scheduled', 'failed')"),
        Index(
            "ix_jobs_dispatched", "queue", "dispatched_at", postgresql_where="state = 'dispatched'"
        ),
        Index("ix_jobs_running", "lease_expires_at", postgresql_where="state = 'running'"),
        Index("ix_jobs_parent_id", "parent_id", postgresql_where="parent_id IS NOT NULL"),
        Index("ix_jobs_subject", "subject_id", postgresql_where="subject_id IS NOT NULL"),
        Index("ix_jobs_account_id_id", "account_id", "id"),
        Index("ix_jobs_dead", "queue", postgresql_where="state = 'dead'"),
        Index("ix_jobs_finished_at", "finished_at", postgresql_where="finished_at IS NOT NULL"),
        {"postgresql_with": {"fillfactor": "50"}},
    )

    id: Mapped[PrimaryKey]
    account_id: Mapped[UUID | None] = mapped_column(ForeignKey("accounts.id"))
    # Round-robin between accounts goes by lane; work of no account has one of its own.
    lane: Mapped[UUID] = mapped_column(
        Computed(f"COALESCE(account_id, '{NO_ACCOUNT}'::uuid)", persisted=True)
    )
    kind: Mapped[str]
    queue: Mapped[str] = mapped_column(ForeignKey("queues.name"))
    args: Mapped[JsonObject]
    priority: Mapped[int] = mapped_column(SmallInteger, server_default="100")
    state: Mapped[str]
    run_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    attempt: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int]
    rescues: Mapped[int] = mapped_column(server_default="0")
    dispatches: Mapped[int] = mapped_column(server_default="0")
    dispatched_at: Mapped[datetime | None]
    lease_token: Mapped[UUID | None]
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    unique_key: Mapped[str | None]
    rerun: Mapped[bool] = mapped_column(server_default="false")
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    children_pending: Mapped[int] = mapped_column(server_default="0")
    subject_type: Mapped[str | None]
    subject_id: Mapped[UUID | None]
    requested_by: Mapped[str]
    result: Mapped[dict[str, Any] | None]
    reason: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[CreatedAt]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobAttempt(Base):
    """One run of a job that has ended; the run under way is the job's own row."""

    __tablename__ = "job_attempts"
    __table_args__ = (Index("ix_job_attempts_job_id", "job_id"),)

    id: Mapped[PrimaryKey]
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    outcome: Mapped[str]
    worker: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[CreatedAt]
