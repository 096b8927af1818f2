import pytest

from billing.numbering import DocumentType, format_number


@pytest.mark.parametrize(
    ("sequence", "number"),
    [
        (1, "INV-000001"),
        (42, "INV-000042"),
        (999_999, "INV-999999"),
        (1_000_000, "INV-1000000"),
        (123_456_789, "INV-123456789"),
    ],
)
def test_numbers_have_six_digits_and_grow(sequence: int, number: str) -> None:
    assert format_number(DocumentType.INVOICE, sequence) == number


@pytest.mark.parametrize("sequence", [0, -1])
def test_a_series_starts_at_one(sequence: int) -> None:
    with pytest.raises(ValueError, match="starts at 1"):
        format_number(DocumentType.INVOICE, sequence)
