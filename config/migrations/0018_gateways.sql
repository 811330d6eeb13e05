-- Gateways of others that are told to let a customer's key spend no more, and to let it spend again.

CREATE TABLE gateway (
    gateway  text PRIMARY KEY,
    kind     text NOT NULL,
    url      text NOT NULL CHECK (octet_length(url) <= 2048),
    token    bytea NOT NULL,
    removed  boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE gateway IS 'One that was removed is told nothing any more.';
COMMENT ON COLUMN gateway.token IS 'What lets us administer its keys, sealed (AES-GCM) under a key derived from the control key.';

CREATE TABLE gateway_key (
    gateway text NOT NULL REFERENCES gateway,
    key     text NOT NULL,
    account text NOT NULL,
    scope   text NOT NULL,
    budget  text,
    ordinal bigint NOT NULL DEFAULT 0,
    blocked boolean NOT NULL DEFAULT false,
    reason  text NOT NULL DEFAULT '',
    removed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (gateway, key)
);
COMMENT ON TABLE gateway_key IS 'A key of a gateway, and whose it is. One that was removed keeps its ordinal, should it come again.';
COMMENT ON COLUMN gateway_key.budget IS 'What the gateway allows it while it may spend. NULL: no limit.';
COMMENT ON COLUMN gateway_key.ordinal IS 'Counts the acts: of those in the outbox only the last is carried out.';
COMMENT ON COLUMN gateway_key.reason IS 'Why it is blocked; empty while it is not.';

CREATE TABLE gateway_watch (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch      bigint NOT NULL,
    owner      text NOT NULL,
    expires_at timestamptz NOT NULL
);
INSERT INTO gateway_watch (epoch, owner, expires_at) VALUES (0, '', '-infinity');
COMMENT ON TABLE gateway_watch IS 'Which process looks after the keys. What another decides or carries out is refused by its epoch.';
COMMENT ON COLUMN alert.partition IS 'Of the account''s log; -1: of no log, for the seller; -2: of no log, for a gateway.';

GRANT SELECT, INSERT, UPDATE ON gateway, gateway_key TO tallygate_engine;
GRANT SELECT, UPDATE ON gateway_watch TO tallygate_engine;
