-- What requests earned beside what they cost, by hour: sums as they stand. Written by one transaction per checkpoint of a
-- partition of the topic `rated`, fenced by margin_partition.epoch and margin_partition.ckpt_seq.

CREATE TABLE margin_partition (
    partition     integer PRIMARY KEY CHECK (partition >= 0),
    epoch         bigint NOT NULL DEFAULT 1,
    ckpt_seq      bigint NOT NULL DEFAULT 0,
    rated_offset  bigint NOT NULL DEFAULT 0,
    costs_offsets bigint[] NOT NULL DEFAULT '{}',
    closed_us     bigint NOT NULL DEFAULT 0,
    owner         text NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE margin_partition IS 'One row per partition of accounts: who joins their charges with their costs, and up to where its last checkpoint goes.';
COMMENT ON COLUMN margin_partition.costs_offsets IS 'By partition of the topic costs.';
COMMENT ON COLUMN margin_partition.closed_us IS 'Hours that begin before this instant never change.';

CREATE TABLE margin_row (
    partition       integer NOT NULL,
    hour_us         bigint NOT NULL,
    account         text NOT NULL,
    model           text NOT NULL,
    feature         text NOT NULL,
    plan            text NOT NULL,
    currency        text NOT NULL,
    revenue         numeric(38, 12) NOT NULL,
    known_cost      numeric(38, 12) NOT NULL,
    requests        bigint NOT NULL,
    without_cost    bigint NOT NULL,
    without_revenue bigint NOT NULL,
    provisional     bigint NOT NULL,
    PRIMARY KEY (hour_us, partition, account, model, feature, plan, currency)
) WITH (fillfactor = 75);
COMMENT ON TABLE margin_row IS 'What the requests of an hour were charged and cost, by account, model, feature and plan. An empty text: not known.';
COMMENT ON COLUMN margin_row.without_cost IS 'Requests of which some cost is not known. While there are any, so is the cost of the row, and known_cost is what is known of it.';
COMMENT ON COLUMN margin_row.provisional IS 'Requests whose cost may still change without a correction.';

GRANT SELECT, INSERT, UPDATE ON margin_partition, margin_row TO tallygate_engine;
