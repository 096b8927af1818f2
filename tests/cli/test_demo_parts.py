from datetime import date
from decimal import Decimal

from cli.demo_checks import Agreement
from cli.sample_month import sample_month
from cli.sample_payers import BANK_DEBIT, payers
from gateways.sandbox.stripe.behaviours import TEST_PAYMENT_METHODS


def test_records_agree_only_where_every_item_is_the_same() -> None:
    ours = {("a", "usd"): 100, ("b", "usd"): 50, ("c", "gbp"): 7}
    assert Agreement(
        "paid", {"we": ours, "they": dict(ours), "none due": {**ours, ("d", "usd"): 0}}
    ).ok
    swapped = {("a", "usd"): 50, ("b", "usd"): 100, ("c", "gbp"): 7}
    disagreeing = Agreement("paid", {"we": ours, "they": swapped})
    assert disagreeing.totals("we") == disagreeing.totals("they") == {"gbp": 7, "usd": 150}
    assert not disagreeing.ok
    assert disagreeing.as_json()["ok"] is False
    assert disagreeing.differing == [
        "a: we 100 usd, they 50 usd",
        "b: we 50 usd, they 100 usd",
    ]
    assert not Agreement("paid", {"we": ours, "they": {}}).ok


def test_the_sample_payers_are_the_same_every_time_and_of_every_sort() -> None:
    month = sample_month(date(2026, 10, 1))
    clients = list(dict.fromkeys(row[0] for rows in month.rows.values() for row in rows))
    ours = payers(clients)
    assert ours == payers(clients)
    emails = [one.email for one in ours if one.email is not None]
    assert len(set(emails)) == len(emails) == len(ours) - 2
    methods = [one.payment_method for one in ours]
    assert {one for one in methods if one is not None} <= set(TEST_PAYMENT_METHODS)
    assert methods.count(BANK_DEBIT) == 1
    good = sum(one in ("pm_card_visa", "pm_card_mastercard", "pm_card_amex") for one in methods)
    assert good > len(ours) * 0.7
    assert None in methods
    assert sum(not one.wants_ready_mail for one in ours) == 2


def test_what_is_paid_ahead_is_in_whole_tens_and_never_below_zero() -> None:
    (ahead,) = [one for one in payers([f"C{n}" for n in range(14)]) if one.client == "C13"]
    assert ahead.paid_ahead == Decimal("0.4")
    assert ahead.deposit(Decimal("400.01")) == 170
    assert ahead.deposit(Decimal(-5)) == 0
