"""The pages of checkout sessions, as a client sees them: plain forms, with test cards to choose."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from jinja2 import Environment, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from gateways.sandbox.stripe import sessions
from gateways.sandbox.stripe.amounts import money
from gateways.sandbox.stripe.behaviours import TEST_PAYMENT_METHODS
from gateways.sandbox.stripe.books import Books
from gateways.sandbox.stripe.errors import ApiError, JsonObject
from gateways.sandbox.stripe.forms import pairs
from gateways.sandbox.stripe.settings import Settings
from gateways.sandbox.stripe.store import Store

# In the order of the page, by what a person wants to see happen.
CARDS = {
    "pm_card_visa": "Visa ending in 4242",
    "pm_card_mastercard": "Mastercard ending in 4444",
    "pm_card_amex": "American Express ending in 0005",
    "pm_card_authenticationRequired": "Visa ending in 3184, the bank asks whether it is you",
    "pm_card_chargeDeclinedInsufficientFunds": "Visa ending in 9995, declined: insufficient funds",
    "pm_card_chargeDeclinedExpiredCard": "Visa ending in 0069, declined: expired",
    "pm_card_chargeDeclinedStolenCard": "Visa ending in 9979, declined: stolen",
    "pm_card_chargeCustomerFail": "Visa ending in 0341, declined: the bank gives no reason",
    "pm_usBankAccount_success": "US bank account ending in 6789",
    "pm_usBankAccount_insufficientFunds": "US bank account ending in 2227, returned later",
}

_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 28rem; margin: 3rem auto; padding: 0 1rem;
         color: #1a1f36; }
  .amount { font-size: 2rem; margin: 0; }
  .note { color: #596171; }
  .refused { color: #b3093c; }
  label { display: block; padding: .25rem 0; }
  fieldset { border: 1px solid #d5dbe1; border-radius: 6px; margin: 1rem 0; }
  button { font: inherit; padding: .6rem 1.2rem; border: 0; border-radius: 6px; background: #0a5bd3;
           color: #fff; margin-right: .5rem; }
</style>
</head>
<body>
<main>
<p class="note">The sandbox's Stripe: no money moves here.</p>
<h1>{{ title }}</h1>
{% if refusal %}<p class="refused" role="alert">{{ refusal }}</p>{% endif %}
{% if amount %}<p class="amount">{{ amount }}</p>{% endif %}
{% if name %}<p>{{ name }}</p>{% endif %}
{% if is_asked %}
<form method="post">
<p>Your bank asks whether it is you.</p>
<button name="authenticates" value="yes">It is me</button>
<button name="authenticates" value="no">It is not me</button>
</form>
{% elif cards %}
<form method="post">
<fieldset>
<legend>Payment method</legend>
{% for card, label in cards %}
<label><input type="radio" name="card" value="{{ card }}"{% if loop.first %} checked{% endif %}>
{{ label }}</label>
{% endfor %}
</fieldset>
<button>{{ press }}</button>
</form>
{% endif %}
{% if back %}<p><a href="{{ back }}">Back</a></p>{% endif %}
</main>
</body>
</html>
"""
_PAGE = Environment(autoescape=True, undefined=StrictUndefined).from_string(_FRAME)


@dataclass(frozen=True, slots=True)
class HostedPages:
    """The pages' answers.

    Args:
        store: Where everything is kept.
        wake: Called when there may be something to deliver.
    """

    store: Store
    wake: Callable[[], None]

    def routes(self) -> list[Route]:
        """All of them."""
        path = sessions.PAGES + "/{session}"
        return [
            Route(path, self._show, methods=["GET"]),
            Route(path, self._use, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        session_id = request.path_params["session"]
        books = self._books(session_id)
        if books is None:
            return _page("There is no such page", status=404)
        return _shown(session_id, books)

    async def _use(self, request: Request) -> Response:
        session_id = request.path_params["session"]
        books = self._books(session_id)
        if books is None:
            return _page("There is no such page", status=404)
        body = await request.body()
        try:
            given = dict(pairs(body))
            with self.store.transaction():
                session = _used(session_id, given, books)
        except ApiError as error:
            return _shown(session_id, books, refusal=str(error))
        self.wake()
        if session["status"] == "complete":
            return _sent_to(session["success_url"], session)
        # Shown by another request, so that reloading the page tries nothing again.
        return RedirectResponse(request.url.path, status_code=303)

    def _books(self, session_id: str) -> Books | None:
        """Those of the session's account, if there is such a session."""
        found = self.store.find(session_id)
        if found is None or found.body["object"] != "checkout.session":
            return None
        return Books(self.store, Settings.of(self.store.settings()), found.account, time.time())


def _used(session_id: str, given: dict[str, str], books: Books) -> JsonObject:
    if "authenticates" in given:
        is_successful = given["authenticates"] == "yes"
        return sessions.authenticate(books, session_id, is_successful=is_successful)
    return sessions.use(books, session_id, given.get("card", ""))


def _shown(session_id: str, books: Books, *, refusal: str | None = None) -> Response:
    session = books.get("checkout.session", session_id, param="session")
    if session["status"] == "complete":
        return _page("You are done here", back=_target(session["success_url"], session))
    back = _target(session["cancel_url"], session) if session["cancel_url"] else None
    if session["status"] == "expired":
        return _page("This page has expired", back=back)
    is_payment = session["mode"] == "payment"
    return _page(
        "Pay" if is_payment else "Save a card",
        refusal=refusal or sessions.refusal(books, session),
        amount=_amount(session) if is_payment else None,
        name=books.hidden(session_id)["name"],
        is_asked=sessions.waits_for_holder(books, session),
        cards=[
            (card, label)
            for card, label in CARDS.items()
            if TEST_PAYMENT_METHODS[card].type in session["payment_method_types"]
        ],
        press="Pay" if is_payment else "Save card",
        back=back,
    )


def _page(
    title: str,
    *,
    status: int = 200,
    refusal: str | None = None,
    amount: str | None = None,
    name: str | None = None,
    is_asked: bool = False,
    cards: list[tuple[str, str]] | None = None,
    press: str = "",
    back: str | None = None,
) -> Response:
    text = _PAGE.render(
        title=title,
        refusal=refusal,
        amount=amount,
        name=name,
        is_asked=is_asked,
        cards=cards,
        press=press,
        back=back,
    )
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


def _amount(session: JsonObject) -> str:
    return money(session["amount_total"], session["currency"]).upper()


def _target(url: str, session: JsonObject) -> str:
    """One of the caller's addresses, with the session's id where it asks for it."""
    return url.replace("{CHECKOUT_SESSION_ID}", session["id"])


def _sent_to(url: str, session: JsonObject) -> Response:
    return RedirectResponse(_target(url, session), status_code=303)
