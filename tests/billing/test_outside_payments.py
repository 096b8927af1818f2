from billing.outside_payments import OutsideMethod


def test_the_methods_are_stored_by_these_names() -> None:
    assert {*OutsideMethod} == {"bank_transfer", "cash", "check", "card_elsewhere", "other"}
