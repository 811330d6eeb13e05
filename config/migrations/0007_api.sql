-- What the HTTP API keeps: keys, the audit trail, answers to be given again. And the indexes of its lists.

CREATE TABLE api_key (
    public_id  text PRIMARY KEY,
    name       text NOT NULL,
    digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
    scopes     text[] NOT NULL CHECK (cardinality(scopes) > 0),
    account    text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX api_key_by_age ON api_key (created_at, public_id);
COMMENT ON TABLE api_key IS 'API keys. A row is never deleted, and only revoked_at ever changes.';
COMMENT ON COLUMN api_key.digest IS 'SHA-256 of the secret, which is kept nowhere.';
COMMENT ON COLUMN api_key.account IS 'The only account the key may touch. NULL: all.';

CREATE TABLE api_key_change (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    counter  bigint NOT NULL
);
INSERT INTO api_key_change (counter) VALUES (0);
COMMENT ON TABLE api_key_change IS 'Raised by every change of a key, in the same transaction: replicas load the keys again when it has moved.';

CREATE TABLE audit (
    audit_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL,
    act        text NOT NULL,
    stage      text NOT NULL CHECK (stage IN ('asked', 'done', 'refused')),
    account    text,
    subject    text NOT NULL,
    before     jsonb,
    after      jsonb,
    reason     text NOT NULL,
    request_id text NOT NULL
);
CREATE INDEX audit_by_account ON audit (account, audit_id);
CREATE INDEX audit_by_act ON audit (act, audit_id);
CREATE INDEX audit_by_request ON audit (request_id, audit_id);
COMMENT ON TABLE audit IS 'Who did what, and why. Append-only: the engine may neither change nor delete a row.';
COMMENT ON COLUMN audit.stage IS 'A row "asked" is written before the act, or it does not happen; a second one, with the same request_id, says how it ended. Without the second nobody knows.';
COMMENT ON COLUMN audit.actor IS 'Public id of the API key, or the command line.';
COMMENT ON COLUMN audit.subject IS 'What the act was about: an id, or empty while there is none.';
COMMENT ON COLUMN audit.reason IS 'As the caller gave it; empty if none.';

CREATE TABLE idempotency (
    actor           text NOT NULL,
    idempotency_key text NOT NULL,
    operation       text NOT NULL,
    digest          bytea NOT NULL CHECK (octet_length(digest) = 32),
    begun_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    status          integer,
    answer          bytea,
    PRIMARY KEY (actor, idempotency_key),
    CHECK ((status IS NULL) = (answer IS NULL))
);
CREATE INDEX idempotency_by_age ON idempotency (begun_at);
COMMENT ON TABLE idempotency IS 'Answers to be given again to whoever repeats a request, for 24 hours.';
COMMENT ON COLUMN idempotency.digest IS 'SHA-256 of path, query and body: the same key with another request is refused.';
COMMENT ON COLUMN idempotency.answer IS 'Sealed (AES-GCM) under a key derived from the control key, because it may show a secret. NULL: not answered yet, or the answer was lost.';

-- The ledger, the commands and the alerts of one account, and dead letters, are listed by place in the log or by age.
DROP INDEX posting_by_account;
CREATE INDEX posting_by_account ON posting (account, ckpt_seq, line);
CREATE INDEX command_by_account ON command (account, log_offset);
CREATE INDEX alert_by_account ON alert (account, log_offset, alert_id);
CREATE INDEX dead_letter_by_age ON dead_letter (recorded_at, partition, log_offset);
CREATE INDEX dead_letter_by_reason ON dead_letter (reason, recorded_at, partition, log_offset);

GRANT SELECT, INSERT ON api_key TO tallygate_engine;
GRANT UPDATE (revoked_at) ON api_key TO tallygate_engine;
GRANT SELECT, UPDATE ON api_key_change TO tallygate_engine;
GRANT SELECT, INSERT ON audit TO tallygate_engine;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency TO tallygate_engine;
