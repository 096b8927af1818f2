"""What happens by itself in a run, or by a request: how often it did."""

from collections import Counter
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
    "a page opened": "SELECT FROM payment_attempts WHERE checkout_session IS NOT NULL",
    "a page paid on": """
        SELECT FROM payment_attempts WHERE checkout_session IS NOT NULL AND state = 'succeeded'
    """,
    "a page that nobody paid on": """
        SELECT FROM payment_attempts WHERE checkout_session IS NOT NULL AND state = 'canceled'
    """,
    "a page that was paid on before it was closed for something else": """
        SELECT FROM payment_attempts AS pages JOIN jobs ON jobs.subject_id = pages.invoice_id
         WHERE checkout_session IS NOT NULL AND pages.state = 'succeeded'
           AND reason = 'payment_in_flight'
    """,
    "a charge that its client confirmed on a page": """
        SELECT FROM payment_attempts AS charges JOIN payment_attempts AS pages USING (invoice_id)
         WHERE charges.payment_method IS NOT NULL AND charges.decline_code = 'authentication_required'
           AND pages.checkout_session IS NOT NULL AND pages.state = 'succeeded'
           AND pages.id > charges.id
    """,
    "a card left on a page": "SELECT FROM card_setups WHERE state = 'completed'",
    "a charge at a connected Stripe account": """
        SELECT FROM payment_attempts AS attempts JOIN stripe_merchants ON merchant_id = stripe_merchants.id
         WHERE state = 'succeeded' AND stripe_account IS NOT NULL
    """,
    "a charge by a key of an account's own": """
        SELECT FROM payment_attempts AS attempts JOIN stripe_merchants ON merchant_id = stripe_merchants.id
         WHERE state = 'succeeded' AND sealed_key IS NOT NULL
    """,
    "a debit that the bank returned": """
        SELECT FROM payment_attempts AS attempts JOIN webhook_events AS events
            ON payload #>> '{data,object,id}' = payment_intent
         WHERE state = 'declined' AND type = 'payment_intent.processing'
    """,
    "a dispute that is open": "SELECT FROM disputes WHERE state = 'open'",
    "a dispute won": "SELECT FROM disputes WHERE state = 'won'",
    "a dispute lost": "SELECT FROM disputes WHERE state = 'lost'",
    "a refund that came back": """
        SELECT FROM refunds WHERE destination = 'card' AND state = 'failed'
           AND succeeded_at IS NOT NULL
    """,
    "a reconciliation": "SELECT FROM reconciliations WHERE finished_at IS NOT NULL",
    "a difference that reconciling mended": """
        SELECT FROM reconciliation_differences WHERE repaired
    """,
}
"""Rows that are there once it did, by what it is."""


def reached(engine: Engine) -> Counter[str]:
    """How often each happened."""
    with engine.connect() as connection:
        return Counter(
            {what: len(connection.execute(text(rows)).all()) for what, rows in REACHED.items()}
        )
