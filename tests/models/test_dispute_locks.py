"""What the database itself refuses of disputes."""

# ruff: noqa: S608 - every statement is the test's own, and meant to be refused.

from itertools import permutations

import pytest
from psycopg.errors import CheckViolation, ForeignKeyViolation, RestrictViolation
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from billing.disputes import DisputeState, steps_to
from models import Account, Invoice, Payment
from tasks.accounts import create_account
from tasks.marking_paid import mark_invoice_paid
from tests.models.conftest import Refuse
from tests.money import an_invoice, payments_of
from tests.worlds import a_client, perform

OPENED, CLOSED = {"opened_at": "now()"}, {"closed_at": "now()"}
TIMES = {
    DisputeState.INQUIRY: {},
    DisputeState.CLOSED: CLOSED,
    DisputeState.OPEN: OPENED,
    DisputeState.WON: {**OPENED, **CLOSED},
    DisputeState.LOST: {**OPENED, **CLOSED, "reopened": "amount"},
}


@pytest.fixture
def payment(engine: Engine, account: Account) -> Payment:
    """What a client paid for an invoice; who takes it back is the tests' matter."""
    client = a_client(engine, account)
    invoice: Invoice = an_invoice(engine, account, client)
    perform(engine, mark_invoice_paid, account, invoice_id=invoice.id)
    [payment] = payments_of(engine, client)
    return payment


def dispute(payment: Payment, **columns: str) -> str:
    """The statement that adds an inquiry; ``columns`` are SQL."""
    values = {
        "account_id": f"'{payment.account_id}'",
        "client_id": f"'{payment.client_id}'",
        "payment_id": f"'{payment.id}'",
        "invoice_id": f"'{payment.invoice_id}'",
        "stripe_dispute": "uuid7()::text",
        "currency": "'usd'",
        "amount": "300",
        "state": "'inquiry'",
        "status": "'needs_response'",
        "reason": "'fraudulent'",
        "disputed_at": "now()",
        "told_at": "now()",
        **columns,
    }
    return f"INSERT INTO disputes ({', '.join(values)}) SELECT {', '.join(values.values())}"


def test_a_dispute_says_what_it_is(payment: Payment, refused: Refuse) -> None:
    lost = {"state": "'lost'", **OPENED, **CLOSED}
    for constraint, columns in (
        ("state", {"state": "'settled'"}),
        ("currency", {"currency": "'USD'"}),
        ("amount", {"amount": "0"}),
        ("opened", {"state": "'open'"}),
        ("opened", OPENED),
        ("closed", {"state": "'closed'"}),
        ("closed", CLOSED),
        # A lost one has done something with all of it, and no other has with any.
        ("lost", {"reopened": "300"}),
        ("lost", lost),
        ("lost", {**lost, "reopened": "200"}),
        ("lost", {**lost, "reopened": "400", "taken_back": "-100"}),
        ("invoice", {**lost, "reopened": "300", "invoice_id": "NULL"}),
    ):
        reason = refused(dispute(payment, **columns))
        assert isinstance(reason, CheckViolation)
        assert f"ck_disputes_{constraint}" in str(reason), columns


def test_a_dispute_is_of_one_client_in_the_currency_of_its_invoice(
    engine: Engine, session: Session, account: Account, payment: Payment, refused: Refuse
) -> None:
    stranger = a_client(engine, account)
    other = create_account(session, "Other")
    for columns in (
        {"account_id": f"'{other.id}'"},
        {"client_id": f"'{stranger.id}'"},
        {"currency": "'eur'"},
        {"payment_id": "uuid7()"},
        {"invoice_id": "uuid7()"},
    ):
        assert isinstance(refused(dispute(payment, **columns)), ForeignKeyViolation), columns


def test_stripes_dispute_is_one_of_ours(
    session: Session, payment: Payment, refused: Refuse
) -> None:
    once = dispute(payment, stripe_dispute="'du_1'")
    session.execute(text(once))

    assert "uq_disputes_stripe_dispute" in str(refused(once))


def test_disputes_are_kept(session: Session, payment: Payment, refused: Refuse) -> None:
    session.execute(text(dispute(payment)))

    assert isinstance(refused("DELETE FROM disputes"), RestrictViolation)
    for column in ("payment_id", "client_id", "stripe_dispute"):
        kind = "text" if column == "stripe_dispute" else "uuid"
        reason = refused(f"UPDATE disputes SET {column} = uuid7()::{kind}")
        assert isinstance(reason, RestrictViolation), column


def test_the_amount_is_fixed_once_the_bank_has_it(
    session: Session, payment: Payment, refused: Refuse
) -> None:
    session.execute(text(dispute(payment)))
    session.execute(text("UPDATE disputes SET amount = 200"))
    session.execute(text("UPDATE disputes SET state = 'open', opened_at = now()"))

    assert isinstance(refused("UPDATE disputes SET amount = 300"), RestrictViolation)


@pytest.mark.parametrize(("was", "to"), [*permutations(DisputeState, 2)], ids=str)
def test_a_dispute_goes_as_the_rules_have_it(
    session: Session, payment: Payment, refused: Refuse, was: DisputeState, to: DisputeState
) -> None:
    session.execute(text(dispute(payment, state=f"'{was}'", **_inserted(was))))
    times = {"closed_at": "NULL", **TIMES[to]}
    if was in {DisputeState.OPEN, DisputeState.WON, DisputeState.LOST}:
        times.pop("opened_at", None)
    changes = ", ".join(f"{name} = {value}" for name, value in times.items())
    statement = f"UPDATE disputes SET state = '{to}', {changes}"

    if steps_to(was, to) == (to,):
        session.execute(text(statement))
    else:
        assert refused(statement) is not None


def _inserted(state: DisputeState) -> dict[str, str]:
    return {name: "300" if value == "amount" else value for name, value in TIMES[state].items()}
