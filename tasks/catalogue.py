"""Every kind of job there is: importing this imports each module that defines one."""

from tasks import (
    announcing,
    audits,
    billing_pages,
    billing_runs,
    charging,
    collecting,
    crediting,
    drafting,
    due_collections,
    finalizing,
    marking_paid,
    pruning,
    resolving,
    sending,
    voiding,
    webhooks,
    withdrawing,
)
from tasks.kinds import KINDS

__all__ = [
    "KINDS",
    "announcing",
    "audits",
    "billing_pages",
    "billing_runs",
    "charging",
    "collecting",
    "crediting",
    "drafting",
    "due_collections",
    "finalizing",
    "marking_paid",
    "pruning",
    "resolving",
    "sending",
    "voiding",
    "webhooks",
    "withdrawing",
]
