import base64
import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gateways.sandbox.sendgrid.rules import MAX_SECONDS_AHEAD, problems_of
from gateways.sandbox.sendgrid.shapes import MAIL_SEND, Fields, ListOf, Shape

Payload = dict[str, Any]

SPEC = Path(__file__).resolve().parents[5] / "shared/specs/sendgrid-mail-send.openapi.json"
NOW = 1_795_000_000.0
ENCODED = base64.b64encode(b"x").decode()


def changed(payload: Payload, path: str, value: object) -> Payload:
    """The payload with one value set at a dotted path; ``...`` removes it."""
    result = copy.deepcopy(payload)
    *parents, last = (int(step) if step.isdigit() else step for step in path.split("."))
    holder: Any = result
    for step in parents:
        holder = holder[step]
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return result


def attachment(**fields: object) -> list[Mapping[str, object]]:
    return [{"content": ENCODED, "filename": "a.pdf", **fields}]


REFUSED = [
    ("personalizations", ..., "personalizations"),
    ("personalizations", [], "personalizations"),
    ("personalizations", {}, "personalizations"),
    ("personalizations.0.to", ..., "personalizations.0.to"),
    ("personalizations.0.to", [], "personalizations.0.to"),
    ("personalizations.0.to.0", {}, "personalizations.0.to.0.email"),
    ("personalizations.0.to.0.email", "no at", "personalizations.0.to.0.email"),
    ("personalizations.0.to.0.email", "ä@maple.example", "personalizations.0.to.0.email"),
    ("personalizations.0.to.0.email", "a@maple.example\n", "personalizations.0.to.0.email"),
    ("personalizations.0.to.0.phone", "1", "personalizations.0.to.0"),
    ("personalizations.0.cc", [{"email": "AP@maple.example"}], "personalizations.0"),
    ("personalizations.0.custom_args", {"a": 1}, "personalizations.0.custom_args.a"),
    ("personalizations.0.subject", "", "personalizations.0.subject"),
    ("from", ..., "from.email"),
    ("from", {"name": "Bluebird"}, "from.email"),
    ("from.email", "billing", "from.email"),
    ("reply_to", {"email": "x"}, "reply_to.email"),
    ("subject", ..., "subject"),
    ("subject", "", "subject"),
    ("subject", "two\nlines", "subject"),
    ("subject", 5, "subject"),
    ("content", ..., "content"),
    ("content", [], "content"),
    ("content.0.value", "", "content.0.value"),
    ("content.0.type", ..., "content.0.type"),
    ("content.1.type", "text/plain", "content"),
    (
        "content",
        [{"type": "text/html", "value": "x"}, {"type": "text/plain", "value": "x"}],
        "content",
    ),
    ("attachments", attachment(content="not base64!"), "attachments.0.content"),
    ("attachments", attachment(content=""), "attachments.0.content"),
    ("attachments", attachment(filename=""), "attachments.0.filename"),
    ("attachments", attachment(disposition="shown"), "attachments.0.disposition"),
    ("attachments", attachment(type="a;b"), "attachments.0.type"),
    ("categories", [f"{n}" for n in range(11)], "categories"),
    ("categories", ["a", "a"], "categories"),
    ("categories", ["c" * 256], "categories.0"),
    ("custom_args", {"a": None}, "custom_args.a"),
    ("custom_args", {"a": "x" * 10_000}, "custom_args"),
    ("custom_args", "a", "custom_args"),
    ("headers", {"Subject": "x"}, "headers.Subject"),
    ("headers", {"X-Note": "a\r\nBcc: b@c.de"}, "headers.X-Note"),
    ("send_at", int(NOW) + MAX_SECONDS_AHEAD + 1, "send_at"),
    ("send_at", True, "send_at"),
    ("asm", {"groups_to_display": [1]}, "asm.group_id"),
    ("asm", {"group_id": 1, "groups_to_display": list(range(26))}, "asm.groups_to_display"),
    ("ip_pool_name", "x", "ip_pool_name"),
    ("mail_settings", {"sandbox_mode": {"enable": "yes"}}, "mail_settings.sandbox_mode.enable"),
    ("tracking", {}, "tracking"),
]
ACCEPTED = [
    ("content", [{"type": "text/html", "value": "x"}]),
    ("attachments", attachment(type="application/pdf", disposition="inline", content_id="logo")),
    ("categories", [f"{n}" for n in range(10)]),
    ("headers", {"X-Note": "a"}),
    ("send_at", int(NOW) + MAX_SECONDS_AHEAD),
    ("mail_settings", {"sandbox_mode": {"enable": True}}),
    ("reply_to_list", [{"email": "a@maple.example"}, {"email": "b@maple.example"}]),
    ("personalizations.0.bcc", [{"email": "b@maple.example"}]),
    ("template_id", "d-1"),
]


@pytest.mark.parametrize(("path", "value", "field"), REFUSED)
def test_what_sendgrid_refuses_is_refused_with_its_field(
    payload: Payload, path: str, value: object, field: str
) -> None:
    assert field in [
        problem.field for problem in problems_of(changed(payload, path, value), now=NOW)
    ]


@pytest.mark.parametrize(("path", "value"), ACCEPTED)
def test_what_sendgrid_takes_is_taken(payload: Payload, path: str, value: object) -> None:
    assert problems_of(changed(payload, path, value), now=NOW) == []


@pytest.mark.parametrize("value", [None, [], "mail", 5, 5.5, True])
def test_a_request_that_is_no_object_is_refused(value: object) -> None:
    (problem,) = problems_of(value, now=NOW)
    assert problem.message.startswith("Invalid type. Expected: object, given: ")
    assert problem.field is None


def test_a_thousand_recipients_are_the_limit(payload: Payload) -> None:
    def to(count: int) -> Payload:
        people = [{"to": [{"email": f"{n}@maple.example"}]} for n in range(count)]
        return {**payload, "personalizations": people}

    assert problems_of(to(1_000), now=NOW) == []
    assert len(problems_of(to(1_001), now=NOW)) == 2


@pytest.fixture
def specification() -> Mapping[str, Any]:
    """The vendor's own description of the request: ``schema``, ``examples``."""
    if not SPEC.exists():
        pytest.skip("the vendor's specification is not beside the project")
    spec = json.loads(SPEC.read_text())
    media = spec["components"]["requestBodies"]["PostMailSend"]["content"]["application/json"]
    return {
        "schema": {**media["schema"], "components": spec["components"]},
        "examples": [example["value"] for example in media["examples"].values()],
    }


def test_whatever_the_specification_refuses_we_refuse(
    payload: Payload, specification: Mapping[str, Any]
) -> None:
    validator = jsonschema_rs.validator_for(specification["schema"])
    assert validator.is_valid(payload)
    refused = [
        candidate
        for path, value, _field in REFUSED
        if not validator.is_valid(candidate := changed(payload, path, value))
    ]
    assert len(refused) > 15
    for candidate in refused:
        assert problems_of(candidate, now=NOW)
    for path, value in ACCEPTED:
        assert validator.is_valid(changed(payload, path, value))


def test_the_specification_s_own_examples_are_taken(specification: Mapping[str, Any]) -> None:
    assert specification["examples"]
    for example in specification["examples"]:
        assert problems_of(example, now=NOW) == []


def test_we_know_the_specification_s_fields_and_no_others(specification: Mapping[str, Any]) -> None:
    def fields(shape: Shape, path: str) -> Iterator[str]:
        match shape:
            case ListOf(item=item):
                yield from fields(item, f"{path}[]")
            case Fields(fields=known):
                for name, inner in known.items():
                    yield f"{path}.{name}"
                    yield from fields(inner, f"{path}.{name}")

    def specified(node: Mapping[str, Any], path: str) -> Iterator[str]:
        if "$ref" in node and "properties" not in node:
            node = specification["schema"]["components"]["schemas"][node["$ref"].rpartition("/")[2]]
        if node.get("type") == "array":
            yield from specified(node["items"], f"{path}[]")
        for name, inner in node.get("properties", {}).items():
            yield f"{path}.{name}"
            yield from specified(inner, f"{path}.{name}")

    assert set(fields(MAIL_SEND, "")) == set(specified(specification["schema"], ""))
