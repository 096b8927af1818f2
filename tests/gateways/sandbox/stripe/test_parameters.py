import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateways.sandbox.stripe.control import StripeSandboxControl
from gateways.sandbox.stripe.server import StripeSandbox

PAYMENT = "amount=500&currency=usd"


def post(
    sandbox: StripeSandbox, path: str, body: str, method: str = "POST"
) -> tuple[int, dict[str, Any]]:
    """The status and the error, without the SDK's own checks."""
    connection = http.client.HTTPConnection(urlsplit(sandbox.url).netloc, timeout=10)
    connection.request(method, path, body, {"Authorization": "Bearer sk_test_raw"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer.get("error", {})


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (f"{PAYMENT}&colour=red", "parameter_unknown", "colour"),
        (
            f"{PAYMENT}&automatic_payment_methods[enabled]=true&automatic_payment_methods[x]=1",
            "parameter_unknown",
            "automatic_payment_methods[x]",
        ),
        (f"{PAYMENT}&payment_method_types[]=card", "parameter_unknown", "payment_method_types"),
        ("currency=usd", "parameter_missing", "amount"),
        ("amount=500", "parameter_missing", "currency"),
        (
            f"{PAYMENT}&automatic_payment_methods[allow_redirects]=never",
            "parameter_missing",
            "automatic_payment_methods[enabled]",
        ),
        ("amount=5.00&currency=usd", "parameter_invalid_integer", "amount"),
        ("amount=1e3&currency=usd", "parameter_invalid_integer", "amount"),
        ("amount=&currency=usd", "parameter_invalid_empty", "amount"),
        (f"{PAYMENT}&customer=", "parameter_invalid_empty", "customer"),
        (f"{PAYMENT}&confirm=yes", None, "confirm"),
        (f"{PAYMENT}&confirm=true&off_session=maybe", None, "off_session"),
        (f"{PAYMENT}&capture_method=manual", None, "capture_method"),
        (f"{PAYMENT}&setup_future_usage=never", None, "setup_future_usage"),
        (f"{PAYMENT}&metadata=x", None, "metadata"),
        (f"{PAYMENT}&metadata[a][b]=x", None, "metadata[a]"),
        (f"{PAYMENT}&metadata[{'k' * 41}]=x", None, "metadata"),
        (f"{PAYMENT}&metadata[k]={'x' * 501}", None, "metadata[k]"),
        (f"{PAYMENT}&" + "&".join(f"metadata[k{n}]=x" for n in range(51)), None, "metadata"),
        (f"{PAYMENT}&expand=customer", None, "expand"),
        (f"{PAYMENT}&customer[id]=x", None, "customer"),
        (f"{PAYMENT}&description={'x' * 5001}", None, "description"),
        (f"{PAYMENT}&amount=600", None, "amount"),
        (f"{PAYMENT}&metadata[a=1", None, "metadata[a"),
        (f"{PAYMENT}&metadata=1&metadata[a]=1", None, "metadata[a]"),
        (f"{PAYMENT}&description=%ff", None, ""),
    ],
)
def test_a_request_that_stripe_would_not_understand_is_refused(
    sandbox: StripeSandbox,
    control: StripeSandboxControl,
    body: str,
    code: str | None,
    param: str,
) -> None:
    status, error = post(sandbox, "/v1/payment_intents", body)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert (error.get("code"), error["param"]) == (code, param)
    # Not by their number: another test's request may end just now.
    assert control.requests(path="/v1/payment_intents")[-1].object_id is None


def test_metadata_at_its_limits_is_taken(sandbox: StripeSandbox) -> None:
    most = "&".join(f"metadata[{n:040}]={'x' * 500}" for n in range(50))
    assert post(sandbox, "/v1/payment_intents", f"{PAYMENT}&{most}")[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/balance"),
        ("POST", "/v1/charges"),
        ("DELETE", "/v1/payment_intents/pi_1"),
        ("GET", "/v1/customers/"),
        ("GET", "/"),
    ],
)
def test_there_is_nothing_at_other_addresses(
    sandbox: StripeSandbox, method: str, path: str
) -> None:
    status, error = post(sandbox, path, "", method)
    assert status == 404
    assert f"Unrecognized request URL ({method}: {path})" in error["message"]


def test_a_request_without_a_key_is_told_how_to_give_one(sandbox: StripeSandbox) -> None:
    connection = http.client.HTTPConnection(urlsplit(sandbox.url).netloc, timeout=10)
    connection.request("GET", "/v1/customers")
    response = connection.getresponse()
    assert response.status == 401
    assert "You did not provide an API key" in response.read().decode()
    connection.close()
