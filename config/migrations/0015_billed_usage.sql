-- What a provider has billed for GPUs or endpoints: to be held against what we said they cost.

CREATE TABLE billed_usage (
    record      text PRIMARY KEY,
    sku         text NOT NULL,
    unit        text NOT NULL,
    begin_us    bigint NOT NULL,
    end_us      bigint NOT NULL CHECK (end_us > begin_us),
    quantity    numeric(38, 18) NOT NULL,
    endpoint    text NOT NULL,
    type        text NOT NULL CHECK (type IN ('ORIGINAL', 'RETRACTION', 'RESTATEMENT')),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX billed_usage_by_time ON billed_usage (begin_us);
COMMENT ON TABLE billed_usage IS 'Records as they were billed: only added. They add up; a retraction has a negative quantity.';
COMMENT ON COLUMN billed_usage.endpoint IS 'Empty: it is of none.';

CREATE TABLE list_price (
    sku      text NOT NULL,
    unit     text NOT NULL,
    from_us  bigint NOT NULL,
    until_us bigint CHECK (until_us > from_us),
    currency text NOT NULL,
    amount   numeric(38, 18) NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (sku, unit, from_us)
);
COMMENT ON TABLE list_price IS 'What a unit of a SKU costs from an instant on. An open price is closed by its next import.';

GRANT SELECT, INSERT ON billed_usage TO tallygate_engine;
GRANT SELECT, INSERT, UPDATE ON list_price TO tallygate_engine;
