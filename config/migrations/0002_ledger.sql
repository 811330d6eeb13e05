-- What is written once and never changed: commands, postings, dead letters, catalogues. And the outbox of alerts.

CREATE TABLE command (
    partition   integer NOT NULL,
    log_offset  bigint NOT NULL,
    log_time_us bigint NOT NULL,
    account     text NOT NULL,
    command_key text NOT NULL,
    digest      bytea NOT NULL CHECK (octet_length(digest) = 16),
    kind        text NOT NULL,
    body        bytea NOT NULL,
    answer      text NOT NULL,
    PRIMARY KEY (partition, log_offset)
);
CREATE INDEX command_by_key ON command (account, command_key, log_offset);
CREATE INDEX command_by_time ON command (partition, log_time_us);
COMMENT ON TABLE command IS 'Every command that was answered: the audit copy, and the memory of idempotency keys.';
COMMENT ON COLUMN command.digest IS 'Hash of the body: the same key with another body is refused.';
COMMENT ON COLUMN command.answer IS '"applied", or the refusal''s wire name.';

CREATE TABLE posting (
    partition         integer NOT NULL,
    ckpt_seq          bigint NOT NULL,
    line              integer NOT NULL,
    account           text NOT NULL,
    lot               text NOT NULL,
    lot_kind          text NOT NULL,
    kind              text NOT NULL,
    usage_period_us   bigint,
    posting_period_us bigint NOT NULL,
    amount            numeric(38, 12) NOT NULL,
    PRIMARY KEY (partition, ckpt_seq, line)
);
CREATE INDEX posting_by_account ON posting (account, lot);
COMMENT ON TABLE posting IS 'Signed changes of a lot''s standing or of debt. Append-only: the engine may neither change nor delete a row.';
COMMENT ON COLUMN posting.ckpt_seq IS 'The checkpoint that wrote it; line numbers its postings from 0.';
COMMENT ON COLUMN posting.lot IS 'Empty for debt.';
COMMENT ON COLUMN posting.usage_period_us IS 'Start of the billing period of the usage; NULL for a grant or an expiry.';
COMMENT ON COLUMN posting.amount IS 'In units of the account''s currency.';

CREATE TABLE alert (
    alert_id     text PRIMARY KEY,
    partition    integer NOT NULL,
    account      text NOT NULL,
    log_offset   bigint NOT NULL,
    body         bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts     integer NOT NULL DEFAULT 0,
    delivered_at timestamptz,
    given_up_at  timestamptz,
    error        text NOT NULL DEFAULT ''
);
CREATE INDEX alert_waiting ON alert (partition, log_offset) WHERE delivered_at IS NULL AND given_up_at IS NULL;
COMMENT ON TABLE alert IS 'Outbox: an alert is told at least once, always with the same id and the same bytes.';
COMMENT ON COLUMN alert.body IS 'The JSON that is signed and sent.';
COMMENT ON COLUMN alert.error IS 'Of the last failed attempt; empty if none.';

CREATE TABLE dead_letter (
    partition   integer NOT NULL,
    log_offset  bigint NOT NULL,
    log_time_us bigint NOT NULL,
    reason      text NOT NULL,
    detail      text NOT NULL,
    key         bytea,
    value       bytea,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partition, log_offset)
);
CREATE INDEX dead_letter_engine_error ON dead_letter (partition, log_offset) WHERE reason = 'engine_error';
COMMENT ON TABLE dead_letter IS 'Records that were not rated, with the reason, as they came.';

CREATE TABLE catalogue (
    version      bigint PRIMARY KEY CHECK (version > 0),
    body         bytea NOT NULL,
    sha256       bytea NOT NULL CHECK (octet_length(sha256) = 32),
    published_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE catalogue IS 'Immutable versions of all meters and plans. The engine may add a version, never change one.';
COMMENT ON COLUMN catalogue.body IS 'JSON (engine/catalog.py).';
