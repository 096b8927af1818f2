"""The books: their trial balance, and the audit. JSON, or CSV where Accept asks for it."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from api.auth import Reader
from api.csv_answers import Accept, as_csv, or_csv, wants_csv
from api.days import Days, require_in_order
from api.operations import reads
from api.transactions import Transaction
from tasks.audits import RULES, audit
from tasks.trial_balances import trial_balance

router = APIRouter(tags=["books"])


class BalanceReport(BaseModel):
    """One ledger account in one currency, in minor units; `balance` is debits less credits.

    Tax is listed by rate: `tax_rate` is its id, `tax_rate_name` what it is called.
    """

    account: str
    currency: str
    debits: int
    credits: int
    balance: int
    tax_rate: UUID | None = None
    tax_rate_name: str | None = None


class TrialBalanceReport(BaseModel):
    """Every ledger account that was posted to. In each currency debits equal credits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "data": [
                        {
                            "account": "receivable",
                            "currency": "usd",
                            "debits": 1320,
                            "credits": 0,
                            "balance": 1320,
                            "tax_rate": None,
                            "tax_rate_name": None,
                        },
                        {
                            "account": "revenue",
                            "currency": "usd",
                            "debits": 0,
                            "credits": 1100,
                            "balance": -1100,
                            "tax_rate": None,
                            "tax_rate_name": None,
                        },
                        {
                            "account": "tax",
                            "currency": "usd",
                            "debits": 0,
                            "credits": 220,
                            "balance": -220,
                            "tax_rate": "019ae8a3-5c00-7000-8000-000000000011",
                            "tax_rate_name": "VAT",
                        },
                    ],
                    "balanced": True,
                }
            ]
        }
    )

    data: list[BalanceReport]
    balanced: bool


class DifferenceReport(BaseModel):
    """One place where a rule of the books does not hold."""

    rule: str
    subject: str
    found: str


class AuditReport(BaseModel):
    """The rules that were checked, and every difference found: none, if all is well."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ok": True,
                    "rules": ["ledger_entries_balance", "numbers_are_gapless"],
                    "differences": [],
                }
            ]
        }
    )

    ok: bool
    rules: list[str]
    differences: list[DifferenceReport]


@router.get(
    "/v1/ledger/trial-balance",
    summary="Show the trial balance",
    response_model=TrialBalanceReport,
    responses={
        **or_csv(
            TrialBalanceReport,
            "account,currency,debits,credits,balance,tax_rate,tax_rate_name\r\n"
            "receivable,usd,1100,0,1100,,\r\n",
        ),
        **reads(),
    },
)
def show_trial_balance(
    days: Annotated[Days, Query()],
    caller: Reader,
    session: Transaction,
    accept: Accept = "application/json",
) -> TrialBalanceReport | Response:
    """All postings ever made, summed; with `to`, what stood on each account at that day's end.

    With `from`, only what was moved since.
    """
    require_in_order(days.first, days.to)
    balances = [
        BalanceReport(
            account=balance.ledger_account,
            currency=balance.currency,
            debits=balance.debits,
            credits=balance.credits,
            balance=balance.balance,
            tax_rate=balance.tax_rate_id,
            tax_rate_name=balance.tax_rate_name,
        )
        for balance in trial_balance(session, caller.account_id, first=days.first, last=days.to)
    ]
    if wants_csv(accept):
        return as_csv(BalanceReport, balances)
    sums: dict[str, int] = {}
    for balance in balances:
        sums[balance.currency] = sums.get(balance.currency, 0) + balance.balance
    return TrialBalanceReport(data=balances, balanced=not any(sums.values()))


@router.get(
    "/v1/audit",
    summary="Audit the books",
    response_model=AuditReport,
    responses={**or_csv(AuditReport, "rule,subject,found\r\n"), **reads()},
)
def show_audit(
    caller: Reader, session: Transaction, accept: Accept = "application/json"
) -> AuditReport | Response:
    """Checks every rule now, so it takes its time on a large account."""
    differences = [
        DifferenceReport(rule=one.rule, subject=one.subject, found=one.found)
        for one in audit(session, caller.account_id)
    ]
    if wants_csv(accept):
        return as_csv(DifferenceReport, differences)
    return AuditReport(ok=not differences, rules=list(RULES), differences=differences)
