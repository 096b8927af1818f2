import pytest

from billing.errors import (
    DuecourseError,
    IllegalTransition,
    InvalidInput,
    NotFound,
    RuleViolation,
    TransientFailure,
)


def test_invalid_input_names_the_field_and_what_to_do() -> None:
    error = InvalidInput("quantity", "must be above zero")

    assert (error.field, error.message, error.code) == (
        "quantity",
        "must be above zero",
        "invalid",
    )
    assert str(error) == "quantity: must be above zero"


def test_invalid_input_may_carry_a_code_of_its_own() -> None:
    error = InvalidInput("amount", "more than is due", code="amount_exceeds_due")

    assert error.code == "amount_exceeds_due"


def test_a_rule_violation_has_a_code_for_programs_and_a_reason_for_people() -> None:
    error = RuleViolation("nothing_to_bill", "the client has no open charges")

    assert error.code == "nothing_to_bill"
    assert error.message == str(error) == "the client has no open charges"


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ("finalize", "invoice_not_draft"),
        ("pay", "invoice_not_open"),
        ("void", "invoice_not_open"),
        ("write off", "invoice_not_open"),
    ],
)
def test_an_illegal_transition_says_which_status_was_needed(event: str, code: str) -> None:
    error = IllegalTransition("void", event)

    assert (error.status, error.event, error.code) == ("void", event, code)
    assert str(error) == f"cannot {event} an invoice that is void"


def test_not_found_says_what_was_looked_for() -> None:
    error = NotFound("invoice", "0199")

    assert (error.kind, error.key, error.code) == ("invoice", "0199", "invoice_not_found")
    assert str(error) == "no invoice 0199"


def test_callers_can_tell_what_to_do_next_by_class_alone() -> None:
    assert issubclass(IllegalTransition, RuleViolation)
    answers = [InvalidInput, RuleViolation, NotFound, TransientFailure]
    for one in answers:
        assert issubclass(one, DuecourseError)
        assert not any(issubclass(one, other) for other in answers if other is not one)
