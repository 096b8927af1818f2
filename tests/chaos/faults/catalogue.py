"""Every fault by name, each over when its function returns, and which are made in one run."""

import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from tests.chaos.faults import postgres, processes, queues, redis, sendgrid, stripe
from tests.chaos.faults.target import Target

Fault = Callable[[Target], None]

FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        fault.__name__: fault
        for fault in (
            processes.crash_at_points,
            processes.kill_at_random,
            processes.kill_all_workers,
            processes.pause_a_worker,
            processes.skew_a_clock,
            processes.deploy,
            queues.deploy_ahead,
            queues.pause_a_queue,
            redis.stop_redis,
            redis.stop_redis_for_long,
            redis.flush_redis,
            redis.fill_redis,
            redis.demote_redis,
            redis.lose_redis_answers,
            redis.stall_redis,
            postgres.end_database_sessions,
            postgres.restart_postgres,
            postgres.crash_postgres,
            postgres.exhaust_connections,
            stripe.lose_charge_answers,
            stripe.lose_page_answers,
            stripe.hang_stripe,
            stripe.limit_stripe,
            stripe.break_stripe,
            stripe.tell_before_answering,
            stripe.repeat_webhooks,
            stripe.hold_webhooks,
            stripe.withhold_webhooks,
            sendgrid.lose_mail_replies,
            sendgrid.hang_sendgrid,
            sendgrid.break_sendgrid,
        )
    }
)

STARTING = frozenset({"stop_redis", "stop_redis_for_long", "restart_postgres", "crash_postgres"})
"""Start a server again, which only the main thread may: one at a time."""

ALONE = frozenset({"kill_all_workers"})
"""Measures how long it takes to be made good, which another would make longer."""

CHANCE_OF_TWO = 0.5


def _go_together(one: str, other: str) -> bool:
    """Whether both can be made at once: two that harm the same would undo each other."""
    both = {one, other}
    same = FAULTS[one].__module__ == FAULTS[other].__module__
    return not same and not both & ALONE and len(both & STARTING) < 2


def plan(rng: random.Random, faults: int, only: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """So many faults in order, every one before any twice; some are two at a time.

    Of two, the one for the main thread is first.
    """
    names = list(only or FAULTS)
    wanted: list[str] = []
    while len(wanted) < faults:
        rng.shuffle(names)
        wanted += names
    strikes: list[tuple[str, ...]] = []
    for name in wanted[:faults]:
        last = strikes[-1] if strikes else ()
        together = len(last) == 1 and _go_together(last[0], name)
        if together and rng.random() < CHANCE_OF_TWO:
            strikes[-1] = (name, *last) if name in STARTING else (*last, name)
        else:
            strikes.append((name,))
    return strikes
