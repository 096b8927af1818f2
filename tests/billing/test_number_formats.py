import re
from datetime import date
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from billing.errors import InvalidInput, RuleViolation
from billing.number_formats import (
    DEFAULT_FORMAT,
    MAX_NEXT_NUMBER,
    MAX_NUMBER_LENGTH,
    MAX_SEQUENCE,
    DocumentType,
    NumberReset,
    Series,
    number_pattern,
    render_number,
    require_next_number,
    require_number_format,
    reset_for,
    series_of,
)

ACCOUNT, OTHER_ACCOUNT = UUID(int=1), UUID(int=2)
# Few days and small numbers, so that look-alikes are drawn.
DAYS = st.dates(date(2025, 11, 28), date(2026, 2, 3)) | st.dates()
SEQUENCES = st.integers(1, 120) | st.integers(1, MAX_SEQUENCE)
PARTS = st.sampled_from(["{year}", "{month}", "INV", "20", "1", "0", "-", "/", ".", "_"])
SEQ_TOKENS = st.sampled_from(["{seq}", "{seq:01}", "{seq:02}", "{seq:06}", "{seq:012}"])


@st.composite
def plans(draw: st.DrawFn) -> tuple[str, NumberReset]:
    """A format with its reset."""
    reset = draw(st.sampled_from(NumberReset))
    parts = [*draw(st.lists(PARTS, max_size=4)), draw(SEQ_TOKENS)]
    if reset == NumberReset.YEARLY:
        parts.append("{year}")
    return "".join(draw(st.permutations(parts))), reset


@pytest.mark.parametrize(
    ("number_format", "sequence", "issued_on", "number"),
    [
        ("INV-{seq:06}", 1, date(2026, 11, 1), "INV-000001"),
        ("INV-{seq:06}", 999_999, date(2026, 11, 1), "INV-999999"),
        ("INV-{seq:06}", 1_000_000, date(2026, 11, 1), "INV-1000000"),
        ("{seq}", 42, date(2026, 11, 1), "42"),
        ("{seq:01}", 42, date(2026, 11, 1), "42"),
        ("{seq:012}", 42, date(2026, 11, 1), "000000000042"),
        ("{year}-{seq:04}", 7, date(2026, 11, 1), "2026-0007"),
        # The month has two digits, and is that of issue.
        ("{seq}/{month}/{year}", 7, date(2026, 1, 31), "7/01/2026"),
        ("R_{year}.{month}.{seq:03}", 7, date(2026, 12, 31), "R_2026.12.007"),
        ("{year}{seq}{year}", 7, date(2026, 1, 31), "202672026"),
    ],
)
def test_a_number_is_its_format_filled_in(
    number_format: str, sequence: int, issued_on: date, number: str
) -> None:
    assert require_number_format(number_format, NumberReset.NEVER) == number_format
    assert render_number(number_format, sequence, issued_on) == number


@pytest.mark.parametrize(
    "number_format",
    [
        "INV-{seq:6}",  # Python would fill it with spaces.
        "INV-{seq:00}",
        "INV-{seq:013}",
        "INV-{seq:0}",
        "INV-{seq:06d}",
        "INV-{seq!r}",
        "INV-{seq.real}",
        "INV-{ seq }",
        "INV-{SEQ}",
        "INV-{seq}-{day}",
        "INV-{seq}-{year:02}",
        "INV-{seq}-{month:02}",
        "INV-{seq}-{}",
        "INV-{seq}-{0}",
        "INV-{{seq}}",
        "{ye{seq}ar}",
        "INV-{seq",
        "INV-seq}",
        "INV {seq}",
        "INV-{seq}\n",
        "#{seq}",
        "=1+{seq}",
        "<b>{seq}",
        "{seq}%",
        "{seq}\x00",
        "\u2116{seq}",  # a numero sign
        "\u0661{seq}",  # an Arabic-Indic digit
    ],
)
def test_unknown_tokens_and_characters_are_refused(number_format: str) -> None:
    for reset in NumberReset:
        with pytest.raises(InvalidInput, match="must consist of the tokens") as refused:
            require_number_format(number_format, reset)
        assert refused.value.field == "number_format"


@pytest.mark.parametrize(
    "number_format", ["", "INV", "{year}-{month}", "{seq}{seq}", "{seq:06}-{seq}"]
)
def test_the_sequence_number_stands_in_it_exactly_once(number_format: str) -> None:
    with pytest.raises(InvalidInput, match="exactly once") as refused:
        require_number_format(number_format, NumberReset.NEVER)

    assert refused.value.field == "number_format"


@pytest.mark.parametrize("number_format", [DEFAULT_FORMAT, "{seq}", "{month}-{seq}", "2026-{seq}"])
def test_numbers_that_start_again_every_year_bear_the_year(number_format: str) -> None:
    assert require_number_format(number_format, NumberReset.NEVER) == number_format
    with pytest.raises(InvalidInput, match=r"must contain \{year\}") as refused:
        require_number_format(number_format, NumberReset.YEARLY)

    assert refused.value.field == "number_format"
    assert require_number_format(f"{{year}}{number_format}", NumberReset.YEARLY)


@pytest.mark.parametrize(
    ("number_format", "longest"),
    [
        ("{seq}", 12),
        ("{seq:06}", 12),
        ("{year}{month}{seq:012}", 18),
        ("x" * 28 + "{seq}", 40),
        ("x" * 22 + "{year}{month}{seq}", 40),
    ],
)
def test_a_number_has_at_most_forty_characters_whatever_it_comes_to(
    number_format: str, longest: int
) -> None:
    assert require_number_format(number_format, NumberReset.NEVER) == number_format
    assert len(render_number(number_format, MAX_SEQUENCE, date(2026, 1, 1))) == longest
    assert longest <= MAX_NUMBER_LENGTH == 40


@pytest.mark.parametrize(
    "number_format", ["x" * 29 + "{seq}", "x" * 23 + "{year}{month}{seq}", "{year}" * 8 + "{seq}"]
)
def test_a_format_whose_numbers_could_be_longer_is_refused(number_format: str) -> None:
    with pytest.raises(InvalidInput, match="at most 40 characters") as refused:
        require_number_format(number_format, NumberReset.NEVER)

    assert refused.value.field == "number_format"


@given(
    st.lists(
        st.sampled_from(["{seq}", "{seq:06}", "{year}", "{", "}", "seq", ":06", "month", "-", " "]),
        max_size=4,
    )
)
def test_a_format_is_refused_or_renders_to_plain_characters(parts: list[str]) -> None:
    number_format = "".join(parts)
    try:
        require_number_format(number_format, NumberReset.NEVER)
    except InvalidInput:
        return

    number = render_number(number_format, 123, date(2026, 11, 1))
    assert "123" in number
    assert not {*number} & {*"{}: "}


@given(plans(), st.tuples(SEQUENCES, DAYS), st.tuples(SEQUENCES, DAYS))
def test_no_two_documents_of_an_account_and_type_bear_the_same_number(
    plan: tuple[str, NumberReset], one: tuple[int, date], other: tuple[int, date]
) -> None:
    number_format, reset = plan
    assert require_number_format(number_format, reset)
    places = [
        (series_of(ACCOUNT, DocumentType.INVOICE, reset, day), sequence)
        for sequence, day in (one, other)
    ]
    assume(places[0] != places[1])

    assert render_number(number_format, *one) != render_number(number_format, *other)


@given(SEQUENCES, DAYS)
def test_the_default_is_what_numbers_have_looked_like_so_far(sequence: int, day: date) -> None:
    assert require_number_format(DEFAULT_FORMAT, NumberReset.NEVER) == "INV-{seq:06}"
    assert render_number(DEFAULT_FORMAT, sequence, day) == f"INV-{sequence:06}"


@pytest.mark.parametrize("sequence", [0, -1, MAX_SEQUENCE + 1])
def test_a_series_runs_from_one_to_twelve_digits(sequence: int) -> None:
    assert len(str(MAX_SEQUENCE)) == 12
    with pytest.raises(ValueError, match="runs from 1 to 999,999,999,999"):
        render_number(DEFAULT_FORMAT, sequence, date(2026, 11, 1))


@pytest.mark.parametrize(
    ("reset", "issued_on", "year"),
    [
        ("never", date(2026, 12, 31), None),
        ("never", date(2027, 1, 1), None),
        # By the date of issue, whenever it is finalized.
        ("yearly", date(2026, 12, 31), 2026),
        ("yearly", date(2027, 1, 1), 2027),
    ],
)
def test_a_series_is_an_accounts_a_document_types_and_under_yearly_reset_a_years(
    reset: str, issued_on: date, year: int | None
) -> None:
    series = series_of(ACCOUNT, DocumentType.INVOICE, NumberReset(reset), issued_on)

    assert series == Series(ACCOUNT, DocumentType.INVOICE, year)
    assert series != series_of(OTHER_ACCOUNT, DocumentType.INVOICE, NumberReset(reset), issued_on)


@pytest.mark.parametrize("sequence", [1, 2, 20_260_001, 99_999_999_999])
def test_a_series_may_begin_with_eleven_digits_at_most(sequence: int) -> None:
    assert require_next_number(sequence, is_used=False) == sequence <= MAX_NEXT_NUMBER


@pytest.mark.parametrize("used", ["used", ""])
@pytest.mark.parametrize("sequence", [0, -1, 100_000_000_000, MAX_SEQUENCE])
def test_a_series_begins_with_no_other_number(sequence: int, used: str) -> None:
    with pytest.raises(InvalidInput, match=r"must be 1 to 99,999,999,999$") as refused:
        require_next_number(sequence, is_used=bool(used))

    assert refused.value.field == "next_number"


def test_a_series_that_has_begun_leaves_no_gap() -> None:
    with pytest.raises(RuleViolation) as refused:
        require_next_number(500, is_used=True)

    assert refused.value.code == "number_series_used"


def test_resets_are_stored_by_these_names() -> None:
    assert {*NumberReset} == {"never", "yearly"}


@given(plan=plans(), sequence=SEQUENCES, day=DAYS)
def test_a_number_is_read_back_as_what_it_was_made_of(
    plan: tuple[str, NumberReset], sequence: int, day: date
) -> None:
    number_format, _ = plan
    pattern = number_pattern(number_format)

    read = re.fullmatch(pattern.regex, render_number(number_format, sequence, day), re.ASCII)

    assert read is not None
    assert int(read[pattern.sequence]) == sequence
    assert (pattern.year is None) is ("{year}" not in number_format)
    if pattern.year is not None:
        assert int(read[pattern.year]) == day.year


@given(
    plan=plans(),
    text=st.text("INV0123456789-/._", max_size=20)
    | st.builds(lambda other, n, day: render_number(other[0], n, day), plans(), SEQUENCES, DAYS),
)
def test_what_a_format_could_give_is_read_and_nothing_else(
    plan: tuple[str, NumberReset], text: str
) -> None:
    number_format, _ = plan
    pattern = number_pattern(number_format)

    read = re.fullmatch(pattern.regex, text, re.ASCII)

    if read is not None and int(read[pattern.sequence]):
        year = 2026 if pattern.year is None else int(read[pattern.year])
        sequence = int(read[pattern.sequence])
        assert text in {
            render_number(number_format, sequence, date(year, month, 1)) for month in range(1, 13)
        }


@pytest.mark.parametrize(
    ("number_format", "number"),
    [
        ("INV-{seq:06}", "INV-00001"),
        ("INV-{seq:06}", "INV-0000001"),
        ("INV-{seq:06}", "INV-1000000000000"),
        ("{seq}", "007"),
        ("{seq:012}", "1000000000000"),
        ("1.{seq}", "1-7"),
        ("{year}-{year}-{seq}", "2026-2025-7"),
        ("{year}{year}1{seq}", "2026202617x"),
        ("{year}{month}{seq}", "2026137"),
        ("{year}-{seq}", "0000-7"),
    ],
)
def test_what_a_format_never_gives_is_not_read(number_format: str, number: str) -> None:
    assert re.fullmatch(number_pattern(number_format).regex, number, re.ASCII) is None


def test_only_numbers_that_bear_the_year_start_again_with_it() -> None:
    assert reset_for("CN-{seq}", NumberReset.YEARLY) == NumberReset.NEVER
    assert reset_for("CN-{year}-{seq}", NumberReset.YEARLY) == NumberReset.YEARLY
    assert reset_for("CN-{year}-{seq}", NumberReset.NEVER) == NumberReset.NEVER
