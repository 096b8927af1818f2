import pytest

from billing.errors import InvalidInput
from billing.texts import require_text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must not be empty"),
        (" \t", "must not be empty"),
        ("abcd", "must be at most 3 characters"),
        ("a\x00", "must not hold a zero byte"),
    ],
)
def test_a_text_that_cannot_be_kept_is_refused_by_its_fields_name(
    text: str, complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint) as refusal:
        require_text("name", text, 3)

    assert refusal.value.field == "name"


def test_a_text_of_just_the_length_is_kept_as_it_is() -> None:
    assert require_text("name", " ab", 3) == " ab"
