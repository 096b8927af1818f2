"""What must be true of invoices, books, credit, payments and mails at any time, as queries."""

from tasks.movements import movements_of

_MOVEMENTS = movements_of(
    "client_id IN (SELECT id FROM clients WHERE account_id = :account)"
).replace(":zone", "'UTC'")

# Each query returns a row (subject, found) for every place where its rule is broken, of the account
# ``:account`` and as of ``:now``.
CHECKS = {
    "ledger_entries_balance": """
        SELECT entries.id::text, concat('sides sum to ', sum(amount), ' ', entries.currency)
          FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
         WHERE entries.account_id = :account
         GROUP BY entries.id HAVING sum(amount) <> 0
    """,
    "invoices_agree_with_ledger": """
        SELECT invoices.id::text,
               concat(number, ' is due ', amount_due, ', its receivable is ',
                      COALESCE(booked.amount, 0), ' ', invoices.currency)
          FROM invoices LEFT JOIN (
               SELECT entries.invoice_id, sum(amount) AS amount
                 FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
                WHERE entries.account_id = :account AND ledger_account = 'receivable'
                GROUP BY entries.invoice_id) AS booked ON booked.invoice_id = invoices.id
         WHERE account_id = :account AND status <> 'draft'
           AND COALESCE(booked.amount, 0) <> amount_due
    """,
    "finalized_invoices_are_posted_once": """
        SELECT invoices.id::text, concat(number, ' has ', count(entries.id), ' finalize entries')
          FROM invoices LEFT JOIN ledger_entries AS entries
            ON entries.invoice_id = invoices.id AND entries.event = 'finalize'
         WHERE invoices.account_id = :account AND status <> 'draft'
         GROUP BY invoices.id
        HAVING count(entries.id) <> (invoices.subtotal <> 0 OR EXISTS (
               SELECT FROM invoice_taxes AS taxes
                WHERE taxes.invoice_id = invoices.id AND taxes.tax <> 0))::int
    """,
    # An entry's sides stand in this order: receivable, revenue, tax, credit, promotion, adjustment,
    # stripe, outside, bad_debt, disputed, dispute_loss. How much credit an invoice uses is for the
    # rules of credit to say.
    "entries_follow_the_postings_table": """
        SELECT entries.id::text,
               concat(event, ' of ', COALESCE(invoices.number, entries.payment_id::text, 'a balance'),
                      ' posts (', array_to_string(posted, ', '), ') and not (',
                      array_to_string(wanted, ', ', '?'), ') ', entries.currency)
          FROM (SELECT entries.*, ARRAY[
                       COALESCE(sum(amount) FILTER (WHERE ledger_account = 'receivable'), 0),
                       COALESCE(sum(amount) FILTER (WHERE ledger_account = 'revenue'), 0),
                       COALESCE(sum(amount) FILTER (WHERE ledger_account = 'tax'), 0),
                       COALESCE(sum(amount) FILTER (WHERE ledger_account = 'credit'), 0),
                       COALESCE(sum(amount) FILTER (WHERE ledger_account = 'promotion'), 0),
                       COALESCE(sum(amount) FILTER (WHERE ledger_account = 'adjustment'), 0),
                       COALESCE(sum(amount) FILTER (WHERE ledger_account = 'stripe'), 0),
                       COALESCE(sum(amount) FILTER (WHERE ledger_account = 'outside'), 0),
                       COALESCE(sum(amount) FILTER (WHERE ledger_account = 'bad_debt'), 0),
                       COALESCE(sum(amount) FILTER (WHERE ledger_account = 'disputed'), 0),
                       COALESCE(sum(amount) FILTER (WHERE ledger_account = 'dispute_loss'), 0)
                       ]::bigint[] AS posted
                  FROM ledger_entries AS entries LEFT JOIN ledger_postings ON entry_id = entries.id
                 WHERE entries.account_id = :account
                 GROUP BY entries.id) AS entries
          LEFT JOIN invoices ON invoices.id = entries.invoice_id
           AND invoices.client_id = entries.client_id AND invoices.currency = entries.currency
          LEFT JOIN payments ON payments.id = entries.payment_id
           AND payments.client_id = entries.client_id AND payments.currency = entries.currency
          LEFT JOIN credit_notes AS notes ON notes.id = entries.credit_note_id
           AND notes.invoice_id = entries.invoice_id
          LEFT JOIN refunds ON refunds.id = entries.refund_id
           AND refunds.client_id = entries.client_id AND refunds.currency = entries.currency
          LEFT JOIN disputes ON disputes.id = entries.dispute_id
           AND disputes.client_id = entries.client_id AND disputes.currency = entries.currency
         CROSS JOIN LATERAL (SELECT NULLIF(posted[4], 0) AS credit, NULLIF(posted[9], 0) AS lost,
                                    COALESCE(returned_to, destination) AS gone_to) AS moved
         CROSS JOIN LATERAL (SELECT
               COALESCE(returned, refunds.amount) * (gone_to = 'credit')::int AS to_credit,
               COALESCE(returned, refunds.amount) * (gone_to = 'card')::int AS to_card,
               COALESCE(returned, refunds.amount) * (gone_to = 'outside')::int AS to_outside)
               AS given_back
         CROSS JOIN LATERAL (SELECT CASE event
               WHEN 'finalize' THEN ARRAY[GREATEST(total, 0), -subtotal, -invoices.tax,
                                          LEAST(total, 0), 0, 0, 0, 0, 0]
               WHEN 'void' THEN ARRAY[credit_applied + amount_paid - amount_refunded - total,
                                      subtotal, invoices.tax,
                                      amount_lost + amount_refunded - credit_applied - amount_paid,
                                      0, 0, 0, 0, 0]
               WHEN 'apply_credit' THEN ARRAY[-credit, 0, 0, credit, 0, 0, 0, 0, 0]
               WHEN 'carry' THEN ARRAY[-credit, 0, 0, abs(credit), 0, 0, 0, 0, 0]
               WHEN 'card_payment' THEN ARRAY[-applied, 0, 0, applied - payments.amount, 0, 0,
                                              payments.amount, 0, 0]
               WHEN 'outside_payment' THEN ARRAY[-applied, 0, 0, applied - payments.amount, 0, 0, 0,
                                                 payments.amount, 0]
               WHEN 'deposit' THEN ARRAY[0, 0, 0, -payments.amount, 0, 0,
                                         payments.amount * (source = 'card')::int,
                                         payments.amount * (source = 'outside')::int, 0]
               WHEN 'grant' THEN ARRAY[0, 0, 0, -abs(credit), abs(credit), 0, 0, 0, 0]
               WHEN 'expiry' THEN ARRAY[0, 0, 0, abs(credit), -abs(credit), 0, 0, 0, 0]
               WHEN 'adjustment' THEN ARRAY[0, 0, 0, credit, 0, -credit, 0, 0, 0]
               WHEN 'credit_refund' THEN ARRAY[0, 0, 0, refunds.amount, 0, 0, -to_card, -to_outside,
                                               0]
               WHEN 'credit_note' THEN ARRAY[-lowers_due, notes.net, notes.tax,
                                             -COALESCE(to_credit, 0), 0, 0, -COALESCE(to_card, 0),
                                             -COALESCE(to_outside, 0), 0]
               WHEN 'refund' THEN ARRAY[refunds.amount, 0, 0, -to_credit, 0, 0, -to_card,
                                        -to_outside, 0]
               WHEN 'refund_failed' THEN ARRAY[0, 0, 0, -refunds.amount, 0, 0, refunds.amount, 0, 0]
               WHEN 'write_off' THEN ARRAY[-abs(lost), 0, 0, 0, 0, 0, 0, 0, abs(lost)]
               WHEN 'recovery' THEN ARRAY[abs(lost), 0, 0, 0, 0, 0, 0, 0, -abs(lost)]
               WHEN 'dispute_opened' THEN ARRAY[0, 0, 0, 0, 0, 0, -disputes.amount, 0, 0]
               WHEN 'dispute_won' THEN ARRAY[0, 0, 0, 0, 0, 0, disputes.amount, 0, 0]
               WHEN 'dispute_lost' THEN ARRAY[reopened, 0, 0, taken_back, 0, 0, 0, 0, 0]
                END || CASE event
               WHEN 'dispute_opened' THEN ARRAY[disputes.amount, 0]
               WHEN 'dispute_won' THEN ARRAY[-disputes.amount, 0]
               WHEN 'dispute_lost' THEN ARRAY[-disputes.amount, disputes.written_off]
               WHEN 'void' THEN ARRAY[0, -amount_lost]
               ELSE ARRAY[0, 0]
                END AS wanted) AS table_of_postings
         WHERE posted IS DISTINCT FROM wanted
            OR event IN ('finalize', 'void', 'apply_credit', 'carry', 'credit_note', 'refund',
                         'write_off', 'recovery') AND invoices.id IS NULL
            OR event = 'card_payment' AND source <> 'card'
            OR event = 'outside_payment' AND source <> 'outside'
    """,
    "drafts_are_not_posted": """
        SELECT invoices.id::text, 'a draft has entries in the books'
          FROM invoices JOIN ledger_entries AS entries ON entries.invoice_id = invoices.id
         WHERE invoices.account_id = :account AND status = 'draft'
    """,
    "lines_sum_to_totals": """
        SELECT invoices.id::text,
               concat(number, ' says ', subtotal, ' and tax of ', invoices.tax, ', its lines sum to ',
                      COALESCE(sum(net), 0), ' and ', COALESCE(sum(lines.tax), 0))
          FROM invoices LEFT JOIN invoice_lines AS lines ON lines.invoice_id = invoices.id
         WHERE account_id = :account AND status <> 'draft'
         GROUP BY invoices.id
        HAVING (COALESCE(sum(net), 0), COALESCE(sum(lines.tax), 0)) <> (subtotal, invoices.tax)
    """,
    # An exempt client's price had the taxes in it taken out, and they are nowhere.
    "lines_are_their_net_and_taxes": """
        SELECT lines.invoice_id::text,
               concat(number, ' line ', position, ' of ', lines.amount, ' is ', net, ' and tax of ',
                      lines.tax, ', its rates sum to ', COALESCE(borne.tax, 0), ', in its price ',
                      COALESCE(borne.inclusive, 0))
          FROM invoice_lines AS lines JOIN invoices ON invoices.id = lines.invoice_id
          JOIN charges ON charges.id = lines.charge_id
          LEFT JOIN LATERAL (
               SELECT sum(share::bigint) AS tax,
                      sum(share::bigint) FILTER (WHERE inclusive) AS inclusive
                 FROM jsonb_each_text(lines.taxes) AS share (rate_id, share)
                 JOIN tax_rates ON tax_rates.id = rate_id::uuid AND account_id = :account
               ) AS borne ON true
         WHERE invoices.account_id = :account
           AND (COALESCE(borne.tax, 0) <> lines.tax
                OR net + COALESCE(borne.inclusive, 0) <> lines.amount
                   AND COALESCE(tax_exempt::text, bill_to ->> 'tax_exempt', 'false') = 'false')
    """,
    "taxes_sum_up_their_lines": """
        SELECT invoice_id::text,
               concat('says ', taxes.tax, ' of ', taxes.net, ', its lines say ', borne.tax, ' of ',
                      borne.net, ' for tax rate ', tax_rate_id)
          FROM (SELECT invoice_id, tax_rate_id, invoice_taxes.net, invoice_taxes.tax
                  FROM invoice_taxes JOIN invoices ON invoices.id = invoice_id
                 WHERE account_id = :account) AS taxes
          FULL JOIN (
               SELECT lines.invoice_id, rate_id::uuid AS tax_rate_id, sum(net) AS net,
                      sum(share::bigint) AS tax
                 FROM invoice_lines AS lines JOIN invoices ON invoices.id = lines.invoice_id
                 JOIN charges ON charges.id = lines.charge_id
                CROSS JOIN jsonb_each_text(taxes) AS share (rate_id, share)
                WHERE invoices.account_id = :account
                  AND COALESCE(tax_exempt::text, bill_to ->> 'tax_exempt', 'false') = 'false'
                GROUP BY lines.invoice_id, rate_id) AS borne USING (invoice_id, tax_rate_id)
         WHERE (taxes.net, taxes.tax) IS DISTINCT FROM (borne.net, borne.tax)
    """,
    "ledger_agrees_with_taxes": """
        SELECT invoice_id::text,
               concat('owes tax of ', COALESCE(owed, 0), ' by its documents, in the books it is ',
                      COALESCE(booked, 0), ' for tax rate ', tax_rate_id)
          FROM (SELECT invoice_id, tax_rate_id, sum(tax) AS owed
                  FROM (SELECT invoice_id, tax_rate_id, invoice_taxes.tax
                          FROM invoice_taxes JOIN invoices ON invoices.id = invoice_id
                         WHERE account_id = :account AND status <> 'void' UNION ALL
                        SELECT invoice_id, rate_id::uuid, -share::bigint
                          FROM credit_notes
                         CROSS JOIN jsonb_each_text(taxes) AS share (rate_id, share)
                         WHERE account_id = :account AND NOT voids) AS documents
                 GROUP BY invoice_id, tax_rate_id) AS owed
          FULL JOIN (
               SELECT invoice_id, tax_rate_id, -sum(amount) AS booked
                 FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
                WHERE entries.account_id = :account AND ledger_account = 'tax'
                GROUP BY invoice_id, tax_rate_id) AS booked USING (invoice_id, tax_rate_id)
         WHERE COALESCE(owed, 0) <> COALESCE(booked, 0)
    """,
    "lines_match_charges": """
        SELECT invoice_id::text, concat('its lines differ from charge ', charge_id)
          FROM (SELECT invoice_id, charges.id AS charge_id, charges.amount AS charged
                  FROM charges JOIN invoices ON invoices.id = invoice_id
                 WHERE charges.account_id = :account AND status <> 'draft') AS charges
          FULL JOIN (SELECT invoice_id, charge_id, amount AS billed
                       FROM invoice_lines JOIN invoices ON invoices.id = invoice_id
                      WHERE account_id = :account) AS lines USING (invoice_id, charge_id)
         WHERE charged IS DISTINCT FROM billed
    """,
    # What a draft bears tax of is computed when it is finalized; here, that no other one has any.
    "draft_totals_match_charges": """
        SELECT invoices.id::text,
               concat('says ', subtotal, ' and tax of ', tax, ', its charges sum to ',
                      COALESCE(sum(amount), 0))
          FROM invoices JOIN clients ON clients.id = invoices.client_id
          JOIN accounts ON accounts.id = invoices.account_id
          LEFT JOIN charges
            ON charges.client_id = invoices.client_id AND charges.invoice_id = invoices.id
         WHERE invoices.account_id = :account AND status = 'draft'
         GROUP BY invoices.id
        HAVING (COALESCE(sum(amount), 0), 0) <> (subtotal, tax)
           AND bool_and(COALESCE(charges.tax_rates, clients.tax_rates, accounts.tax_rates, '{}')
                        = '{}')
    """,
    "charges_have_one_open_amendment": """
        SELECT amends::text,
               concat('has ', count(*), ' open amendments, of ', array_to_string(
                      array_agg(charges.amount), ', '))
          FROM charges LEFT JOIN invoices ON invoices.id = invoice_id
         WHERE charges.account_id = :account AND amends IS NOT NULL
           AND (invoice_id IS NULL OR status = 'draft')
         GROUP BY amends HAVING count(*) > 1 OR bool_or(charges.amount = 0)
    """,
    # One that counts for nothing, on a void invoice, may amend what is void by now.
    "amendments_amend_billed_charges": """
        SELECT charges.id::text,
               concat('amends ', charges.amends, ', which is on ', COALESCE(billed.number, 'nothing'),
                      ': ', COALESCE(billed.status, 'open'))
          FROM charges JOIN charges AS originals ON originals.id = charges.amends
          LEFT JOIN invoices AS own ON own.id = charges.invoice_id
          LEFT JOIN invoices AS billed ON billed.id = originals.invoice_id
         WHERE charges.account_id = :account AND own.status IS DISTINCT FROM 'void'
           AND (COALESCE(billed.status, 'draft') IN ('draft', 'void')
                OR originals.amends IS NOT NULL
                OR (originals.client_id, originals.currency)
                   <> (charges.client_id, charges.currency))
    """,
    "copies_bill_what_they_copy": """
        SELECT copies.id::text,
               concat('copies ', originals.id, ', and amends ', COALESCE(copies.amends::text, 'nothing'),
                      ' and not ', COALESCE(originals.amends::text, 'nothing'))
          FROM charges AS copies JOIN charges AS originals ON originals.id = copies.copy_of
         WHERE copies.account_id = :account
           AND ((copies.client_id, copies.currency) <> (originals.client_id, originals.currency)
                OR copies.amends IS DISTINCT FROM originals.amends)
    """,
    "numbers_are_gapless": """
        SELECT concat_ws(' ', document, NULLIF(year, 0)),
               concat('began with ', COALESCE(first_number, 1), ', next is ',
                      COALESCE(next_number, 1), ', ', COALESCE(given, 0), ' are given, from ',
                      lowest, ' to ', highest)
          FROM (SELECT document, series_year AS year, count(*) AS given, min(sequence) AS lowest,
                       max(sequence) AS highest
                  FROM (SELECT 'invoice' AS document, series_year, sequence FROM invoices
                         WHERE account_id = :account AND status <> 'draft' UNION ALL
                        SELECT 'credit_note', series_year, sequence FROM credit_notes
                         WHERE account_id = :account) AS documents
                 GROUP BY document, series_year) AS given
          FULL JOIN (SELECT document, year, first_number, next_number FROM number_series
                      WHERE account_id = :account) AS series USING (document, year)
         WHERE COALESCE(given, 0) <> COALESCE(next_number - first_number, 0)
            OR given > 0 AND (lowest, highest) IS DISTINCT FROM (first_number, next_number - 1)
    """,
    "periods_tile_time": """
        SELECT client_id::text,
               concat('period ', period_start, ' follows one that ended on ', last_end)
          FROM (SELECT client_id, period_start, starts_at, reason,
                       lag(period_end) OVER chain AS last_end, lag(ends_at) OVER chain AS last_at,
                       lag(reason) OVER chain AS last_reason
                  FROM billing_periods WHERE account_id = :account
                WINDOW chain AS (PARTITION BY client_id ORDER BY period_start)) AS periods
         WHERE last_end IS NOT NULL AND (last_end > period_start OR (
               -- Of a start long ago, the periods in between are written down as they are billed.
               (last_end < period_start OR last_at <> starts_at)
               AND last_reason IS DISTINCT FROM 'before_activation'))
    """,
    # Whoever finalizes or deletes a draft settles its period.
    "drafted_periods_have_drafts": """
        SELECT periods.id::text,
               concat('is ', state, ' with ', count(*) FILTER (WHERE status = 'draft'), ' drafts')
          FROM billing_periods AS periods LEFT JOIN invoices ON period_id = periods.id
         WHERE periods.account_id = :account
         GROUP BY periods.id
        HAVING (state = 'drafted') <> (count(*) FILTER (WHERE status = 'draft') > 0)
    """,
    # The scheduler opens again what no pause holds any more, every minute.
    "held_periods_are_paused": """
        SELECT periods.id::text,
               concat('is held since ', decided_at, ', and billing is not paused: by client ',
                      clients.billing_paused, ', by account ', accounts.billing_paused)
          FROM billing_periods AS periods
          JOIN clients ON clients.id = periods.client_id
          JOIN accounts ON accounts.id = periods.account_id
         WHERE periods.account_id = :account AND state = 'held'
           AND NOT clients.billing_paused AND NOT accounts.billing_paused
           AND decided_at < :now ::timestamptz - interval '1 hour'
    """,
    "billed_periods_have_invoices": """
        SELECT periods.id::text, concat('is ', state, ' with ', count(invoices.id), ' invoices')
          FROM billing_periods AS periods LEFT JOIN invoices ON period_id = periods.id
         WHERE periods.account_id = :account
         GROUP BY periods.id
        HAVING (state IN ('drafted', 'billed')) <> (count(invoices.id) > 0)
    """,
    "credit_balances_equal_their_entries": """
        SELECT client_id::text,
               concat('the balance is ', balance, ', its entries sum to ', COALESCE(sum(amount), 0),
                      ' ', currency)
          FROM credit_balances LEFT JOIN credit_entries USING (client_id, currency)
         WHERE account_id = :account
         GROUP BY client_id, currency HAVING COALESCE(sum(amount), 0) <> balance
    """,
    "credit_balances_agree_with_ledger": """
        SELECT client_id::text,
               concat('the balance is ', COALESCE(balance, 0), ', in the books it is ',
                      COALESCE(booked, 0), ' ', currency)
          FROM (SELECT client_id, currency, balance
                  FROM credit_balances WHERE account_id = :account) AS balances
          FULL JOIN (
               SELECT client_id, entries.currency, -sum(amount) AS booked
                 FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
                WHERE entries.account_id = :account AND ledger_account = 'credit'
                GROUP BY client_id, entries.currency) AS books USING (client_id, currency)
         WHERE COALESCE(balance, 0) <> COALESCE(booked, 0)
    """,
    "statements_agree_with_ledger": f"""
        SELECT client_id::text,
               concat('by its documents it owes ', COALESCE(moved, 0), ', in the books it is ',
                      COALESCE(booked, 0), ' ', currency)
          FROM (SELECT client_id, currency, sum(due - credit) AS moved
                  FROM ({_MOVEMENTS}) AS movements
                 GROUP BY client_id, currency) AS statements
          FULL JOIN (
               SELECT client_id, entries.currency, sum(amount) AS booked
                 FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
                WHERE entries.account_id = :account AND ledger_account IN ('receivable', 'credit')
                GROUP BY client_id, entries.currency) AS books USING (client_id, currency)
         WHERE COALESCE(moved, 0) <> COALESCE(booked, 0)
    """,  # noqa: S608 - all of it is this code's own
    "closed_books_stay_as_they_were": """
        SELECT entries.id::text,
               concat(event, ' of ', effective_on, ' was posted at ', posted_at,
                      ', the books were closed through ', books_closed_through, ' at ',
                      books_closed_at)
          FROM ledger_entries AS entries JOIN accounts ON accounts.id = entries.account_id
         WHERE accounts.id = :account AND effective_on <= books_closed_through
           AND posted_at > books_closed_at
    """,
    "credit_applied_equals_its_entries": """
        SELECT invoices.id::text,
               concat(number, ' says ', credit_applied, ', its credit entries sum to ',
                      COALESCE(-sum(amount), 0))
          FROM invoices LEFT JOIN credit_entries AS entries ON entries.invoice_id = invoices.id
           AND kind = ANY(CASE WHEN total < 0 THEN ARRAY['negative_invoice', 'applied', 'carried']
                               ELSE ARRAY['applied', 'carried'] END)
         WHERE invoices.account_id = :account
         GROUP BY invoices.id HAVING COALESCE(-sum(amount), 0) <> credit_applied
    """,
    "voided_invoices_return_their_credit": """
        SELECT invoices.id::text,
               concat(number, ' is ', status, ' and used ', credit_applied, ', returned are ',
                      COALESCE(sum(amount), 0))
          FROM invoices LEFT JOIN credit_entries AS entries
            ON entries.invoice_id = invoices.id AND kind = 'returned'
         WHERE invoices.account_id = :account
         GROUP BY invoices.id
        HAVING COALESCE(sum(amount), 0) <> CASE status WHEN 'void' THEN credit_applied ELSE 0 END
    """,
    "voided_invoices_leave_what_was_paid_as_credit": """
        SELECT invoices.id::text,
               concat(number, ' is ', status, ' with ', amount_paid, ' paid, of which became credit: ',
                      COALESCE(sum(amount), 0))
          FROM invoices LEFT JOIN credit_entries AS entries
            ON entries.invoice_id = invoices.id AND kind = 'settled'
         WHERE invoices.account_id = :account
         GROUP BY invoices.id
        HAVING COALESCE(sum(amount), 0)
               <> CASE status WHEN 'void' THEN amount_paid - amount_refunded - amount_lost ELSE 0 END
    """,
    "grants_are_part_of_their_balance": """
        SELECT client_id::text,
               concat('the balance is ', balance, ', of which ', sum(remaining),
                      ' are promotional ', currency)
          FROM credit_grants JOIN credit_balances USING (account_id, client_id, currency)
         WHERE account_id = :account
         GROUP BY client_id, currency, balance HAVING sum(remaining) > GREATEST(balance, 0)
    """,
    "grants_agree_with_their_entries": """
        SELECT grants.id::text,
               concat('of ', grants.amount, ' granted as ', COALESCE(granted, 0), ', ', remaining,
                      ' remain, ', COALESCE(used.amount, 0), ' are used and ',
                      COALESCE(expired, 0), ' expired ', currency)
          FROM credit_grants AS grants
          LEFT JOIN (SELECT grant_id, sum(entries.amount) FILTER (WHERE kind = 'granted') AS granted,
                            -sum(entries.amount) FILTER (WHERE kind = 'expired') AS expired
                       FROM credit_grants JOIN credit_entries AS entries
                         ON entries.client_id = credit_grants.client_id
                        AND grant_id = credit_grants.id
                      WHERE account_id = :account GROUP BY grant_id) AS entries
            ON entries.grant_id = grants.id
          LEFT JOIN (SELECT grant_id, sum(uses.amount) AS amount
                       FROM credit_grant_uses AS uses JOIN credit_grants ON grant_id = id
                      WHERE account_id = :account GROUP BY grant_id) AS used
            ON used.grant_id = grants.id
         WHERE grants.account_id = :account
           AND (COALESCE(granted, 0) <> grants.amount
                OR remaining + COALESCE(used.amount, 0) + COALESCE(expired, 0) > grants.amount)
    """,
    "grants_agree_with_ledger": """
        SELECT grants.id::text,
               concat('its entries sum to ', COALESCE(entries.amount, 0), ', in the books it is ',
                      COALESCE(booked.amount, 0), ' ', currency)
          FROM credit_grants AS grants
          LEFT JOIN (SELECT grant_id, sum(entries.amount) AS amount
                       FROM credit_grants JOIN credit_entries AS entries
                         ON entries.client_id = credit_grants.client_id
                        AND grant_id = credit_grants.id
                      WHERE account_id = :account GROUP BY grant_id) AS entries
            ON entries.grant_id = grants.id
          LEFT JOIN (SELECT grant_id, sum(amount) AS amount
                       FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
                      WHERE entries.account_id = :account AND ledger_account = 'promotion'
                      GROUP BY grant_id) AS booked
            ON booked.grant_id = grants.id
         WHERE grants.account_id = :account
           AND COALESCE(entries.amount, 0) <> COALESCE(booked.amount, 0)
    """,
    # With a debit that it took in, an invoice may use more of grants than it says in all.
    "invoices_use_grants_as_they_use_credit": """
        SELECT invoices.id::text,
               concat(number, ' is ', status, ' and uses ', credit_applied, ' of credit, of grants: ',
                      used.amount)
          FROM (SELECT invoice_id, sum(uses.amount) AS amount, bool_and(
                       (grants.client_id, grants.currency)
                       = (invoices.client_id, invoices.currency)) AS is_its_own
                  FROM credit_grant_uses AS uses JOIN credit_grants AS grants ON grant_id = grants.id
                  JOIN invoices ON invoices.id = invoice_id
                 WHERE grants.account_id = :account GROUP BY invoice_id) AS used
          JOIN invoices ON invoices.id = used.invoice_id
          LEFT JOIN (SELECT invoice_id, sum(amount) AS amount FROM credit_entries
                      WHERE kind = 'applied' AND amount > 0 GROUP BY invoice_id) AS debits
            ON debits.invoice_id = invoices.id
         WHERE status = 'void' OR NOT is_its_own
            OR used.amount > credit_applied + COALESCE(debits.amount, 0)
    """,
    # What no invoice used and did not expire, a correction took, or it covered what was owed.
    "what_grants_lack_was_spent": """
        SELECT client_id::text,
               concat(lacking.amount, ' of its grants were spent, and only ',
                      COALESCE(spent.amount, 0), ' of its credit ', currency)
          FROM (SELECT client_id, currency,
                       sum(grants.amount - remaining - COALESCE(used.amount, 0)
                           - COALESCE(expired.amount, 0)) AS amount
                  FROM credit_grants AS grants
                  LEFT JOIN (SELECT grant_id, sum(amount) AS amount FROM credit_grant_uses
                              GROUP BY grant_id) AS used ON used.grant_id = grants.id
                  LEFT JOIN (SELECT grant_id, -sum(amount) AS amount FROM credit_entries
                              WHERE kind = 'expired' GROUP BY grant_id) AS expired
                    ON expired.grant_id = grants.id
                 WHERE account_id = :account GROUP BY client_id, currency) AS lacking
          LEFT JOIN (SELECT client_id, currency, -sum(amount) AS amount
                       FROM credit_entries JOIN credit_balances USING (client_id, currency)
                      WHERE account_id = :account AND amount < 0
                        AND kind NOT IN ('applied', 'expired', 'paid_out')
                      GROUP BY client_id, currency) AS spent USING (client_id, currency)
         WHERE lacking.amount > COALESCE(spent.amount, 0)
    """,
    # By any calendar: what it ends on begins and ends at the latest a day after it does in UTC.
    "expired_grants_have_nothing_left": """
        SELECT id::text, concat('expired on ', expires_on, ', and ', remaining, ' remain ', currency)
          FROM credit_grants
         WHERE account_id = :account AND remaining > 0
           AND expires_on < (:now ::timestamptz AT TIME ZONE 'UTC')::date - 1
    """,
    # Off its balance before its card is asked; what the card refused is given back by itself.
    "credit_paid_out_equals_its_refunds": """
        SELECT refunds.id::text,
               concat('is ', state, ' for ', refunds.amount, ', of credit were paid out: ',
                      COALESCE(-sum(entries.amount), 0))
          FROM refunds LEFT JOIN credit_entries AS entries
            ON entries.client_id = refunds.client_id AND refund_id = refunds.id
           AND kind = 'paid_out'
         WHERE account_id = :account AND refunds.invoice_id IS NULL
         GROUP BY refunds.id
        HAVING COALESCE(-sum(entries.amount), 0) <> refunds.amount
    """,
    "amounts_paid_equal_their_payments": """
        SELECT invoices.id::text,
               concat(number, ' says ', amount_paid, ', its payments sum to ',
                      COALESCE(sum(applied), 0))
          FROM invoices LEFT JOIN payments ON payments.invoice_id = invoices.id
         WHERE invoices.account_id = :account
         GROUP BY invoices.id HAVING COALESCE(sum(applied), 0) <> amount_paid
    """,
    "written_off_equals_bad_debt": """
        SELECT invoices.id::text,
               concat(number, ' says ', amount_written_off, ', its bad debt is ',
                      COALESCE(booked.amount, 0))
          FROM invoices LEFT JOIN (
               SELECT entries.invoice_id, sum(amount) AS amount
                 FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
                WHERE entries.account_id = :account AND ledger_account = 'bad_debt'
                GROUP BY entries.invoice_id) AS booked ON booked.invoice_id = invoices.id
         WHERE account_id = :account AND amount_written_off <> COALESCE(booked.amount, 0)
    """,
    "payments_are_posted_once": """
        SELECT payments.id::text, concat('has ', count(entries.id), ' entries')
          FROM payments LEFT JOIN ledger_entries AS entries ON payment_id = payments.id
         WHERE payments.account_id = :account
         GROUP BY payments.id HAVING count(entries.id) <> 1
    """,
    "what_payments_leave_over_is_credit": """
        SELECT payments.id::text,
               concat(payments.amount - applied, ' of it were not applied, became credit: ',
                      COALESCE(sum(entries.amount), 0))
          FROM payments LEFT JOIN credit_entries AS entries
            ON entries.client_id = payments.client_id AND payment_id = payments.id
         WHERE account_id = :account
         GROUP BY payments.id
        HAVING COALESCE(sum(entries.amount), 0) <> payments.amount - applied
    """,
    "succeeded_attempts_are_paid_once": """
        SELECT attempts.id::text,
               concat('is ', state, ' for ', attempts.amount, ' and has ', count(payments.id),
                      ' payments, of ', COALESCE(sum(payments.amount), 0))
          FROM payment_attempts AS attempts LEFT JOIN payments ON attempt_id = attempts.id
         WHERE attempts.account_id = :account
         GROUP BY attempts.id
        HAVING count(payments.id) <> (state = 'succeeded')::int
            OR bool_or((payments.invoice_id, payments.client_id, payments.currency,
                        -- What came is what counts; it is flagged where it is not what was asked.
                        CASE flagged WHEN 'another_amount' THEN attempts.amount
                                     ELSE payments.amount END)
                       IS DISTINCT FROM
                       (attempts.invoice_id, attempts.client_id, attempts.currency, attempts.amount))
               AND state = 'succeeded'
    """,
    "money_for_credit_is_a_deposit": """
        SELECT attempts.id::text,
               concat('paid for ', purpose, ' and is booked as ', event, ', its credit as ', kind)
          FROM payment_attempts AS attempts JOIN payments ON attempt_id = attempts.id
          LEFT JOIN ledger_entries AS books ON books.payment_id = payments.id
          LEFT JOIN credit_entries AS entries ON entries.payment_id = payments.id
         WHERE attempts.account_id = :account
           AND ((event = 'deposit') <> (purpose <> 'invoice')
                OR (kind = 'deposit') <> (purpose <> 'invoice'))
    """,
    "a_clients_credit_is_charged_once_at_a_time": """
        SELECT client_id::text, concat(count(*), ' charges for a ', purpose, ' are under way')
          FROM payment_attempts
         WHERE account_id = :account AND purpose <> 'invoice'
           AND state IN ('pending', 'processing', 'unknown', 'needs_action')
         GROUP BY client_id, purpose HAVING count(*) > 1
    """,
    "top_ups_end_after_four_declines": """
        SELECT client_id::text,
               concat(declines, ' were declined, the last ', declined_at, ', is off: ', is_off)
          FROM auto_top_ups
         WHERE account_id = :account
           AND (declines >= 4 AND NOT is_off OR declines > 0 AND declined_at IS NULL)
    """,
    "attempts_are_counted": """
        SELECT invoices.id::text,
               concat(number, ' says ', attempt_count, ', it has ', count(attempts.id),
                      ', the last of them number ', COALESCE(max(ordinal), 0))
          FROM invoices LEFT JOIN payment_attempts AS attempts ON invoice_id = invoices.id
         WHERE invoices.account_id = :account
         GROUP BY invoices.id
        HAVING (count(attempts.id), COALESCE(max(ordinal), 0)) <> (attempt_count, attempt_count)
    """,
    "charges_under_way_are_for_open_invoices": """
        SELECT attempts.id::text, concat('is ', state, ', and ', number, ' is ', status)
          FROM payment_attempts AS attempts JOIN invoices ON invoices.id = invoice_id
         WHERE attempts.account_id = :account AND status <> 'open'
           AND (status <> 'uncollectible' OR checkout_expires_at IS NULL)
           AND state IN ('pending', 'processing', 'unknown', 'needs_action')
    """,
    # Stripe closes a page by itself, and we close those that ask for what is not due any more.
    "pages_are_for_what_is_due": """
        SELECT attempts.id::text,
               concat('asks for ', amount, ', of ', number, ' is due ', amount_due + amount_written_off,
                      '; it ended ', checkout_expires_at)
          FROM payment_attempts AS attempts JOIN invoices ON invoices.id = invoice_id
         WHERE attempts.account_id = :account AND state = 'needs_action'
           AND checkout_expires_at IS NOT NULL
           AND (amount <> amount_due + amount_written_off
                OR checkout_expires_at < :now ::timestamptz - interval '3 days')
    """,
    # A bank debit takes days, and is asked after every day; any other charge is answered at once,
    # or believed after a day never to have arrived.
    "charges_are_answered_in_time": """
        SELECT id::text,
               concat('is ', state, ', first asked ', first_asked_at, ', to be asked again ',
                      next_ask_at)
          FROM payment_attempts
         WHERE account_id = :account AND state IN ('pending', 'processing', 'unknown')
           AND (next_ask_at < :now ::timestamptz - interval '3 days' OR state <> 'processing'
                AND COALESCE(first_asked_at, created_at) < :now ::timestamptz - interval '3 days')
    """,
    "tries_wait_only_where_they_may_be_made": """
        SELECT invoices.id::text,
               concat(number, ' is ', status, ', to be charged ', next_attempt_at,
                      ', automatically: ', auto_collect, ', the card is stopped for: ',
                      COALESCE(stopped_for, 'nothing'))
          FROM invoices LEFT JOIN billing_methods USING (client_id)
         WHERE invoices.account_id = :account AND next_attempt_at IS NOT NULL
           AND (status <> 'open' OR NOT auto_collect OR stopped_for IS NOT NULL
                AND NOT EXISTS (SELECT FROM backup_methods AS backups
                                  JOIN clients ON clients.id = backups.client_id
                                 WHERE backups.client_id = invoices.client_id
                                   AND clients.use_backup_card AND backups.stopped_for IS NULL))
    """,
    "a_clients_second_card_is_another_one": """
        SELECT client_id::text, concat('both its cards are ', card.payment_method)
          FROM billing_methods AS card JOIN backup_methods AS backup USING (client_id)
         WHERE card.account_id = :account AND card.payment_method = backup.payment_method
    """,
    "amounts_credited_equal_their_notes": """
        SELECT invoices.id::text,
               concat(number, ' says ', amount_credited, ', its credit notes sum to ',
                      COALESCE(noted, 0), ' of ', total)
          FROM invoices LEFT JOIN (
               SELECT invoice_id, sum(amount) FILTER (WHERE NOT voids) AS noted
                 FROM credit_notes WHERE account_id = :account GROUP BY invoice_id) AS notes
            ON invoice_id = invoices.id
         WHERE account_id = :account
           AND (COALESCE(noted, 0) <> amount_credited OR amount_credited > GREATEST(total, 0))
    """,
    "amounts_refunded_equal_what_went_back": """
        SELECT invoices.id::text,
               concat(number, ' says ', amount_refunded, ', its notes returned ',
                      COALESCE(noted, 0), ', and without a note went back ', COALESCE(sent, 0),
                      ', and in disputes ', COALESCE(reopened, 0))
          FROM invoices
          LEFT JOIN (SELECT invoice_id, sum(returned) AS noted
                       FROM credit_notes WHERE account_id = :account GROUP BY invoice_id) AS notes
            ON notes.invoice_id = invoices.id
          LEFT JOIN (SELECT invoice_id, sum(amount) AS sent
                       FROM refunds WHERE account_id = :account AND NOT makes_note
                        AND succeeded_at IS NOT NULL GROUP BY invoice_id) AS refunds
            ON refunds.invoice_id = invoices.id
          LEFT JOIN (SELECT invoice_id, sum(reopened) AS reopened
                       FROM disputes WHERE account_id = :account GROUP BY invoice_id) AS disputes
            ON disputes.invoice_id = invoices.id
         WHERE account_id = :account
           AND COALESCE(noted, 0) + COALESCE(sent, 0) + COALESCE(reopened, 0) <> amount_refunded
    """,
    "amounts_lost_equal_their_disputes": """
        SELECT invoices.id::text,
               concat(number, ' says ', amount_lost, ', lost in its disputes were ',
                      COALESCE(sum(written_off), 0))
          FROM invoices LEFT JOIN disputes ON disputes.invoice_id = invoices.id
         WHERE invoices.account_id = :account
         GROUP BY invoices.id HAVING COALESCE(sum(written_off), 0) <> amount_lost
    """,
    # Whoever wins, it was open before.
    "disputes_are_posted_as_they_stand": """
        SELECT disputes.id::text,
               concat('is ', state, ', and was opened ', opened, ' times, won ', won, ', lost ', lost)
          FROM disputes CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE event = 'dispute_opened') AS opened,
                      count(*) FILTER (WHERE event = 'dispute_won') AS won,
                      count(*) FILTER (WHERE event = 'dispute_lost') AS lost
                 FROM ledger_entries AS entries WHERE dispute_id = disputes.id) AS booked
         WHERE account_id = :account
           AND (opened, won, lost) <> ((state IN ('open', 'won', 'lost'))::int,
                                       (state = 'won')::int, (state = 'lost')::int)
    """,
    "disputed_money_is_that_of_open_disputes": """
        SELECT COALESCE(disputes.id, booked.dispute_id, :account)::text,
               concat('is ', COALESCE(state, 'no dispute'), ' of ', disputes.amount,
                      ', in the books are ', COALESCE(booked.amount, 0), ' ',
                      COALESCE(disputes.currency, booked.currency))
          FROM (SELECT * FROM disputes WHERE account_id = :account) AS disputes
          FULL JOIN (
               SELECT dispute_id, entries.currency, sum(amount) AS amount
                 FROM ledger_entries AS entries JOIN ledger_postings ON entry_id = entries.id
                WHERE entries.account_id = :account AND ledger_account = 'disputed'
                GROUP BY dispute_id, entries.currency) AS booked ON booked.dispute_id = disputes.id
         WHERE COALESCE(disputes.amount * (state = 'open')::int, 0) <> COALESCE(booked.amount, 0)
    """,
    "what_disputes_take_back_is_credit": """
        SELECT disputes.id::text,
               concat('took back ', taken_back, ', of credit were taken ',
                      COALESCE(-sum(entries.amount), 0))
          FROM disputes LEFT JOIN credit_entries AS entries
            ON entries.client_id = disputes.client_id AND dispute_id = disputes.id
           AND kind = 'dispute'
         WHERE account_id = :account
         GROUP BY disputes.id HAVING COALESCE(-sum(entries.amount), 0) <> taken_back
    """,
    "disputed_cards_are_not_tried": """
        SELECT disputes.id::text, 'is open, and its card is charged by itself'
          FROM disputes JOIN payments ON payments.id = payment_id
          JOIN payment_attempts AS attempts ON attempts.id = attempt_id
          JOIN billing_methods AS cards ON cards.client_id = disputes.client_id
           AND cards.payment_method = attempts.payment_method
         WHERE disputes.account_id = :account AND disputes.state = 'open'
           AND stopped_for IS NULL
    """,
    "credit_notes_are_posted_once": """
        SELECT notes.id::text, concat(number, ' has ', count(entries.id), ' entries')
          FROM credit_notes AS notes LEFT JOIN ledger_entries AS entries
            ON credit_note_id = notes.id AND entries.event = 'credit_note'
         WHERE notes.account_id = :account
         GROUP BY notes.id HAVING count(entries.id) <> (NOT voids)::int
    """,
    "credit_notes_return_what_they_say": """
        SELECT notes.id::text,
               concat(number, ' returned ', returned, ' to ', COALESCE(returned_to, 'nobody'),
                      ', as credit ', COALESCE(credited, 0), ', and by refunds ',
                      COALESCE(sent, 0))
          FROM credit_notes AS notes
          LEFT JOIN (SELECT credit_note_id, sum(credit_entries.amount) AS credited
                       FROM credit_entries JOIN credit_notes ON credit_notes.id = credit_note_id
                      WHERE account_id = :account GROUP BY credit_note_id) AS entries
            ON entries.credit_note_id = notes.id
          LEFT JOIN (SELECT credit_note_id, sum(amount) FILTER (WHERE destination <> 'credit') AS sent
                       FROM refunds
                      WHERE account_id = :account AND succeeded_at IS NOT NULL
                      GROUP BY credit_note_id) AS refunds
            ON refunds.credit_note_id = notes.id
         WHERE account_id = :account
           AND (COALESCE(credited, 0) <> returned * (returned_to = 'credit' AND returned > 0)::int
                OR COALESCE(sent, 0) <> returned * (returned_to <> 'credit' AND returned > 0)::int)
    """,
    # What a bank gave back was booked out, and in again. Unused credit is booked out before its
    # card is asked, so a refusal of that is booked in again as well.
    "refunds_are_posted_once": """
        SELECT refunds.id::text,
               concat('is ', state, ', went ', succeeded_at, ', and has ', went, ' and ', came_back,
                      ' entries')
          FROM refunds CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE event IN ('refund', 'credit_refund', 'credit_note'))
                      AS went,
                      count(*) FILTER (WHERE event = 'refund_failed') AS came_back
                 FROM ledger_entries AS entries
                WHERE entries.account_id = :account
                  AND (refund_id = refunds.id OR entries.credit_note_id = refunds.credit_note_id)
               ) AS booked
         WHERE account_id = :account
           AND (went <> (succeeded_at IS NOT NULL OR invoice_id IS NULL)::int
                OR came_back
                   <> (state = 'failed' AND (succeeded_at IS NOT NULL OR invoice_id IS NULL))::int
                OR state = 'succeeded' AND succeeded_at IS NULL)
    """,
    "what_refunds_leave_as_credit_is_credit": """
        SELECT refunds.id::text,
               concat('is ', state, ' of ', refunds.amount, ' to ', destination, ', became credit: ',
                      COALESCE(sum(entries.amount), 0))
          FROM refunds LEFT JOIN credit_entries AS entries
            ON entries.client_id = refunds.client_id AND entries.refund_id = refunds.id
           AND kind IN ('refund', 'refund_failed')
         WHERE account_id = :account
         GROUP BY refunds.id
        HAVING COALESCE(sum(entries.amount), 0) <> refunds.amount * (
               state = 'succeeded' AND destination = 'credit' AND NOT makes_note
               OR state = 'failed' AND (succeeded_at IS NOT NULL OR refunds.invoice_id IS NULL))::int
    """,
    "refunds_stay_within_their_payments": """
        SELECT payments.id::text,
               concat('paid ', applied, ' of ', payments.amount, ', refunded are ', of_invoice,
                      ', at the card ', at_card, ', lost in disputes ', lost)
          FROM payments CROSS JOIN LATERAL (
               SELECT COALESCE(sum(amount) FILTER (
                          WHERE refunds.invoice_id IS NOT NULL
                            AND (succeeded_at IS NOT NULL OR state <> 'failed')), 0) AS of_invoice,
                      COALESCE(sum(amount) FILTER (
                          WHERE destination = 'card' AND state <> 'failed'), 0) AS at_card,
                      COALESCE(bool_or(refunds.invoice_id <> payments.invoice_id
                                       OR (refunds.client_id, refunds.currency)
                                          <> (payments.client_id, payments.currency)
                                       OR destination = 'card' AND source <> 'card'), false)
                      AS is_anothers
                 FROM refunds WHERE payment_id = payments.id) AS given_back
         CROSS JOIN LATERAL (
               SELECT COALESCE(sum(reopened + written_off), 0) AS lost
                 FROM disputes WHERE payment_id = payments.id) AS disputed
         WHERE account_id = :account
           AND (of_invoice + lost > applied OR at_card > payments.amount OR is_anothers)
    """,
    "refunds_are_answered_in_time": """
        SELECT id::text,
               concat('is ', state, ', first asked ', first_asked_at, ', to be asked again ',
                      next_ask_at)
          FROM refunds
         WHERE account_id = :account AND state IN ('pending', 'processing', 'unknown')
           AND (next_ask_at < :now ::timestamptz - interval '3 days' OR state <> 'processing'
                AND COALESCE(first_asked_at, created_at) < :now ::timestamptz - interval '3 days')
    """,
    # What reconciling found, could not mend, and has not looked at again since; not what somebody
    # has acknowledged, who is believed about those facts alone.
    "our_record_agrees_with_stripe_s": """
        SELECT stripe_id,
               concat(difference, ': ours is ', COALESCE(ours, 'nothing'), ' ', our_amount,
                      ', theirs is ', COALESCE(theirs, 'nothing'), ' ', their_amount, ' ', currency)
          FROM reconciliation_differences AS found JOIN reconciliations
            ON reconciliations.id = reconciliation_id
         WHERE account_id = :account AND rechecked_at IS NULL AND NOT repaired
           AND NOT EXISTS (
               SELECT FROM difference_acknowledgements AS given
                 JOIN reconciliation_differences AS known ON known.id = given.difference_id
                WHERE given.id = found.acknowledgement_id AND given.withdrawn_at IS NULL
                  AND (known.stripe_id, known.difference, known.subject_id, known.currency,
                       known.ours, known.our_amount, known.theirs, known.their_amount)
                      IS NOT DISTINCT FROM
                      (found.stripe_id, found.difference, found.subject_id, found.currency,
                       found.ours, found.our_amount, found.theirs, found.their_amount))
    """,
    "sent_mails_have_their_receipts": """
        SELECT id::text, concat('a mail is ', state, ' and says nothing of how or when')
          FROM mails
         WHERE account_id = :account
           AND (state IN ('accepted', 'delivered', 'bounced')
                AND num_nulls(message_id, sent_at) > 0
                OR state = 'delivered' AND delivered_at IS NULL)
    """,
    "mails_to_be_sent_have_a_job": """
        SELECT mails.id::text, concat('a mail is ', state, ' and no job will go on with it')
          FROM mails
         WHERE account_id = :account AND state IN ('queued', 'claimed')
           AND NOT EXISTS (
               SELECT FROM jobs
                WHERE jobs.account_id = :account AND kind = 'send_mail'
                  AND jobs.state NOT IN ('succeeded', 'skipped', 'cancelled', 'dead')
                  AND args ->> 'mail_id' = mails.id::text)
    """,
    # A run does not tell again of what was paid before its end: that had a receipt, also where the
    # money was given back since. What was reviewed is told of when it is finalized, without the
    # run. Runs from before there were mails told nobody: the first mail's id, by time like all ids,
    # tells them apart.
    "runs_tell_of_their_invoices": """
        SELECT id::text, concat(number, ' was billed by run ', run_id, ' and is on none of its mails')
          FROM (SELECT invoices.id, number, run_id, total, status,
                       COALESCE(by_run OR by_review OR status = 'paid' AND amount_paid > 0
                                OR by_receipt AND amount_refunded > 0, false) AS is_told,
                       bool_or(by_run) OVER (PARTITION BY run_id) AS run_tells
                  FROM invoices JOIN billing_runs AS runs ON runs.id = run_id
                  LEFT JOIN (SELECT invoice_id, bool_or(subject_key LIKE 'run:%') AS by_run,
                                    bool_or(subject_key LIKE 'review:%') AS by_review,
                                    bool_or(subject_key LIKE 'payment:%') AS by_receipt
                               FROM mails CROSS JOIN unnest(invoice_ids) AS listed (invoice_id)
                              WHERE account_id = :account GROUP BY invoice_id) AS told
                    ON told.invoice_id = invoices.id
                 WHERE invoices.account_id = :account AND runs.finished_at IS NOT NULL) AS billed
         WHERE status NOT IN ('draft', 'void') AND total > 0 AND NOT is_told
           AND (run_tells OR run_id > (SELECT id FROM mails WHERE account_id = :account
                                        ORDER BY id LIMIT 1))
    """,
}
