"""The first schema: accounts to invoices, the books, and the job engine."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Time-ordered ids (RFC 9562) also for rows that INSERT ... SELECT writes. PostgreSQL 18 has its
# own; before it, the time goes over a random uuid's first 48 bits, and the version over two more.
_UUID7 = """
DO $do$ BEGIN
    IF current_setting('server_version_num')::int >= 180000 THEN
        CREATE FUNCTION uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
            AS 'SELECT uuidv7()';
    ELSE
        CREATE FUNCTION uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $fn$
            SELECT encode(set_bit(set_bit(overlay(
                uuid_send(gen_random_uuid()) PLACING substring(
                    int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid $fn$;
    END IF;
END $do$
"""

_QUEUES = "INSERT INTO queues (name) VALUES ('billing'), ('ops')"

# What the code promises, the database insists on.
_TRIGGERS = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    RAISE EXCEPTION '% of % refused: its rows are never changed', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $fn$;

CREATE FUNCTION check_invoice_change() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF TG_OP = 'INSERT' THEN
        RAISE EXCEPTION 'an invoice begins as a draft, not as %', NEW.status
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'invoice % is finalized: it can be voided, not deleted', OLD.number
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.status <> OLD.status AND (OLD.status, NEW.status) NOT IN (
        ('draft', 'open'), ('draft', 'paid'), ('open', 'paid'), ('open', 'void'),
        ('open', 'uncollectible'), ('uncollectible', 'paid'), ('uncollectible', 'void')) THEN
        RAISE EXCEPTION 'an invoice that is % never becomes %', OLD.status, NEW.status
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.status <> 'draft' AND
       (OLD.account_id, OLD.client_id, OLD.period_id, OLD.run_id, OLD.number, OLD.currency,
        OLD.subtotal, OLD.tax, OLD.total, OLD.issued_on, OLD.due_on, OLD.bill_from, OLD.bill_to,
        OLD.created_at, OLD.finalized_at) IS DISTINCT FROM
       (NEW.account_id, NEW.client_id, NEW.period_id, NEW.run_id, NEW.number, NEW.currency,
        NEW.subtotal, NEW.tax, NEW.total, NEW.issued_on, NEW.due_on, NEW.bill_from, NEW.bill_to,
        NEW.created_at, NEW.finalized_at) THEN
        RAISE EXCEPTION 'invoice % is finalized: what it says is frozen', OLD.number
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $fn$;

CREATE TRIGGER invoices_begin_as_drafts BEFORE INSERT ON invoices
    FOR EACH ROW WHEN (NEW.status <> 'draft') EXECUTE FUNCTION check_invoice_change();
CREATE TRIGGER invoices_locked BEFORE UPDATE ON invoices
    FOR EACH ROW WHEN (OLD.status <> 'draft' OR NEW.status <> 'draft')
    EXECUTE FUNCTION check_invoice_change();
CREATE TRIGGER invoices_kept BEFORE DELETE ON invoices
    FOR EACH ROW WHEN (OLD.status <> 'draft') EXECUTE FUNCTION check_invoice_change();

CREATE TRIGGER invoice_lines_locked BEFORE UPDATE OR DELETE OR TRUNCATE ON invoice_lines
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- For lines and charges alike, once a statement: both are added by the thousand.
CREATE FUNCTION check_added_to_invoices() RETURNS trigger LANGUAGE plpgsql AS $fn$
DECLARE locked text;
BEGIN
    SELECT number INTO locked FROM invoices
     WHERE id IN (SELECT invoice_id FROM added) AND status <> 'draft' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'invoice % is finalized: nothing can be added to it', locked
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $fn$;

CREATE TRIGGER invoice_lines_added AFTER INSERT ON invoice_lines
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_added_to_invoices();

CREATE FUNCTION check_charge_change() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF EXISTS (SELECT FROM invoices
                WHERE id = CASE TG_OP WHEN 'INSERT' THEN NEW.invoice_id ELSE OLD.invoice_id END
                  AND status <> 'draft') THEN
        RAISE EXCEPTION 'charge % is on a finalized invoice', COALESCE(OLD.id, NEW.id)
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $fn$;

CREATE TRIGGER charges_locked BEFORE UPDATE OR DELETE ON charges
    FOR EACH ROW WHEN (OLD.invoice_id IS NOT NULL) EXECUTE FUNCTION check_charge_change();
CREATE TRIGGER charges_begin BEFORE INSERT ON charges
    FOR EACH ROW WHEN (NEW.invoice_id IS NOT NULL) EXECUTE FUNCTION check_charge_change();
CREATE TRIGGER charges_added AFTER UPDATE ON charges
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_added_to_invoices();

CREATE TRIGGER ledger_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_postings_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_postings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION check_balance() RETURNS trigger LANGUAGE plpgsql AS $fn$
DECLARE unbalanced uuid;
BEGIN
    SELECT entry_id INTO unbalanced FROM ledger_postings
     WHERE entry_id IN (SELECT entry_id FROM added)
     GROUP BY entry_id HAVING sum(amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'ledger entry % does not balance', unbalanced
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $fn$;

CREATE TRIGGER ledger_postings_balanced AFTER INSERT ON ledger_postings
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION check_balance();

-- Children are counted on their parent's row: the last two to end, at once, both find it. A
-- parent that waits is woken by its last child; one that was retried counts again, whatever the
-- parent does just then, or its second end would be taken for another child's.
CREATE FUNCTION count_children() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF NEW.finished_at IS NULL THEN
        UPDATE jobs SET children_pending = children_pending + 1
         WHERE id = NEW.parent_id;
    ELSE
        UPDATE jobs
           SET children_pending = children_pending - 1,
               state = CASE WHEN state = 'scheduled' AND children_pending = 1 THEN 'ready'
                            ELSE state END,
               run_at = CASE WHEN state = 'scheduled' AND children_pending = 1 THEN now()
                             ELSE run_at END
         WHERE id = NEW.parent_id AND children_pending > 0;
        PERFORM pg_notify('duecourse_jobs', NEW.queue);
    END IF;
    RETURN NULL;
END $fn$;

CREATE TRIGGER jobs_children AFTER UPDATE OF finished_at ON jobs
    FOR EACH ROW WHEN (NEW.parent_id IS NOT NULL
                       AND (OLD.finished_at IS NULL) <> (NEW.finished_at IS NULL))
    EXECUTE FUNCTION count_children();
"""


def upgrade() -> None:
    op.execute(_UUID7)
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("legal_name", sa.Text(), nullable=True),
        sa.Column("address", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "tax_ids",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.Column("time_zone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("currency", sa.Text(), server_default="usd", nullable=False),
        sa.Column("net_days", sa.Integer(), server_default="14", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_accounts_currency")),
        sa.CheckConstraint("net_days BETWEEN 0 AND 365", name=op.f("ck_accounts_net_days")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "processes",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("threads", sa.Integer(), server_default="0", nullable=False),
        sa.Column("busy_threads", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "heartbeat_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_processes")),
    )
    op.create_table(
        "queues",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_queues")),
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("next_fire_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedules")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_api_keys_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
    )
    op.create_index(op.f("ix_api_keys_account_id"), "api_keys", ["account_id"], unique=False)
    op.create_table(
        "clients",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("external_ref", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("legal_name", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("address", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "tax_ids",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("time_zone", sa.Text(), nullable=True),
        sa.Column("net_days", sa.Integer(), nullable=True),
        sa.Column("billing_cycle", sa.Text(), server_default="manual", nullable=False),
        sa.Column("anchor_day", sa.Integer(), server_default="1", nullable=False),
        sa.Column("billing_starts_on", sa.Date(), nullable=True),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "billing_cycle = 'manual' OR (billing_starts_on IS NOT NULL AND activated_at IS NOT NULL)",
            name=op.f("ck_clients_on_a_cycle_since"),
        ),
        sa.CheckConstraint(
            "billing_cycle IN ('manual', 'monthly')", name=op.f("ck_clients_billing_cycle")
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_clients_currency")),
        sa.CheckConstraint("anchor_day BETWEEN 1 AND 31", name=op.f("ck_clients_anchor_day")),
        sa.CheckConstraint("net_days BETWEEN 0 AND 365", name=op.f("ck_clients_net_days")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_clients_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clients")),
        sa.UniqueConstraint("account_id", "id", name=op.f("uq_clients_account_id_id")),
    )
    op.create_index(
        "uq_clients_external_ref", "clients", ["account_id", "external_ref"], unique=True
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_idempotency_keys_account_id")
        ),
        sa.PrimaryKeyConstraint("account_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(
        "ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column(
            "lane",
            sa.Uuid(),
            sa.Computed(
                "COALESCE(account_id, '00000000-0000-0000-0000-000000000000'::uuid)", persisted=True
            ),
            nullable=False,
        ),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column(
            "args",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("priority", sa.SmallInteger(), server_default="100", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "run_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("rescues", sa.Integer(), server_default="0", nullable=False),
        sa.Column("dispatches", sa.Integer(), server_default="0", nullable=False),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("unique_key", sa.Text(), nullable=True),
        sa.Column("rerun", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("children_pending", sa.Integer(), server_default="0", nullable=False),
        sa.Column("subject_type", sa.Text(), nullable=True),
        sa.Column("subject_id", sa.Uuid(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (lease_token IS NOT NULL)", name=op.f("ck_jobs_lease")
        ),
        sa.CheckConstraint(
            "(state IN ('cancelled', 'dead', 'skipped', 'succeeded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_finished"),
        ),
        sa.CheckConstraint(
            "state IN ('scheduled', 'ready', 'dispatched', 'running', 'succeeded', 'failed', 'dead', 'cancelled', 'skipped')",
            name=op.f("ck_jobs_state"),
        ),
        sa.CheckConstraint("children_pending >= 0", name=op.f("ck_jobs_children_pending")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_jobs_account_id")),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["jobs.id"], name=op.f("fk_jobs_parent_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["queue"], ["queues.name"], name=op.f("fk_jobs_queue")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_index("ix_jobs_account_id_id", "jobs", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_jobs_dead", "jobs", ["queue"], unique=False, postgresql_where="state = 'dead'"
    )
    op.create_index(
        "ix_jobs_dispatched",
        "jobs",
        ["queue", "dispatched_at"],
        unique=False,
        postgresql_where="state = 'dispatched'",
    )
    op.create_index(
        "ix_jobs_finished_at",
        "jobs",
        ["finished_at"],
        unique=False,
        postgresql_where="finished_at IS NOT NULL",
    )
    op.create_index(
        "ix_jobs_later",
        "jobs",
        ["run_at"],
        unique=False,
        postgresql_where="state IN ('scheduled', 'failed')",
    )
    op.create_index(
        "ix_jobs_parent_id",
        "jobs",
        ["parent_id"],
        unique=False,
        postgresql_where="parent_id IS NOT NULL",
    )
    op.create_index(
        "ix_jobs_ready",
        "jobs",
        ["queue", "priority", "lane", "run_at", "id"],
        unique=False,
        postgresql_where="state = 'ready'",
    )
    op.create_index(
        "ix_jobs_running",
        "jobs",
        ["lease_expires_at"],
        unique=False,
        postgresql_where="state = 'running'",
    )
    op.create_index(
        "ix_jobs_subject",
        "jobs",
        ["subject_id"],
        unique=False,
        postgresql_where="subject_id IS NOT NULL",
    )
    op.create_index(
        "uq_jobs_unique_key",
        "jobs",
        ["unique_key"],
        unique=True,
        postgresql_where="state NOT IN ('cancelled', 'dead', 'skipped', 'succeeded')",
    )
    op.create_table(
        "number_series",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("next_number", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("document IN ('invoice')", name=op.f("ck_number_series_document")),
        sa.CheckConstraint("next_number > 0", name=op.f("ck_number_series_next_number")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_number_series_account_id")
        ),
        sa.PrimaryKeyConstraint("account_id", "document", name=op.f("pk_number_series")),
    )
    op.create_table(
        "schedule_fires",
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("fire_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("missed", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["schedule"],
            ["schedules.name"],
            name=op.f("fk_schedule_fires_schedule"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("schedule", "fire_at", name=op.f("pk_schedule_fires")),
    )
    op.create_table(
        "billing_runs",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=True),
        sa.Column("as_of_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("as_of_on", sa.Date(), nullable=True),
        sa.Column("scheduled", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("dry_run", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("preview", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "num_nonnulls(as_of_at, as_of_on) = 1", name=op.f("ck_billing_runs_as_of")
        ),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_billing_runs_account_id_client_id"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_billing_runs_account_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_billing_runs")),
    )
    op.create_index(
        "ix_billing_runs_account_id_id", "billing_runs", ["account_id", "id"], unique=False
    )
    op.create_index(
        "ix_billing_runs_dry",
        "billing_runs",
        ["finished_at"],
        unique=False,
        postgresql_where="dry_run",
    )
    op.create_index(
        "ix_billing_runs_unfinished",
        "billing_runs",
        ["id"],
        unique=False,
        postgresql_where="finished_at IS NULL",
    )
    op.create_index(
        "uq_billing_runs_scheduled",
        "billing_runs",
        ["account_id"],
        unique=True,
        postgresql_where="scheduled AND finished_at IS NULL",
    )
    op.create_table(
        "job_attempts",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "ended_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_job_attempts_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_attempts")),
    )
    op.create_index("ix_job_attempts_job_id", "job_attempts", ["job_id"], unique=False)
    op.create_table(
        "billing_periods",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("period_start", sa.Date(), nullable=False),
        sa.Column("period_end", sa.Date(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), server_default="open", nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'failed') = (error IS NOT NULL)", name=op.f("ck_billing_periods_error")
        ),
        sa.CheckConstraint(
            "reason IN ('before_activation', 'switched_to_manual', 'draft_deleted', 'charges_on_manual_draft')",
            name=op.f("ck_billing_periods_reason"),
        ),
        sa.CheckConstraint(
            "state IN ('open', 'drafted', 'billed', 'empty', 'held', 'skipped', 'failed')",
            name=op.f("ck_billing_periods_state"),
        ),
        sa.CheckConstraint("period_start < period_end", name=op.f("ck_billing_periods_dates")),
        sa.CheckConstraint("starts_at <= ends_at", name=op.f("ck_billing_periods_instants")),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_billing_periods_account_id_client_id"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["billing_runs.id"], name=op.f("fk_billing_periods_run_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_billing_periods")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_billing_periods_client_id_id")),
        sa.UniqueConstraint(
            "client_id", "period_end", name=op.f("uq_billing_periods_client_id_period_end")
        ),
        sa.UniqueConstraint(
            "client_id", "period_start", name=op.f("uq_billing_periods_client_id_period_start")
        ),
    )
    op.create_index(
        "ix_billing_periods_due",
        "billing_periods",
        ["ends_at"],
        unique=False,
        postgresql_where="state IN ('open', 'failed') AND reason IS NULL",
    )
    op.create_index(
        "ix_billing_periods_run_id_client_id",
        "billing_periods",
        ["run_id", "client_id"],
        unique=False,
        postgresql_where="run_id IS NOT NULL",
    )
    op.create_index(
        "ix_billing_periods_undecided",
        "billing_periods",
        ["account_id", "period_end", "client_id"],
        unique=False,
        postgresql_where="state IN ('open', 'failed')",
    )
    op.create_table(
        "invoices",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("period_id", sa.Uuid(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), server_default="draft", nullable=False),
        sa.Column("number", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("subtotal", sa.BigInteger(), nullable=False),
        sa.Column("tax", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("credit_applied", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("amount_paid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "amount_due",
            sa.BigInteger(),
            sa.Computed(
                "CASE WHEN status = 'void' THEN 0 ELSE total - credit_applied - amount_paid END",
                persisted=True,
            ),
            nullable=False,
        ),
        sa.Column("issued_on", sa.Date(), nullable=True),
        sa.Column("due_on", sa.Date(), nullable=True),
        sa.Column("bill_from", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("bill_to", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finalized_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("voided_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'draft') = (number IS NULL) AND (status = 'draft') = (finalized_at IS NULL) AND (status = 'draft') = (issued_on IS NULL) AND (status = 'draft') = (due_on IS NULL)",
            name=op.f("ck_invoices_finalized"),
        ),
        sa.CheckConstraint(
            "(status = 'void') = (voided_at IS NOT NULL)", name=op.f("ck_invoices_voided")
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_invoices_currency")),
        sa.CheckConstraint(
            "status <> 'paid' OR (paid_at IS NOT NULL AND amount_due = 0)",
            name=op.f("ck_invoices_paid"),
        ),
        sa.CheckConstraint(
            "status IN ('draft', 'open', 'paid', 'void', 'uncollectible')",
            name=op.f("ck_invoices_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('open', 'uncollectible') OR amount_due > 0",
            name=op.f("ck_invoices_owed"),
        ),
        sa.CheckConstraint("amount_paid >= 0", name=op.f("ck_invoices_amount_paid")),
        sa.CheckConstraint("total = subtotal + tax", name=op.f("ck_invoices_total")),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_invoices_account_id_client_id"),
        ),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_invoices_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "period_id"],
            ["billing_periods.client_id", "billing_periods.id"],
            name=op.f("fk_invoices_client_id_period_id"),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["billing_runs.id"], name=op.f("fk_invoices_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoices")),
        sa.UniqueConstraint("account_id", "number", name=op.f("uq_invoices_account_id_number")),
        sa.UniqueConstraint(
            "client_id", "id", "currency", name=op.f("uq_invoices_client_id_id_currency")
        ),
    )
    op.create_index("ix_invoices_account_id_id", "invoices", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_invoices_period_id",
        "invoices",
        ["period_id"],
        unique=False,
        postgresql_where="period_id IS NOT NULL",
    )
    op.create_index(
        "ix_invoices_run_id",
        "invoices",
        ["run_id"],
        unique=False,
        postgresql_where="run_id IS NOT NULL",
    )
    op.create_index(
        "uq_invoices_period_id_currency",
        "invoices",
        ["period_id", "currency"],
        unique=True,
        postgresql_where="period_id IS NOT NULL AND status <> 'void'",
    )
    op.create_table(
        "charges",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=True),
        sa.Column("external_ref", sa.Text(), nullable=True),
        sa.Column("charged_on", sa.Date(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("quantity", sa.Numeric(precision=18, scale=6), nullable=False),
        sa.Column("unit_price", sa.Numeric(precision=22, scale=8), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_charges_currency")),
        sa.CheckConstraint(
            "amount BETWEEN -1000000000000 AND 1000000000000", name=op.f("ck_charges_amount")
        ),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_charges_quantity")),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_charges_account_id_client_id"),
        ),
        sa.ForeignKeyConstraint(
            ["client_id", "invoice_id", "currency"],
            ["invoices.client_id", "invoices.id", "invoices.currency"],
            name=op.f("fk_charges_client_id_invoice_id_currency"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_charges")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("ix_charges_account_id_id", "charges", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_charges_client_id_invoice_id", "charges", ["client_id", "invoice_id"], unique=False
    )
    op.create_index(
        "uq_charges_external_ref", "charges", ["account_id", "external_ref"], unique=True
    )
    op.create_table(
        "invoice_lines",
        sa.Column("invoice_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("charge_id", sa.Uuid(), nullable=False),
        sa.Column("charged_on", sa.Date(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Numeric(), nullable=False),
        sa.Column("unit_price", sa.Numeric(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_invoice_lines_invoice_id")
        ),
        sa.PrimaryKeyConstraint("invoice_id", "position", name=op.f("pk_invoice_lines")),
        sa.UniqueConstraint("charge_id", name=op.f("uq_invoice_lines_charge_id")),
    )
    op.create_table(
        "ledger_entries",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuid7()"), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("invoice_id", sa.Uuid(), nullable=True),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("effective_on", sa.Date(), nullable=False),
        sa.Column(
            "posted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint("currency ~ '^[a-z]{3}$'", name=op.f("ck_ledger_entries_currency")),
        sa.CheckConstraint("event IN ('finalize', 'void')", name=op.f("ck_ledger_entries_event")),
        sa.ForeignKeyConstraint(
            ["account_id", "client_id"],
            ["clients.account_id", "clients.id"],
            name=op.f("fk_ledger_entries_account_id_client_id"),
        ),
        sa.ForeignKeyConstraint(
            ["invoice_id"], ["invoices.id"], name=op.f("fk_ledger_entries_invoice_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entries")),
        sa.UniqueConstraint("id", "currency", name=op.f("uq_ledger_entries_id_currency")),
    )
    op.create_index(
        "ix_ledger_entries_account_id_effective_on",
        "ledger_entries",
        ["account_id", "effective_on"],
        unique=False,
    )
    op.create_index(
        "uq_ledger_entries_invoice_event", "ledger_entries", ["invoice_id", "event"], unique=True
    )
    op.create_table(
        "ledger_postings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("ledger_account", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "ledger_account IN ('receivable', 'revenue', 'credit')",
            name=op.f("ck_ledger_postings_ledger_account"),
        ),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_ledger_postings_amount")),
        sa.ForeignKeyConstraint(
            ["entry_id", "currency"],
            ["ledger_entries.id", "ledger_entries.currency"],
            name=op.f("fk_ledger_postings_entry_id_currency"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_postings")),
    )
    op.create_index("ix_ledger_postings_entry_id", "ledger_postings", ["entry_id"], unique=False)
    op.execute(_QUEUES)
    op.execute(_TRIGGERS)
