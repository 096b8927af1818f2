import pytest

from tasks.refused_charges import fault_of


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("resource_missing", "card"),
        ("payment_method_unexpected_state", "card"),
        ("amount_too_small", "amount"),
        ("invalid_currency", "amount"),
        # What is wrong with our key or account says nothing of any card; nor does what is unknown.
        ("account_invalid", "ours"),
        ("invalid", "ours"),
    ],
)
def test_a_refusal_is_the_cards_the_amounts_or_our_fault(code: str, fault: str) -> None:
    assert fault_of(code) == fault
