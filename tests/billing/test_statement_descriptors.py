import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.statement_descriptors import MAX_SUFFIX, statement_suffix

SHOWN = re.compile(r"[A-Z0-9](?:[A-Z0-9 .-]*[A-Z0-9])?")


@pytest.mark.parametrize(
    ("name", "number", "suffix"),
    [
        ("Bluebird Prep", "INV-000042", "INV-000042"),
        ("Bluebird Prep", "INV-42", "BLU INV-42"),
        ("Bluebird Prep", "42", "BLUEBIR 42"),
        ("Bluebird Prep", "2026-000042", "BLU 000042"),
        ("Bluebird Prep", "INV-2026-000042", "BLU 000042"),
        ("Bluebird Prep", None, "BLU CREDIT"),
        ("Müller & Söhne", "7", "MULLER S 7"),
        ("蓝鸟", "7", "INV 7"),
        ("* <'\"> *", "№ 7", "INV NO 7"),
        ("3PL", "1234567", "3PL 234567"),
    ],
)
def test_a_statement_names_the_account_and_tells_the_invoices_apart(
    name: str, number: str | None, suffix: str
) -> None:
    assert statement_suffix(name, number) == suffix


@given(name=st.text(max_size=60), number=st.none() | st.text(max_size=60))
def test_whatever_they_are_called_stripe_takes_it(name: str, number: str | None) -> None:
    suffix = statement_suffix(name, number)

    assert len(suffix) <= MAX_SUFFIX
    assert SHOWN.fullmatch(suffix)
    assert re.search(r"[A-Z]", suffix)
