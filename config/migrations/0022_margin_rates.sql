-- Margin in one currency: rates by day, as the seller records them, and how many requests cost something in another currency
-- than they were charged in.

CREATE TABLE margin_rate (
    day         date NOT NULL,
    source      text NOT NULL,
    target      text NOT NULL CHECK (target <> source),
    rate        numeric(38, 12) NOT NULL CHECK (rate > 0),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, target, day)
);
COMMENT ON TABLE margin_rate IS 'One unit of source is so much of target on that day. Who recorded it, and what was before, stands in the audit trail.';

ALTER TABLE margin_row ADD COLUMN foreign_cost bigint NOT NULL DEFAULT 0;
ALTER TABLE margin_run ADD COLUMN foreign_cost bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN margin_row.foreign_cost IS 'Requests some of whose cost is in another currency than they were charged in, and so stands in another row. While there are any, the cost of this row is not known unless both are converted. Of hours that had closed before this column was there, they are among without_cost.';

GRANT SELECT, INSERT, UPDATE, DELETE ON margin_rate TO tallygate_engine;
