-- What providers reported that a request cost, beside what a price sheet made of its usage.

CREATE TABLE reported_cost (
    source      text NOT NULL,
    id          text NOT NULL,
    provider    text NOT NULL,
    model       text NOT NULL,
    time_us     bigint NOT NULL,
    currency    text NOT NULL,
    computed    numeric(38, 12),
    reported    numeric(38, 12),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, id)
);
CREATE INDEX reported_cost_by_time ON reported_cost (time_us);
COMMENT ON TABLE reported_cost IS 'By usage event. What is recorded again, under another sheet, takes the place of what was.';
COMMENT ON COLUMN reported_cost.computed IS 'NULL: not known. Likewise reported.';

GRANT SELECT, INSERT, UPDATE ON reported_cost TO tallygate_engine;
