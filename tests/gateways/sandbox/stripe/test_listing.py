import pytest
import stripe

from gateways.sandbox.stripe.control import StripeSandboxControl
from tests.gateways.sandbox.stripe.paying import card, pay, problem


@pytest.fixture
def intents(client: stripe.StripeClient, customer: str) -> list[str]:
    """Five payments for the invoices in_0 to in_4, oldest first."""
    method = card(client, customer)
    return [
        pay(client, customer, method, amount=100 * (n + 1), metadata={"invoice": f"in_{n}"}).id
        for n in range(5)
    ]


def test_a_list_comes_newest_first_in_pages(
    client: stripe.StripeClient, intents: list[str]
) -> None:
    first = client.v1.payment_intents.list({"limit": 2})
    assert [intent.id for intent in first.data] == intents[4:2:-1]
    assert first.has_more
    second = client.v1.payment_intents.list({"limit": 2, "starting_after": intents[3]})
    assert [intent.id for intent in second.data] == intents[2:0:-1]
    back = client.v1.payment_intents.list({"limit": 2, "ending_before": intents[1]})
    assert [intent.id for intent in back.data] == [intents[3], intents[2]]
    assert back.has_more
    walked = client.v1.payment_intents.list({"limit": 2}).auto_paging_iter()
    assert [intent.id for intent in walked] == intents[::-1]


def test_a_list_is_filtered_by_customer_and_time(
    client: stripe.StripeClient, intents: list[str], customer: str
) -> None:
    made = client.v1.payment_intents.retrieve(intents[0]).created
    assert len(client.v1.payment_intents.list({"created": {"gte": made}}).data) == 5
    assert client.v1.payment_intents.list({"created": {"lt": made}}).data == []
    assert client.v1.payment_intents.list({"created": made - 1}).data == []
    assert len(client.v1.payment_intents.list({"customer": customer}).data) == 5
    other = client.v1.customers.create().id
    assert client.v1.payment_intents.list({"customer": other}).data == []
    assert len(client.v1.charges.list({"customer": customer}).data) == 5


@pytest.mark.usefixtures("intents")
def test_a_list_can_be_expanded(client: stripe.StripeClient) -> None:
    (intent, *_) = client.v1.payment_intents.list({"expand": ["data.latest_charge"]}).data
    assert isinstance(intent.latest_charge, stripe.Charge)


@pytest.mark.parametrize("limit", [0, 101])
def test_a_page_has_its_bounds(client: stripe.StripeClient, limit: int) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.charges.list({"limit": limit})
    assert refusal.value.param == "limit"


def test_events_are_listed_by_type(client: stripe.StripeClient, intents: list[str]) -> None:
    succeeded = client.v1.events.list({"type": "payment_intent.succeeded"}).data
    assert [event.data.object["id"] for event in succeeded] == intents[::-1]
    both = client.v1.events.list({"types": ["charge.succeeded", "customer.created"]}).data
    assert len(both) == 6
    assert client.v1.events.retrieve(both[0].id).type == "charge.succeeded"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("metadata['invoice']:'in_3'", [3]),
        ('metadata["invoice"]:"in_3" AND status:"succeeded"', [3]),
        ("metadata['invoice']:'in_3' AND status:'processing'", []),
        ("metadata['invoice']:'in_1' OR metadata['invoice']:'in_2'", [2, 1]),
        ("amount>300", [4, 3]),
        ("amount>=300 AND amount<500", [3, 2]),
        ("-metadata['invoice']:'in_3' AND amount:400", []),
        ("metadata['invoice']~'n_' AND currency:'USD'", [4, 3, 2, 1, 0]),
        ("metadata['order']:null AND amount<=100", [0]),
        ("metadata['it\\'s']:null AND created>0 AND amount:200", [1]),
    ],
)
def test_intents_are_found_by_what_they_carry(
    client: stripe.StripeClient, intents: list[str], query: str, found: list[int]
) -> None:
    answer = client.v1.payment_intents.search({"query": query})
    assert [intent.id for intent in answer.data] == [intents[n] for n in found]


def test_a_search_comes_in_pages_too(client: stripe.StripeClient, intents: list[str]) -> None:
    found = client.v1.payment_intents.search({"query": "status:'succeeded'", "limit": 2})
    assert found.has_more
    assert [intent.id for intent in found.auto_paging_iter()] == intents[::-1]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "status",
        "status:succeeded",
        "colour:'red'",
        "metadata:'x'",
        "status['x']:'y'",
        "amount:'5'",
        "amount~5",
        "status>'a'",
        "status:'a' AND status:'b' OR status:'c'",
        "status:'a' status:'b'",
        " AND ".join(["amount:1"] * 11),
    ],
)
def test_what_is_no_query_is_refused(client: stripe.StripeClient, query: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.search({"query": query})
    assert problem(refusal.value).param == "query"


@pytest.mark.usefixtures("intents")
def test_a_search_may_lag_behind_and_a_list_does_not(
    client: stripe.StripeClient, control: StripeSandboxControl
) -> None:
    control.set(search_delay=60)
    assert client.v1.payment_intents.search({"query": "amount:100"}).data == []
    assert len(client.v1.payment_intents.list().data) == 5
