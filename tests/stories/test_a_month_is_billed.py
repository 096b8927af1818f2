from tests.processes import Stack
from tests.stories.conftest import Business
from tests.waiting import wait_for
from tests.worlds import work


def test_the_scheduler_bills_last_month_by_itself(business: Business, stack: Stack) -> None:
    busy = business.monthly_client("Ada Imports", months_ago=1)
    idle = business.monthly_client("Bell Books", months_ago=1, charges_per_month=0)
    business.scheduler_was_down_since(months_ago=1)

    for process in ("scheduler", "dispatcher", "worker"):
        stack.start(process)
    wait_for(business.all_is_billed)

    [invoice] = business.invoices()
    last_month, this_month = business.month_start(1), business.month_start(0)
    assert (invoice.number, invoice.status, invoice.total) == ("INV-000001", "open", 2_000)
    assert invoice.client_id == busy.id
    assert business.periods(busy) == [(last_month, "billed"), (this_month, "open")]
    assert business.periods(idle) == [(last_month, "empty"), (this_month, "open")]
    assert business.audit_is_clean()


def test_the_same_month_asked_for_again_bills_nothing(business: Business) -> None:
    business.monthly_client("Ada Imports", months_ago=1)

    for _ in range(2):
        business.request_run()
        work(business.engine)

    assert len(business.invoices()) == 1
    assert business.audit_is_clean()


def test_three_months_of_downtime_are_billed_oldest_first(business: Business, stack: Stack) -> None:
    clients = [business.monthly_client(name, months_ago=3) for name in ("Ada", "Bell", "Cole")]
    business.scheduler_was_down_since(months_ago=3)

    for process in ("scheduler", "dispatcher", "worker"):
        stack.start(process)
    wait_for(business.all_is_billed)

    months = [business.month_start(ago) for ago in (3, 2, 1)]
    for client in clients:
        assert business.periods(client)[:3] == [(month, "billed") for month in months]
    numbers_follow_dates = [start for _number, start in business.months_by_number()]
    assert numbers_follow_dates == sorted(months * 3)
    assert business.audit_is_clean()
