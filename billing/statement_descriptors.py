"""What a charge says on the cardholder's statement, behind the name of who charges."""

import unicodedata

MAX_DESCRIPTOR = 22
"""Of Stripe's: the merchant's prefix, ``* `` and the suffix."""

MAX_PREFIX = 10

MAX_SUFFIX = MAX_DESCRIPTOR - MAX_PREFIX - len("* ")
"""What fits behind any prefix: Stripe cuts a longer one."""

_NAMELESS = "INV"
_FOR_CREDIT = "CREDIT"
_LEAST_OF_NAME = 3


def statement_suffix(account_name: str, invoice_number: str | None) -> str:
    """The suffix for a charge of an invoice, or for credit: the number, and the name before it.

    At most ``MAX_SUFFIX`` capital Latin letters, digits, spaces, hyphens and dots, of which one
    at least is a letter. Of a long number the end is kept, which tells it from others.
    """
    name = _kept(account_name)
    name = name if _has_letter(name) else _NAMELESS
    number = _FOR_CREDIT if invoice_number is None else _kept(invoice_number)
    room = MAX_SUFFIX - len(number) - 1
    if _has_letter(number) and room < _LEAST_OF_NAME:
        # Its end may be digits alone.
        end = _trimmed(number[-MAX_SUFFIX:])
        if _has_letter(end):
            return end
    if not number:
        return _trimmed(name[:MAX_SUFFIX])
    number = _trimmed(number[-(MAX_SUFFIX - _LEAST_OF_NAME - 1) :])
    start = _trimmed(name[: MAX_SUFFIX - len(number) - 1])
    start = start if _has_letter(start) else _NAMELESS
    return f"{start} {number}".strip()


def _kept(text: str) -> str:
    """What of a text a statement can show, in capitals: letters without their accents."""
    plain = unicodedata.normalize("NFKD", text).upper()
    shown = "".join(one if _is_shown(one) else " " for one in plain if not _is_accent(one))
    return _trimmed(" ".join(shown.split()))


def _is_shown(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character in "-.")


def _is_accent(character: str) -> bool:
    return unicodedata.combining(character) != 0


def _trimmed(text: str) -> str:
    return text.strip(" -.")


def _has_letter(text: str) -> bool:
    return any(one.isalpha() for one in text)
