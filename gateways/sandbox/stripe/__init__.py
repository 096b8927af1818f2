"""A local server that behaves like Stripe where it matters to whoever charges cards by it.

It keeps its objects, idempotency keys, events, faults and request log in one SQLite file, answers
under ``/v1`` as Stripe does, and is steered under ``/_sandbox``. No money moves.
"""
