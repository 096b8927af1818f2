"""The application: every route, and what holds for all of them."""

import asyncio
from typing import Any

from fastapi import Depends, FastAPI
from sqlalchemy import Engine
from typing_extensions import override

from api import (
    account,
    aging,
    api_keys,
    billing_methods,
    billing_periods,
    billing_runs,
    books,
    charges,
    client_pages,
    clients,
    credit,
    credit_grants,
    credit_notes,
    credit_refunds,
    differences,
    disputes,
    draft_editing,
    health,
    hosted_invoices,
    invoice_commands,
    invoices,
    jobs,
    ledger_entries,
    mails,
    metrics,
    pages,
    payments,
    portal_links,
    queues,
    reconciliations,
    recovery,
    refunds,
    schedules,
    statements,
    stripe_keys,
    tax_rates,
    webhooks,
)
from api.body_limit import BodyLimit
from api.idempotency import AnsweredBefore, answer_again
from api.parameters import only_declared
from api.problems import HANDLERS, Problem
from api.webhooks import EventReaders
from gateways.sealing import Seal
from gateways.typst_documents import TypstDocuments
from tasks.links import Links

CONCURRENT_REQUESTS = 16
"""Requests that hold a connection at once, by default; others wait for their turn."""

_DESCRIPTION = """\
Records charges, bills them on each client's cycle or on demand, and keeps the books.

Amounts are integers in the currency's minor unit; `unit_price` and `quantity` are decimal texts.
Commands on invoices, payments, credit and runs answer 202 with a job; `Prefer: wait=N` waits for it. Every POST
takes an `Idempotency-Key`, but those of the vendors' webhooks. Refusals are problem documents (RFC 9457) with a stable `code`.
"""


class Api(FastAPI):
    """FastAPI, with the problem document among the schemas."""

    @override
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            components = document["components"]["schemas"]
            components.update(schema.pop("$defs"))
            components["Problem"] = schema
        return super().openapi()


def create_app(
    engine: Engine,
    *,
    concurrent_requests: int = CONCURRENT_REQUESTS,
    event_readers: EventReaders | None = None,
    links: Links | None = None,
    seal: Seal | None = None,
) -> FastAPI:
    """The API on ``engine``, which needs some connections more than ``concurrent_requests``.

    Without ``event_readers`` the vendors' webhooks are refused for now; without ``links`` there
    are none to the clients' own pages; without ``seal`` no account's own Stripe key is taken.
    """
    app = Api(
        title="Duecourse",
        version=pages.VERSION,
        description=_DESCRIPTION,
        # Its documentation pages would load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={
            **HANDLERS,
            AnsweredBefore: answer_again,
            client_pages.PageRefused: client_pages.answer_instead,
        },
    )
    app.state.engine = engine
    app.state.turns = asyncio.Semaphore(concurrent_requests)
    app.state.event_readers = event_readers or EventReaders()
    app.state.links = links
    app.state.seal = seal
    app.state.documents = TypstDocuments()
    app.add_middleware(BodyLimit)
    for resource in (
        clients,
        billing_methods,
        portal_links,
        billing_periods,
        credit,
        tax_rates,
        credit_grants,
        credit_refunds,
        disputes,
        charges,
        invoices,
        invoice_commands,
        draft_editing,
        credit_notes,
        payments,
        refunds,
        mails,
        billing_runs,
        jobs,
        queues,
        schedules,
        account,
        stripe_keys,
        api_keys,
        aging,
        books,
        ledger_entries,
        reconciliations,
        differences,
        recovery,
        statements,
    ):
        app.include_router(resource.router, dependencies=[Depends(only_declared)])
    for page in (webhooks, health, metrics, pages, client_pages, hosted_invoices):
        app.include_router(page.router)
    return app
