"""Tables, one aggregate a file, with the statements that read and lock them."""

from models.account import Account
from models.api_key import ApiKey, Scope
from models.base import Base
from models.billing_period import BillingPeriod
from models.billing_run import BillingRun
from models.charge import Charge, ChargeState
from models.client import Client
from models.idempotency_key import IdempotencyKey
from models.invoice import Invoice, InvoiceLine
from models.job import Job, JobAttempt
from models.ledger import LedgerEntry, LedgerPosting
from models.number_series import NumberSeries
from models.process import Process
from models.queue import Queue
from models.schedule import Schedule, ScheduleFire

__all__ = [
    "Account",
    "ApiKey",
    "Base",
    "BillingPeriod",
    "BillingRun",
    "Charge",
    "ChargeState",
    "Client",
    "IdempotencyKey",
    "Invoice",
    "InvoiceLine",
    "Job",
    "JobAttempt",
    "LedgerEntry",
    "LedgerPosting",
    "NumberSeries",
    "Process",
    "Queue",
    "Schedule",
    "ScheduleFire",
    "Scope",
]
