"""How long the texts that callers give may be, in characters."""

from billing.errors import InvalidInput

MAX_SHORT = 255
"""Names, references, categories: one line. An index entry has room for it in any script."""

MAX_LONG = 1_000
"""Descriptions and values of metadata."""


def require_text(field: str, text: str, most: int) -> str:
    """``text``, if it is not blank, holds no zero byte and has at most ``most`` characters.

    Raises:
        InvalidInput: It is not so; the error names the field.
    """
    if not text.strip():
        raise InvalidInput(field, "must not be empty")
    if len(text) > most:
        raise InvalidInput(field, f"must be at most {most:,} characters")
    if "\x00" in text:
        # PostgreSQL keeps no text that holds one.
        raise InvalidInput(field, "must not hold a zero byte")
    return text
