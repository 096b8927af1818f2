from itertools import product

import pytest

from billing.errors import IllegalTransition
from billing.invoice_states import (
    TRANSITIONS,
    InvoiceEvent,
    InvoiceStatus,
    events_when_finalized,
    transition,
)

EDGES = {
    ("draft", "finalize"): "open",
    ("open", "pay"): "paid",
    ("open", "void"): "void",
    ("open", "write off"): "uncollectible",
    # Its money went back, by a refund without a credit note.
    ("paid", "reopen"): "open",
    ("uncollectible", "pay"): "paid",
    ("uncollectible", "void"): "void",
}
MISSING = sorted(set(product(InvoiceStatus, InvoiceEvent)) - EDGES.keys())


@pytest.mark.parametrize(("edge", "reached"), EDGES.items())
def test_every_edge_of_the_life_cycle_leads_where_it_should(
    edge: tuple[str, str], reached: str
) -> None:
    status, event = edge

    assert transition(InvoiceStatus(status), InvoiceEvent(event)) == reached


@pytest.mark.parametrize(("status", "event"), MISSING)
def test_every_other_edge_is_refused(status: InvoiceStatus, event: InvoiceEvent) -> None:
    with pytest.raises(IllegalTransition) as refused:
        transition(status, event)

    assert (refused.value.status, refused.value.event) == (status, event)


def test_the_table_cannot_be_changed_at_run_time() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[InvoiceStatus.PAID, InvoiceEvent.VOID] = InvoiceStatus.VOID  # type: ignore[index]  # what is tested


@pytest.mark.parametrize(
    ("total", "reached"),
    [(1, "open"), (10**12, "open"), (0, "paid"), (-1, "paid")],
)
def test_an_invoice_with_nothing_to_collect_is_paid_at_once(total: int, reached: str) -> None:
    status = InvoiceStatus.DRAFT
    for event in events_when_finalized(total):
        status = transition(status, event)

    assert status == reached
