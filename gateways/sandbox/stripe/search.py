"""Stripe's search language, for payment intents: clauses joined by AND, or by OR.

A clause is ``field:"value"``; ``-`` before it negates; ``~`` instead of ``:`` asks for a part of the
text; numbers take ``<``, ``<=``, ``>``, ``>=``; ``null`` asks for what is not there.
"""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gateways.sandbox.stripe.books import Books, Call
from gateways.sandbox.stripe.errors import ApiError, JsonObject, invalid_request
from gateways.sandbox.stripe.listing import limit_of

MAX_CLAUSES = 10
TEXT_FIELDS = frozenset({"currency", "customer", "status", "metadata"})
NUMBER_FIELDS = frozenset({"amount", "created"})

_CLAUSE = re.compile(
    r"""\s*(?P<negated>-)?(?P<field>[a-z_]+)
        (?:\[(?P<key>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')\])?
        \s*(?P<comparison>:|~|<=|>=|<|>)\s*
        (?P<value>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|-?\d+|null)\s*""",
    re.VERBOSE,
)
_JOINT = re.compile(r"(AND|OR)\b", re.IGNORECASE)
_COMPARISONS = MappingProxyType(
    {
        ":": operator.eq,
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
    }
)


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition."""

    is_negated: bool
    field: str
    key: str | None
    comparison: str
    value: str | int | None

    def holds(self, body: JsonObject) -> bool:
        """Whether the object meets it."""
        found = body[self.field]
        if self.key is not None:
            found = found.get(self.key)
        return self._compares(found) is not self.is_negated

    def _compares(self, found: str | int | None) -> bool:
        if self.value is None or found is None:
            return self.value is found
        if isinstance(self.value, int):
            return bool(_COMPARISONS[self.comparison](found, self.value))
        text, wanted = str(found).casefold(), self.value.casefold()
        return wanted in text if self.comparison == "~" else wanted == text


def payment_intents(call: Call, books: Books) -> JsonObject:
    """Intents that meet a query, newest first; not those made a moment ago."""
    clauses, every = parse(call.parameters["query"])
    limit = limit_of(call)
    meets = all if every else any
    page = call.parameters.get("page")
    found = [
        stored.body
        for stored in books.store.select(
            "payment_intent",
            account=books.account,
            before=_place(page, books) if page else None,
            made_until=books.now - books.settings.search_delay,
        )
        if meets(clause.holds(stored.body) for clause in clauses)
    ]
    shown = found[:limit]
    answer: JsonObject = {
        "object": "search_result",
        "data": shown,
        "has_more": len(found) > limit,
        "next_page": shown[-1]["id"] if len(found) > limit else None,
        "url": call.path,
    }
    return answer


def parse(query: str) -> tuple[Sequence[Clause], bool]:
    """The clauses, and whether all of them must hold.

    Raises:
        ApiError: It is not a query, names a field that cannot be searched, or mixes AND and OR.
    """
    clauses, joints, at = list[Clause](), set[str](), 0
    while True:
        match = _CLAUSE.match(query, at)
        if match is None:
            raise _not_a_query(query)
        clauses.append(_clause(match, query))
        at = match.end()
        if at == len(query):
            break
        joint = _JOINT.match(query, at)
        if joint is None:
            raise _not_a_query(query)
        joints.add(joint[1].upper())
        at = joint.end()
    if len(joints) > 1:
        raise _not_a_query(query, "You can't combine AND and OR in the same query.")
    if len(clauses) > MAX_CLAUSES:
        raise _not_a_query(query, f"A query may have up to {MAX_CLAUSES} clauses.")
    return clauses, joints != {"OR"}


def _clause(match: re.Match[str], query: str) -> Clause:
    field, key, text = match["field"], match["key"], match["value"]
    if field not in TEXT_FIELDS | NUMBER_FIELDS:
        raise _not_a_query(query, f"Field `{field}` is an unsupported search field.")
    value: str | int | None
    if text == "null":
        value = None
    elif text[0] in "\"'":
        value = _unquoted(text)
    else:
        value = int(text)
    if (
        (key is not None) != (field == "metadata")
        or (isinstance(value, str) and field in NUMBER_FIELDS)
        or (isinstance(value, int) and field in TEXT_FIELDS)
        or not _fits(match["comparison"], value)
    ):
        raise _not_a_query(query)
    return Clause(
        is_negated=match["negated"] is not None,
        field=field,
        key=_unquoted(key) if key else None,
        comparison=match["comparison"],
        value=value,
    )


def _fits(comparison: str, value: str | float | None) -> bool:
    fitting: dict[type, Callable[[], bool]] = {
        str: lambda: comparison in {":", "~"},
        int: lambda: comparison != "~",
        type(None): lambda: comparison == ":",
    }
    return fitting[type(value)]()


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _place(page: str, books: Books) -> int | None:
    books.get("payment_intent", page, param="page")
    return books.store.sequence(page)


def _not_a_query(query: str, reason: str = "") -> ApiError:
    return invalid_request(
        reason
        or 'We were unable to parse your search query. Try using the format `metadata["key"]:'
        f'"value"` to query for metadata or key:"value" to query for other fields: {query}',
        param="query",
    )
