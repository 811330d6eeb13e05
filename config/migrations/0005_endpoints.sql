-- Who is told of alerts, and what came of each attempt.

CREATE TABLE webhook_endpoint (
    endpoint_id     text PRIMARY KEY,
    account         text,
    url             text NOT NULL CHECK (octet_length(url) <= 2048),
    rules           text[],
    secret          bytea NOT NULL,
    previous_secret bytea,
    previous_until  timestamptz,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at     timestamptz,
    disabled_reason text NOT NULL DEFAULT '',
    change          bigint NOT NULL,
    CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
);
CREATE INDEX webhook_endpoint_by_account ON webhook_endpoint (account, endpoint_id);
CREATE INDEX webhook_endpoint_by_change ON webhook_endpoint (change);
COMMENT ON TABLE webhook_endpoint IS 'Where signed alerts go. A disabled endpoint is told of nothing; a row is never deleted.';
COMMENT ON COLUMN webhook_endpoint.account IS 'Whose alerts it is told of. NULL: those of all accounts.';
COMMENT ON COLUMN webhook_endpoint.rules IS 'Names of the rules it is told of. NULL: all.';
COMMENT ON COLUMN webhook_endpoint.secret IS 'Signing secret, sealed (AES-GCM) under a key derived from the control key; the key''s id stands in front.';
COMMENT ON COLUMN webhook_endpoint.previous_secret IS 'The secret before the last rotation: until previous_until, messages are signed with both.';

CREATE TABLE webhook_change (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    change   bigint NOT NULL
);
INSERT INTO webhook_change (change) VALUES (0);
COMMENT ON COLUMN webhook_endpoint.change IS 'webhook_change.change as its last change raised it: whoever has seen a number asks for rows above it.';
COMMENT ON TABLE webhook_change IS 'Raised by every change of an endpoint, in the same transaction. The row''s lock puts changes in order, so that none can appear below a number already seen.';

CREATE TABLE webhook_delivery (
    delivery_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id    text NOT NULL,
    endpoint_id text NOT NULL,
    account     text,
    cause       text NOT NULL CHECK (cause IN ('alert', 'resend', 'test')),
    attempt     integer NOT NULL CHECK (attempt > 0),
    at          timestamptz NOT NULL,
    delivered   boolean NOT NULL,
    status      integer,
    error       text NOT NULL,
    duration_ms integer NOT NULL CHECK (duration_ms >= 0)
);
CREATE INDEX webhook_delivery_by_endpoint ON webhook_delivery (endpoint_id, delivery_id);
CREATE INDEX webhook_delivery_by_account ON webhook_delivery (account, delivery_id);
CREATE INDEX webhook_delivery_by_alert ON webhook_delivery (alert_id, delivery_id);
CREATE INDEX webhook_delivery_by_time ON webhook_delivery (at);
COMMENT ON TABLE webhook_delivery IS 'One row per attempt, kept 30 days: added and deleted as a whole, never changed. Written beside the telling and not with it, so a crash may lose the last second of it.';
COMMENT ON COLUMN webhook_delivery.endpoint_id IS 'No foreign key: the endpoint of the settings (we_settings) has no row.';
COMMENT ON COLUMN webhook_delivery.attempt IS 'Counted from 1 per alert and endpoint, and anew after another shard has taken the alert over.';
COMMENT ON COLUMN webhook_delivery.status IS 'HTTP status. NULL: no answer came.';

GRANT SELECT, INSERT, UPDATE ON webhook_endpoint TO tallygate_engine;
GRANT SELECT, UPDATE ON webhook_change TO tallygate_engine;
GRANT SELECT, INSERT, DELETE ON webhook_delivery TO tallygate_engine;
