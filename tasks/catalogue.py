"""Every kind of job there is: importing this imports each module that defines one."""

from tasks import audits, billing_pages, billing_runs, drafting, finalizing, pruning, voiding
from tasks.kinds import KINDS

__all__ = [
    "KINDS",
    "audits",
    "billing_pages",
    "billing_runs",
    "drafting",
    "finalizing",
    "pruning",
    "voiding",
]
