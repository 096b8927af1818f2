"""Document numbers, as people read them."""

from enum import StrEnum


class DocumentType(StrEnum):
    """A kind of numbered document; each has its own gapless series per account."""

    INVOICE = "invoice"


_PREFIXES = {DocumentType.INVOICE: "INV"}


def format_number(document: DocumentType, sequence: int) -> str:
    """The number of the ``sequence``-th document: ``INV-000001``, wider past six digits.

    Raises:
        ValueError: ``sequence`` is below 1.
    """
    if sequence < 1:
        raise ValueError("a series of documents starts at 1")
    return f"{_PREFIXES[document]}-{sequence:06}"
