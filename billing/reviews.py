"""The review of a billing period's draft: how long it stays open before it is finalized."""

MAX_REVIEW_HOURS = 90 * 24
"""Longest window: past a quarter, nobody is reviewing."""
