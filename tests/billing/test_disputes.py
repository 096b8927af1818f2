import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.disputes import DisputeLost, DisputeState, Loss, loss_of, steps_to
from billing.invoice_states import InvoiceStatus

INQUIRY, CLOSED, OPEN, WON, LOST = DisputeState
STATES = st.sampled_from([None, *DisputeState])


@pytest.mark.parametrize(
    ("state", "to", "steps"),
    [
        (None, INQUIRY, (INQUIRY,)),
        (None, OPEN, (OPEN,)),
        (None, CLOSED, (CLOSED,)),
        (None, LOST, (OPEN, LOST)),
        (INQUIRY, CLOSED, (CLOSED,)),
        (INQUIRY, OPEN, (OPEN,)),
        (INQUIRY, WON, (OPEN, WON)),
        (CLOSED, OPEN, (OPEN,)),
        (CLOSED, INQUIRY, ()),
        (OPEN, LOST, (LOST,)),
        (OPEN, OPEN, ()),
        (OPEN, INQUIRY, ()),
        (LOST, OPEN, ()),
        (WON, LOST, ()),
        (LOST, WON, ()),
    ],
)
def test_a_dispute_goes_forward_through_what_nobody_told_of(
    state: DisputeState | None, to: DisputeState, steps: tuple[DisputeState, ...]
) -> None:
    assert steps_to(state, to) == steps


@given(STATES, st.lists(st.sampled_from(DisputeState), max_size=8))
def test_whatever_is_told_money_is_taken_once_and_decided_once(
    state: DisputeState | None, told: list[DisputeState]
) -> None:
    state, seen = None, []
    for to in told:
        for step in steps_to(state, to):
            state = step
            seen.append(step)
    assert seen.count(OPEN) <= 1
    assert seen.count(WON) + seen.count(LOST) <= 1
    if state in {WON, LOST}:
        assert seen[-2:] == [OPEN, state]
    if told and told[-1] in {WON, LOST}:
        assert state in {WON, LOST}


@pytest.mark.parametrize(
    ("settles", "invoice", "rule", "loss"),
    [
        (1000, InvoiceStatus.PAID, DisputeLost.REOPEN, Loss(reopened=1000)),
        (1000, InvoiceStatus.PAID, DisputeLost.WRITE_OFF, Loss(written_off=1000)),
        (5000, InvoiceStatus.OPEN, DisputeLost.REOPEN, Loss(reopened=1000)),
        (600, InvoiceStatus.PAID, DisputeLost.REOPEN, Loss(reopened=600, taken_back=400)),
        (600, InvoiceStatus.PAID, DisputeLost.WRITE_OFF, Loss(written_off=600, taken_back=400)),
        (-50, InvoiceStatus.PAID, DisputeLost.REOPEN, Loss(taken_back=1000)),
        (600, InvoiceStatus.VOID, DisputeLost.WRITE_OFF, Loss(taken_back=1000)),
        (0, None, DisputeLost.WRITE_OFF, Loss(taken_back=1000)),
        (
            600,
            InvoiceStatus.UNCOLLECTIBLE,
            DisputeLost.REOPEN,
            Loss(reopened=600, taken_back=400, given_up=600),
        ),
        (
            600,
            InvoiceStatus.UNCOLLECTIBLE,
            DisputeLost.WRITE_OFF,
            Loss(written_off=600, taken_back=400),
        ),
    ],
)
def test_what_settled_the_invoice_is_due_or_lost_and_the_rest_is_the_clients(
    settles: int, invoice: InvoiceStatus | None, rule: DisputeLost, loss: Loss
) -> None:
    assert loss_of(1000, settles=settles, invoice=invoice, rule=rule) == loss


@given(
    st.integers(1, 10**12),
    st.integers(-(10**12), 10**12),
    st.sampled_from([None, *InvoiceStatus]),
    st.sampled_from(DisputeLost),
)
def test_a_loss_is_all_that_was_disputed(
    amount: int, settles: int, invoice: InvoiceStatus | None, rule: DisputeLost
) -> None:
    loss = loss_of(amount, settles=settles, invoice=invoice, rule=rule)

    parts = (loss.reopened, loss.written_off, loss.taken_back)
    assert sum(parts) == amount
    assert min(parts) >= 0
    assert loss.given_up in {0, loss.reopened}
    assert loss.reopened + loss.written_off <= max(settles, 0)
