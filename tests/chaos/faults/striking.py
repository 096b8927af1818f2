"""Making the faults of a plan, one after another."""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tests.chaos.faults.catalogue import FAULTS
from tests.chaos.faults.target import Target


def strike_all(
    target: Target, strikes: Sequence[tuple[str, ...]], say: Callable[[str], None] = lambda _: None
) -> None:
    """Make each of the strikes, those of two at once, with short pauses by the target's ``rng``."""
    with ThreadPoolExecutor(1) as other_hand:
        for number, names in enumerate(strikes, start=1):
            say(f"{number}/{len(strikes)} {' and '.join(names)}")
            # Drawn before any strikes: which of them is first is not the seed's.
            one, *others = [
                (FAULTS[name], replace(target, rng=drawn(target.rng))) for name in names
            ]
            striking = [other_hand.submit(fault, harmed) for fault, harmed in others]
            fault, harmed = one
            fault(harmed)
            for other in striking:
                other.result()
            time.sleep(target.rng.random())


def drawn(rng: random.Random) -> random.Random:
    """A source of its own for somebody: what one draws does not change what another does."""
    return random.Random(rng.random())  # noqa: S311 - it must be repeatable
