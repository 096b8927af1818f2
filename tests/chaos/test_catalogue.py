import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest

from tests.chaos.faults.catalogue import ALONE, FAULTS, STARTING, plan

SEEDS = range(200)


def test_a_seed_plans_the_same_every_time() -> None:
    for seed in SEEDS:
        assert _planned(seed, 70) == _planned(seed, 70)


def test_seeds_plan_differently() -> None:
    assert len({tuple(_planned(seed, len(FAULTS))) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("faults", [1, 5, len(FAULTS), 2 * len(FAULTS) + 7])
def test_a_plan_has_as_many_faults_as_were_asked_for(faults: int) -> None:
    for seed in SEEDS:
        assert sum(map(len, _planned(seed, faults))) == faults


@pytest.mark.parametrize("only", [(), ("flush_redis", "deploy", "hang_stripe"), ("deploy",)])
def test_every_fault_is_made_before_any_is_made_twice(only: tuple[str, ...]) -> None:
    wanted = only or tuple(FAULTS)
    for seed in SEEDS:
        made = Counter(dict.fromkeys(wanted, 0))
        for names in _planned(seed, 3 * len(wanted), only):
            made.update(names)
            assert max(made.values()) - min(made.values()) <= 1
        assert made == dict.fromkeys(wanted, 3)


def test_two_at_a_time_never_undo_each_other() -> None:
    for one, other in _pairs():
        assert FAULTS[one].__module__ != FAULTS[other].__module__
        assert len({one, other} & STARTING) < 2
        assert not {one, other} & ALONE


def test_of_two_at_a_time_the_first_is_the_one_that_starts_a_server() -> None:
    starting = [(one, other) for one, other in _pairs() if {one, other} & STARTING]

    assert starting
    assert all(one in STARTING for one, _ in starting)


def test_whatever_may_go_with_another_does_in_some_plan() -> None:
    together = {name for pair in _pairs() for name in pair}

    assert together == FAULTS.keys() - ALONE


def test_what_is_known_of_a_fault_is_of_one_that_there_is() -> None:
    assert FAULTS.keys() >= STARTING | ALONE


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_says_what_it_is(name: str) -> None:
    first, _, rest = (FAULTS[name].__doc__ or "").partition("\n")

    assert first.endswith(".")
    assert rest == "" or rest.startswith("\n")


def _planned(seed: int, faults: int, only: Sequence[str] = ()) -> list[tuple[str, ...]]:
    return plan(random.Random(seed), faults, only)  # noqa: S311 - it must be repeatable


def _pairs() -> list[tuple[str, str]]:
    """Every two that are made at once in the plans of these seeds."""
    plans = [_planned(seed, 2 * len(FAULTS)) for seed in SEEDS]
    assert all(len(names) <= 2 for one in plans for names in one)
    return [pair for one in plans for names in one for pair in pairwise(names)]
