-- What training runs have cost and will cost: as their owners declare them, and how far their logs say they have come.

CREATE TABLE training_run (
    run        text PRIMARY KEY,
    gpu        text NOT NULL,
    gpus       integer NOT NULL CHECK (gpus > 0),
    started_us bigint NOT NULL,
    unit       text NOT NULL,
    budget     numeric(38, 12) CHECK (budget >= 0),
    level      text NOT NULL,
    precision  text NOT NULL,
    peak       numeric(30),
    progress   text NOT NULL DEFAULT '{}',
    ordinal    bigint NOT NULL DEFAULT 0,
    active     boolean NOT NULL DEFAULT false,
    removed    boolean NOT NULL DEFAULT false,
    revision   bigint NOT NULL DEFAULT 1
);
COMMENT ON TABLE training_run IS 'One that was removed keeps its ordinal, should it come again.';
COMMENT ON COLUMN training_run.gpu IS 'The kind that names the rate.';
COMMENT ON COLUMN training_run.peak IS 'Operations a second of one GPU. NULL: what is known of the kind.';
COMMENT ON COLUMN training_run.progress IS 'engine/cost/training.py, Progress, as JSON: the last of everything that the log says.';
COMMENT ON COLUMN training_run.revision IS 'Grows with every change: what was judged under an earlier one is not written.';

GRANT SELECT, INSERT, UPDATE ON training_run TO tallygate_engine;
