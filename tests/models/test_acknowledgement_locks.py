"""What the database itself refuses of acknowledgements: who knew what, when and why stays."""

import pytest
from psycopg.errors import CheckViolation, RestrictViolation, UniqueViolation
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from models import Account, DifferenceAcknowledgement
from tasks.acknowledging import acknowledge_difference
from tests.models.conftest import Refuse
from tests.reconciliations import a_difference, a_reconciliation


@pytest.fixture(autouse=True)
def acknowledgement(
    engine: Engine, session: Session, account: Account
) -> DifferenceAcknowledgement:
    """Of the one difference that there is."""
    a_reconciliation(engine, account)
    one = a_difference(engine)
    found = acknowledge_difference(session, account.id, one, "By hand", requested_by="cli")
    return session.get_one(DifferenceAcknowledgement, found.acknowledgement_id)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM difference_acknowledgements",
        "TRUNCATE difference_acknowledgements CASCADE",
        "UPDATE difference_acknowledgements SET reason = 'Another'",
        "UPDATE difference_acknowledgements SET acknowledged_by = 'bob'",
        "UPDATE difference_acknowledgements SET acknowledged_at = now() + interval '1 day'",
        "UPDATE difference_acknowledgements SET difference_id = uuid7()",
    ],
)
def test_an_acknowledgement_is_neither_changed_nor_deleted(refused: Refuse, statement: str) -> None:
    assert isinstance(refused(statement), RestrictViolation)


def test_it_is_withdrawn_once_and_for_good(session: Session, refused: Refuse) -> None:
    withdraw = "UPDATE difference_acknowledgements SET withdrawn_at = now(), withdrawn_by = 'bob'"
    session.execute(text(withdraw))

    for again in (withdraw, withdraw.replace("now()", "NULL").replace("'bob'", "NULL")):
        assert isinstance(refused(again), RestrictViolation)


@pytest.mark.parametrize("change", ["withdrawn_at = now()", "withdrawn_by = 'bob'"])
def test_a_withdrawal_says_who_and_when(refused: Refuse, change: str) -> None:
    statement = f"UPDATE difference_acknowledgements SET {change}"  # noqa: S608 - the test's own
    assert isinstance(refused(statement), CheckViolation)


def test_one_holds_for_a_difference_at_a_time(session: Session, refused: Refuse) -> None:
    again = (
        "INSERT INTO difference_acknowledgements (difference_id, reason, acknowledged_by)"
        " SELECT id, 'By hand', 'bob' FROM reconciliation_differences"
    )
    assert isinstance(refused(again), UniqueViolation)

    session.execute(
        text("UPDATE difference_acknowledgements SET withdrawn_at = now(), withdrawn_by = 'bob'")
    )
    session.execute(text(again))
