-- What the requests of a run, an agent's say, were charged and cost: the same rows as in margin_row, of requests that belong
-- to a run, and told apart by it. What is in here is in margin_row too.

CREATE TABLE margin_run (
    partition       integer NOT NULL,
    hour_us         bigint NOT NULL,
    account         text NOT NULL,
    run             text NOT NULL,
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
    charges         bigint NOT NULL,
    costs           bigint NOT NULL,
    PRIMARY KEY (account, run, hour_us, partition, model, feature, plan, currency)
) WITH (fillfactor = 75);
CREATE INDEX margin_run_by_hour ON margin_run (partition, hour_us);
COMMENT ON TABLE margin_run IS 'What the requests of a run were charged and cost in an hour. Its parts stand in margin_row too: never add up both.';
COMMENT ON COLUMN margin_run.charges IS 'Charges in it that bill the run as a whole, such as that of an outcome.';
COMMENT ON COLUMN margin_run.costs IS 'Costs in it whose currency is known. The last 35 days say which runs have any.';

GRANT SELECT, INSERT, UPDATE ON margin_run TO tallygate_engine;
