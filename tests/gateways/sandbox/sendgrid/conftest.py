import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3

from gateways.sandbox.sendgrid.sandbox import SendGridSandbox

Payload = dict[str, Any]
Post = Callable[..., urllib3.BaseHTTPResponse]


@pytest.fixture
def payload() -> Payload:
    """A mail that SendGrid accepts, with a custom argument ``mail`` of its own."""
    return {
        "personalizations": [{"to": [{"email": "ap@maple.example", "name": "Maple & Oak"}]}],
        "from": {"email": "billing@bluebird.example", "name": "Bluebird Prep"},
        "subject": "Invoice Ready For Payment",
        "content": [
            {"type": "text/plain", "value": "You owe $5."},
            {"type": "text/html", "value": "<p>You owe $5.</p>"},
        ],
        "custom_args": {"mail": secrets.token_hex(8)},
    }


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(5.0)) as pool:
        yield pool


@pytest.fixture
def post(sendgrid: SendGridSandbox, pool: urllib3.PoolManager) -> Post:
    """Posts a payload, or raw bytes, to the session's SendGrid."""

    def post(
        payload: object,
        *,
        url: str | None = None,
        key: str | None = "SG.test.key",
        content_type: str = "application/json",
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Content-Type": content_type}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return pool.request(
            "POST", f"{url or sendgrid.url}/v3/mail/send", body=body, headers=headers
        )

    return post
