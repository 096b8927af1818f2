"""What Stripe says when it refuses."""

from collections.abc import Iterable, Mapping
from typing import Any

JsonObject = dict[str, Any]

DOCUMENTATION = "https://docs.stripe.com/error-codes/"


class ApiError(Exception):
    """An answer other than 200.

    Args:
        status: The HTTP status.
        kind: Stripe's ``type``: ``invalid_request_error``, ``card_error``, ``api_error``,
            ``idempotency_error`` or, for a wrong key, ``invalid_request_error`` again.
        message: For people; Stripe's words where they are known.
        code: Stripe's code, and ``param`` the parameter it is about.
        details: Further members of the error object, such as ``payment_intent``.
        keeps_effects: Whether what the request did stands: a declined card leaves a failed charge.
        is_saved: Whether the answer is kept under the idempotency key. Stripe keeps what an
            endpoint answered once it began, and nothing that was refused before.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        details: Mapping[str, object] | None = None,
        keeps_effects: bool = False,
        is_saved: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.keeps_effects = keeps_effects
        self.is_saved = is_saved
        self.headers = dict(headers or {})
        members = {
            "type": kind,
            "message": message,
            "code": code,
            "doc_url": DOCUMENTATION + code.replace("_", "-") if code else None,
            "param": param,
            **(details or {}),
        }
        # Unlike in other objects, Stripe leaves out what is null.
        self.body: JsonObject = {
            "error": {name: value for name, value in members.items() if value is not None}
        }


def invalid_request(
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    details: Mapping[str, object] | None = None,
) -> ApiError:
    """Refused by the endpoint: 400, kept under the idempotency key."""
    return ApiError(400, "invalid_request_error", message, code=code, param=param, details=details)


def malformed(message: str, param: str, code: str | None = None) -> ApiError:
    """Refused before the endpoint began: 400, and the idempotency key stays free."""
    return ApiError(400, "invalid_request_error", message, code=code, param=param, is_saved=False)


def unknown_parameter(param: str) -> ApiError:
    """The operation takes no such parameter."""
    return malformed(f"Received unknown parameter: {param}", param, "parameter_unknown")


def missing_parameter(param: str) -> ApiError:
    """The operation needs it."""
    return malformed(f"Missing required param: {param}.", param, "parameter_missing")


def not_one_of(param: str, choices: Iterable[str]) -> ApiError:
    """A value that is none of Stripe's words."""
    *most, last = sorted(choices)
    listed = f"{', '.join(most)}, or {last}" if most else last
    return malformed(f"Invalid {param}: must be one of {listed}", param)


def no_such(kind: str, key: str, param: str, *, in_path: bool) -> ApiError:
    """Nothing by that id in this account: 404 for the object asked for, 400 for one it names."""
    return ApiError(
        404 if in_path else 400,
        "invalid_request_error",
        f"No such {kind}: '{key}'",
        code="resource_missing",
        param=param,
    )


def unrecognized_url(method: str, path: str) -> ApiError:
    """No operation is there, at Stripe or in the sandbox."""
    return ApiError(
        404,
        "invalid_request_error",
        f"Unrecognized request URL ({method}: {path}). If you are trying to list objects, remove "
        "the trailing slash. If you are trying to retrieve an object, make sure you passed a valid "
        "(non-empty) identifier in your code.",
        is_saved=False,
    )


def wrong_key(given: str | None) -> ApiError:
    """Not a secret test key; a live one is never welcome here."""
    message = (
        "You did not provide an API key. You need to provide your API key in the Authorization "
        "header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
        if given is None
        else f"Invalid API Key provided: {given[:8]}***"
    )
    return ApiError(401, "invalid_request_error", message, is_saved=False)


def other_parameters(key: str) -> ApiError:
    """The key's first use had other parameters or another path."""
    return ApiError(
        400,
        "idempotency_error",
        "Keys for idempotent requests can only be used with the same parameters they were first "
        f"used with. Try using a key other than '{key}' if you meant to execute a different "
        "request.",
        is_saved=False,
    )


def key_in_use(key: str) -> ApiError:
    """A request with this key has not been answered yet."""
    return ApiError(
        409,
        "idempotency_error",
        "There is currently another in-progress request using this Idempotent Key (that probably "
        f"means you submitted twice, and the other request is still going through): {key}. Please "
        "try again later.",
        code="idempotency_key_in_use",
        is_saved=False,
    )


def too_many_requests(code: str = "rate_limit", retry_after: int | None = None) -> ApiError:
    """Slow down. Nothing happened and nothing is kept."""
    message = (
        "This object cannot be accessed right now because another API request or Stripe process "
        "is currently accessing it."
        if code == "lock_timeout"
        else "Request rate limit exceeded. Learn more about rate limits here "
        "https://docs.stripe.com/rate-limits."
    )
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return ApiError(
        429, "invalid_request_error", message, code=code, is_saved=False, headers=headers
    )


def server_error(*, is_saved: bool) -> ApiError:
    """Stripe's own failure. A kept one is answered again under its key, so it is not retried."""
    return ApiError(
        500,
        "api_error",
        "Sorry! There was an error while talking to Stripe. Please let us know at "
        "support@stripe.com if this keeps happening.",
        is_saved=is_saved,
        headers={"Stripe-Should-Retry": "false"} if is_saved else {},
    )
