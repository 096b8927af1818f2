"""What happens by itself in a run, or by a request: whether it did."""

from collections.abc import Mapping

from sqlalchemy import Engine, text

REACHED: Mapping[str, str] = {
    "a tax on top": "SELECT FROM invoice_taxes WHERE tax > 0 AND NOT inclusive",
    "a tax in a price": "SELECT FROM invoice_taxes WHERE tax > 0 AND inclusive",
    "a review that ends by itself": """
        SELECT FROM jobs WHERE kind = 'finalize_reviewed' AND result -> 'invoices' <> '[]'
    """,
    "a top-up": "SELECT FROM payment_attempts WHERE purpose = 'top_up' AND state = 'succeeded'",
    "an amendment": "SELECT FROM charges WHERE amends IS NOT NULL",
    "an amendment that is billed": """
        SELECT FROM charges JOIN invoices ON invoices.id = invoice_id
         WHERE amends IS NOT NULL AND number IS NOT NULL
    """,
    "an entry for closed books": """
        SELECT FROM ledger_entries JOIN invoices ON invoices.id = invoice_id
         WHERE event = 'finalize' AND effective_on <> issued_on
    """,
    "a copy that is billed": """
        SELECT FROM charges JOIN invoices ON invoices.id = invoice_id
         WHERE copy_of IS NOT NULL AND number IS NOT NULL
    """,
    "a refund at Stripe": "SELECT FROM refunds WHERE destination = 'card' AND state = 'succeeded'",
    "a note for a void": """
        SELECT FROM credit_notes JOIN invoices ON invoices.id = invoice_id WHERE status = 'void'
    """,
}
"""Rows that are there once it did, by what it is."""


def never_reached(engine: Engine) -> list[str]:
    """What did not happen, in words."""
    with engine.connect() as connection:
        return [
            what
            for what, rows in REACHED.items()
            if not connection.scalar(text(f"SELECT EXISTS ({rows})"))
        ]
