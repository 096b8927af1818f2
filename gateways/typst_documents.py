"""Typst, behind the DocumentRenderer protocol."""

import json
import threading
from dataclasses import asdict
from datetime import UTC, datetime, time
from pathlib import Path

import typst

from gateways.documents import CreditNoteDocument, InvoiceDocument, StatementDocument

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
INVOICE = TEMPLATES / "invoice" / "invoice.typ"
CREDIT_NOTE = TEMPLATES / "credit_note" / "credit_note.typ"
STATEMENT = TEMPLATES / "statement" / "statement.typ"
FONTS = TEMPLATES / "fonts"


class TypstDocuments:
    """Sets documents from ``templates/`` with the fonts beside them, and no others.

    The fonts have Latin, Greek, Cyrillic, Arabic, Hebrew, Chinese and Japanese. Where a text has a
    character of none of them (Korean, or an emoji), a box stands for it, and the file is an ordinary
    PDF instead of PDF/A-3b, which forbids that.
    """

    def __init__(self) -> None:
        self._fonts = typst.Fonts(
            include_system_fonts=False, include_embedded_fonts=False, font_paths=[FONTS]
        )
        self._of_this_thread = threading.local()

    def render_invoice_pdf(self, document: InvoiceDocument) -> bytes:
        """The PDF of an invoice; see ``DocumentRenderer``."""
        return self._render(INVOICE, document)

    def render_credit_note_pdf(self, document: CreditNoteDocument) -> bytes:
        """The PDF of a credit note; see ``DocumentRenderer``."""
        return self._render(CREDIT_NOTE, document)

    def render_statement_pdf(self, document: StatementDocument) -> bytes:
        """The PDF of a client's statement; see ``DocumentRenderer``."""
        return self._render(STATEMENT, document)

    def _render(
        self, template: Path, document: InvoiceDocument | CreditNoteDocument | StatementDocument
    ) -> bytes:
        data = json.dumps(asdict(document), default=str, sort_keys=True)
        issued_at = datetime.combine(document.issued_on, time(), UTC)
        try:
            return self._compile(template, data, issued_at, archival=True)
        except typst.TypstError as error:
            if "could not be displayed" not in str(error):
                raise
            return self._compile(template, data, issued_at, archival=False)

    def _compile(self, template: Path, data: str, issued_at: datetime, *, archival: bool) -> bytes:
        pdf = self._compiler(template).compile(
            format="pdf",
            sys_inputs={"document": data},
            pdf_standards=["a-3b"] if archival else [],
            timestamp=issued_at,
        )
        if not isinstance(pdf, bytes):
            raise TypeError("a PDF is one file")
        return pdf

    def _compiler(self, template: Path) -> typst.Compiler:
        """One of this thread's own: it keeps what it has read, and is not safe to share."""
        if not hasattr(self._of_this_thread, "compilers"):
            self._of_this_thread.compilers = {}
        compilers: dict[Path, typst.Compiler] = self._of_this_thread.compilers
        if template not in compilers:
            compilers[template] = typst.Compiler(template, root=TEMPLATES, font_paths=self._fonts)
        return compilers[template]
