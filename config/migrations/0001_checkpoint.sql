-- What a partition must find again after a crash: its own row, its accounts, and its memory of identities.
-- Everything here is written by one transaction per checkpoint, fenced by partition.epoch and partition.ckpt_seq.

CREATE TABLE partition (
    partition       integer PRIMARY KEY CHECK (partition >= 0),
    epoch           bigint NOT NULL DEFAULT 0,
    ckpt_seq        bigint NOT NULL DEFAULT 0,
    next_offset     bigint NOT NULL DEFAULT 0,
    last_offset     bigint,
    last_append_ms  bigint,
    last_digest     bytea CHECK (octet_length(last_digest) = 16),
    blob            bytea,
    owner           text,
    previous_owners text[] NOT NULL DEFAULT '{}',
    backend_pid     integer,
    backend_start   timestamptz,
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (num_nonnulls(last_offset, last_append_ms, last_digest) IN (0, 3))
) WITH (fillfactor = 50);
COMMENT ON TABLE partition IS 'One row per partition of the topic usage: who owns it, and up to where its last checkpoint goes.';
COMMENT ON COLUMN partition.epoch IS 'Number of the ownership. It only grows; a checkpoint that carries another one is refused.';
COMMENT ON COLUMN partition.ckpt_seq IS 'Number of the last checkpoint; the next one must carry this plus one.';
COMMENT ON COLUMN partition.next_offset IS 'The first offset that is not in the checkpoint.';
COMMENT ON COLUMN partition.last_digest IS 'Hash of the record at last_offset, compared at takeover to notice a log that was cut and regrown.';
COMMENT ON COLUMN partition.blob IS 'The partition''s own state (engine/snapshot.py). NULL: never checkpointed.';
COMMENT ON COLUMN partition.owner IS 'Incarnation that claimed it last. NULL: given back.';
COMMENT ON COLUMN partition.previous_owners IS 'Earlier owners whose lease had not run out at the last claim: until it has, they may still answer.';
COMMENT ON COLUMN partition.backend_pid IS 'The owner''s committing session; a successor ends it, so that a transaction it left open blocks nobody.';
COMMENT ON COLUMN partition.backend_start IS 'Start of that session: a pid alone may have been given to someone else.';

CREATE TABLE account (
    partition integer NOT NULL,
    account   text NOT NULL,
    blob      bytea NOT NULL,
    wake_us   bigint,
    balance   numeric(38, 12) NOT NULL,
    spend     numeric(38, 12) NOT NULL,
    currency  text NOT NULL,
    PRIMARY KEY (partition, account)
) WITH (fillfactor = 75);
-- No further index: an index on a column that changes with every checkpoint would forbid in-page updates.
COMMENT ON TABLE account IS 'The accounts of a checkpoint. The truth is the blob; the plain columns are for people.';
COMMENT ON COLUMN account.blob IS 'engine/snapshot.py';
COMMENT ON COLUMN account.wake_us IS 'Log time (microseconds since 1970 UTC) at which the account wants waking.';
COMMENT ON COLUMN account.balance IS 'In units of the currency. Never read back by the engine.';
COMMENT ON COLUMN account.spend IS 'Of the newest calendar month with usage, in units of the currency. Never read back by the engine.';

CREATE TABLE dedup_segment (
    partition integer NOT NULL,
    bucket    bigint NOT NULL,
    level     integer NOT NULL DEFAULT 0,
    seq       bigint NOT NULL,
    entries   bytea NOT NULL CHECK (octet_length(entries) % 20 = 0),
    PRIMARY KEY (partition, bucket, level, seq)
);
-- Hashes do not compress; trying would cost time in every checkpoint.
ALTER TABLE dedup_segment ALTER COLUMN entries SET STORAGE EXTERNAL;
COMMENT ON TABLE dedup_segment IS 'Identities of rated events: append-only runs of 20-byte entries (engine/dedup.py), merged as they grow many.';
COMMENT ON COLUMN dedup_segment.bucket IS 'floor(log time / 7 days); a bucket is deleted as a whole.';
COMMENT ON COLUMN dedup_segment.level IS '0: written by a checkpoint. n+1: many runs of level n joined, so an entry is rewritten at most once per level.';
COMMENT ON COLUMN dedup_segment.seq IS 'ckpt_seq of the newest checkpoint inside.';
