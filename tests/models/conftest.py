from collections.abc import Callable

import pytest
from psycopg.errors import Error
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

Refuse = Callable[[str], Error]


@pytest.fixture
def refused(session: Session) -> Refuse:
    """Runs a statement that the database must refuse, and gives its reason."""

    def run(statement: str) -> Error:
        # A flush of what the test has prepared is not the statement that is refused.
        session.flush()
        with pytest.raises(DBAPIError) as refusal, session.begin_nested():
            session.execute(text(statement))
        assert isinstance(refusal.value.orig, Error)
        return refusal.value.orig

    return run
