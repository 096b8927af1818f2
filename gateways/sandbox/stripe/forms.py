"""Stripe's form encoding: ``metadata[invoice]=in_1&expand[0]=latest_charge``."""

import re
from collections.abc import Iterable
from typing import TypeAlias
from urllib.parse import parse_qsl

from gateways.sandbox.stripe.errors import malformed

Value: TypeAlias = "str | dict[str, Value]"

_NAME = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")
_KEY = re.compile(r"\[([^\[\]]*)\]")


def pairs(encoded: bytes) -> list[tuple[str, str]]:
    """The decoded names and values, in their order.

    Raises:
        ApiError: It is not UTF-8, or has more fields than any request needs.
    """
    try:
        return parse_qsl(
            encoded.decode(), keep_blank_values=True, errors="strict", max_num_fields=1_000
        )
    except ValueError as error:
        raise malformed(f"Invalid request body: {error}", "") from error


def nested(flat: Iterable[tuple[str, str]]) -> dict[str, Value]:
    """The same with its brackets resolved. An array has its places for keys: ``{"0": ..., "1": ...}``.

    Raises:
        ApiError: A name's brackets do not match, or it is used in two ways.
    """
    tree: dict[str, Value] = {}
    for name, text in flat:
        match = _NAME.match(name)
        if match is None:
            raise malformed(f"Invalid parameter name: {name}", name)
        keys = [match[1], *_KEY.findall(match[2])]
        branch = tree
        for key in keys[:-1]:
            deeper = branch.setdefault(key or str(len(branch)), {})
            if not isinstance(deeper, dict):
                raise malformed(f"Invalid parameter: {name} is used in two ways", name)
            branch = deeper
        last = keys[-1] or str(len(branch))
        if last in branch:
            raise malformed(f"Invalid parameter: {name} was given twice", name)
        branch[last] = text
    return tree
