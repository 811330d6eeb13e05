-- What GPUs cost, by hour: sums as they stand, and every difference that made them. Written by one transaction per
-- checkpoint of a partition of the topic `served`, fenced by cost_partition.epoch and cost_partition.ckpt_seq.

CREATE TABLE cost_partition (
    partition      integer PRIMARY KEY CHECK (partition >= 0),
    epoch          bigint NOT NULL DEFAULT 1,
    ckpt_seq       bigint NOT NULL DEFAULT 0,
    next_offset    bigint NOT NULL DEFAULT 0,
    last_offset    bigint,
    last_append_ms bigint,
    last_digest    bytea CHECK (octet_length(last_digest) = 16),
    blob           bytea,
    settled_us     bigint NOT NULL DEFAULT 0,
    closed_us      bigint NOT NULL DEFAULT 0,
    owner          text NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (num_nonnulls(last_offset, last_append_ms, last_digest) IN (0, 3))
) WITH (fillfactor = 50);
COMMENT ON TABLE cost_partition IS 'One row per partition of the topic served: who attributes its cost, and up to where its last checkpoint goes.';
COMMENT ON COLUMN cost_partition.blob IS 'engine/cost/attribution.py. What is not closed is worked out again from the records.';
COMMENT ON COLUMN cost_partition.settled_us IS 'Windows that end by this instant change only by what comes late.';
COMMENT ON COLUMN cost_partition.closed_us IS 'Hours that begin before this instant never change.';

CREATE TABLE cost_row (
    partition integer NOT NULL,
    hour_us   bigint NOT NULL,
    replica   text NOT NULL,
    model     text NOT NULL,
    bucket    text NOT NULL,
    account   text NOT NULL,
    feature   text NOT NULL,
    currency  text NOT NULL,
    amount    numeric(38, 12) NOT NULL,
    unknown   bigint NOT NULL,
    requests  bigint NOT NULL,
    computed  bigint NOT NULL,
    cached    bigint NOT NULL,
    output    bigint NOT NULL,
    PRIMARY KEY (hour_us, partition, replica, model, bucket, account, feature)
) WITH (fillfactor = 75);
COMMENT ON TABLE cost_row IS 'What an hour has cost, by replica, model, bucket, account and feature. Of one replica and hour they sum to its GPUs and overhead.';
COMMENT ON COLUMN cost_row.account IS 'Empty: not known, or the bucket is not direct. Likewise feature.';
COMMENT ON COLUMN cost_row.unknown IS 'Shares without a known cost. While there are any, the cost of the row is not known, and amount is what is known of it.';
COMMENT ON COLUMN cost_row.requests IS 'Executions that ended in the hour; then the tokens of their prompts that were computed and cached, and those made.';

CREATE TABLE cost_change (
    partition   integer NOT NULL,
    ckpt_seq    bigint NOT NULL,
    line        integer NOT NULL,
    hour_us     bigint NOT NULL,
    replica     text NOT NULL,
    model       text NOT NULL,
    bucket      text NOT NULL,
    account     text NOT NULL,
    feature     text NOT NULL,
    currency    text NOT NULL,
    change      numeric(38, 12) NOT NULL,
    settled     boolean NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partition, ckpt_seq, line)
);
COMMENT ON TABLE cost_change IS 'Signed differences: those of a row sum to it. They are only added.';
COMMENT ON COLUMN cost_change.settled IS 'The hour had settled before: this is a correction.';

CREATE TABLE cost_dead_letter (
    partition   integer NOT NULL,
    log_offset  bigint NOT NULL,
    reason      text NOT NULL,
    detail      text NOT NULL,
    key         bytea,
    value       bytea,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partition, log_offset)
);
COMMENT ON TABLE cost_dead_letter IS 'Records of the topic served that changed nothing, and why.';

GRANT SELECT, INSERT, UPDATE ON cost_partition, cost_row TO tallygate_engine;
GRANT SELECT, INSERT ON cost_change, cost_dead_letter TO tallygate_engine;
