-- What the margin of a model, a plan or a customer must not fall below, and how each floor stands.

ALTER TABLE margin_partition ADD COLUMN told_us bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN margin_partition.told_us IS 'What was appended to rated and costs before this instant is in the rows.';

CREATE TABLE margin_floor (
    floor          text PRIMARY KEY,
    of             text NOT NULL CHECK (of IN ('model', 'plan', 'account')),
    subject        text NOT NULL,
    permille       integer NOT NULL,
    clear_permille integer NOT NULL CHECK (clear_permille >= permille),
    level          text NOT NULL,
    ordinal        bigint NOT NULL DEFAULT 0,
    active         boolean NOT NULL DEFAULT false,
    next_us        bigint NOT NULL,
    last_us        bigint,
    last_permille  integer,
    removed        boolean NOT NULL DEFAULT false,
    revision       bigint NOT NULL DEFAULT 1
);
COMMENT ON TABLE margin_floor IS 'Looked at hour by hour. One that was removed keeps its ordinal, should it come again.';
COMMENT ON COLUMN margin_floor.next_us IS 'The hour that is looked at next.';
COMMENT ON COLUMN margin_floor.last_us IS 'The last hour that said something, and what its margin was.';
COMMENT ON COLUMN margin_floor.revision IS 'Grows with every change by a person: what was looked at under an earlier one is not written.';
COMMENT ON COLUMN alert.partition IS 'Of the account''s log; -1: a margin floor''s, which is of no log.';

GRANT SELECT, INSERT, UPDATE ON margin_floor TO tallygate_engine;
