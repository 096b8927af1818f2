"""Tables, one aggregate a file, with the statements that read and lock them."""

from models.account import Account
from models.api_key import ApiKey, Scope
from models.auto_top_up import AutoTopUpSetting
from models.base import Base
from models.billing_method import BackupMethod, BillingMethod
from models.billing_period import BillingPeriod
from models.billing_run import BillingRun
from models.card_setup import CardRole, CardSetup, SetupState
from models.charge import Charge, ChargeState
from models.client import Client
from models.credit import CreditBalance, CreditEntry, CreditGrant, CreditGrantUse
from models.credit_note import CreditNote
from models.dispute import Dispute
from models.idempotency_key import IdempotencyKey
from models.invoice import Invoice, InvoiceLine, InvoiceTax
from models.job import Job, JobAttempt
from models.ledger import LedgerEntry, LedgerPosting
from models.mail import Mail
from models.number_series import NumberSeries
from models.payment import Payment, PaymentSource
from models.payment_attempt import PaymentAttempt
from models.process import Process
from models.queue import Queue
from models.reconciliation import (
    DifferenceAcknowledgement,
    Reconciliation,
    ReconciliationDifference,
    ReconciliationRecord,
)
from models.refund import Refund
from models.schedule import Schedule, ScheduleFire
from models.stripe_limit import StripeLane, StripeLimit, StripeTurn
from models.stripe_merchant import StripeMerchant
from models.tax_rate import TaxRateRow
from models.webhook_event import WebhookEvent

__all__ = [
    "Account",
    "ApiKey",
    "AutoTopUpSetting",
    "BackupMethod",
    "Base",
    "BillingMethod",
    "BillingPeriod",
    "BillingRun",
    "CardRole",
    "CardSetup",
    "Charge",
    "ChargeState",
    "Client",
    "CreditBalance",
    "CreditEntry",
    "CreditGrant",
    "CreditGrantUse",
    "CreditNote",
    "DifferenceAcknowledgement",
    "Dispute",
    "IdempotencyKey",
    "Invoice",
    "InvoiceLine",
    "InvoiceTax",
    "Job",
    "JobAttempt",
    "LedgerEntry",
    "LedgerPosting",
    "Mail",
    "NumberSeries",
    "Payment",
    "PaymentAttempt",
    "PaymentSource",
    "Process",
    "Queue",
    "Reconciliation",
    "ReconciliationDifference",
    "ReconciliationRecord",
    "Refund",
    "Schedule",
    "ScheduleFire",
    "Scope",
    "SetupState",
    "StripeLane",
    "StripeLimit",
    "StripeMerchant",
    "StripeTurn",
    "TaxRateRow",
    "WebhookEvent",
]
