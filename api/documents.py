"""Documents as answers: set when the transaction that read them has ended."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from fastapi import Depends, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api.operations import Responses
from gateways.documents import (
    CreditNoteDocument,
    DocumentRenderer,
    InvoiceDocument,
    StatementDocument,
)


def documents_of(request: Request) -> DocumentRenderer:
    """What sets the application's documents."""
    documents: DocumentRenderer = request.app.state.documents
    return documents


DocumentsOf = Annotated[DocumentRenderer, Depends(documents_of)]


class PdfAnswer(Response):
    """The PDF of a document, set while it is sent: no connection to the database waits for it."""

    media_type = "application/pdf"

    def __init__(
        self,
        documents: DocumentRenderer,
        document: InvoiceDocument | CreditNoteDocument | StatementDocument,
        filename: str,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self._added = headers
        self._documents = documents
        self._document = document
        self._filename = filename

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pdf = await run_in_threadpool(self._render)
        headers = {
            "Content-Disposition": f'inline; filename="{self._filename}"',
            "Cache-Control": "private, no-store",
            **self._added,
        }
        await Response(pdf, headers=headers, media_type=self.media_type)(scope, receive, send)

    def _render(self) -> bytes:
        if isinstance(self._document, StatementDocument):
            return self._documents.render_statement_pdf(self._document)
        if isinstance(self._document, CreditNoteDocument):
            return self._documents.render_credit_note_pdf(self._document)
        return self._documents.render_invoice_pdf(self._document)


PDF: Responses = {
    200: {
        "description": "The document",
        "content": {
            "application/pdf": {
                "schema": {"type": "string", "format": "binary"},
                "example": "%PDF-1.7 ...",
            }
        },
    }
}
"""What OpenAPI says of a document."""
