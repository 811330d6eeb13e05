-- Shadows of catalogue drafts: what live usage would be charged under a draft, beside what it is charged. Nothing that rates,
-- checks or alerts reads any of it.

CREATE TABLE catalogue_shadow (
    draft      bigint PRIMARY KEY REFERENCES catalogue_draft,
    life       bigint NOT NULL DEFAULT 1,
    started_by text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    stopped_by text,
    stopped_at timestamptz,
    CHECK (num_nonnulls(stopped_by, stopped_at) IN (0, 2))
);
COMMENT ON TABLE catalogue_shadow IS 'Drafts under which live usage is rated a second time, or was.';
COMMENT ON COLUMN catalogue_shadow.life IS 'Grows when a shadow that was stopped is started anew: what an earlier one told is gone by then.';

CREATE TABLE shadow_partition (
    draft       bigint NOT NULL REFERENCES catalogue_shadow,
    partition   integer NOT NULL CHECK (partition >= 0),
    life        bigint NOT NULL,
    epoch       bigint NOT NULL DEFAULT 1,
    owner       text NOT NULL,
    base_offset bigint,
    from_us     bigint,
    next_offset bigint,
    log_time_us bigint,
    turns       jsonb NOT NULL DEFAULT '[]',
    trouble     text NOT NULL DEFAULT '',
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (draft, partition),
    CHECK (num_nonnulls(base_offset, from_us, next_offset, log_time_us) IN (0, 4))
) WITH (fillfactor = 50);
COMMENT ON TABLE shadow_partition IS 'How far a shadow has folded each partition of the log; fenced by epoch and life.';
COMMENT ON COLUMN shadow_partition.base_offset IS 'The checkpoint that it began with; it lies in shadow_base, so that whoever follows next folds the same records again.';
COMMENT ON COLUMN shadow_partition.from_us IS 'Event time from which the draft is in force here.';

CREATE TABLE shadow_base (
    draft     bigint NOT NULL,
    partition integer NOT NULL,
    part      integer NOT NULL,
    body      bytea NOT NULL,
    PRIMARY KEY (draft, partition, part),
    FOREIGN KEY (draft, partition) REFERENCES shadow_partition
);
COMMENT ON TABLE shadow_base IS 'A sealed base, in parts.';

CREATE TABLE shadow_takings (
    draft         bigint NOT NULL,
    partition     integer NOT NULL,
    account       text NOT NULL,
    plan          text NOT NULL,
    currency      text NOT NULL,
    before        numeric(38, 12) NOT NULL,
    after         numeric(38, 12) NOT NULL,
    events_before bigint NOT NULL,
    events_after  bigint NOT NULL,
    PRIMARY KEY (draft, account),
    FOREIGN KEY (draft, partition) REFERENCES shadow_partition
) WITH (fillfactor = 75);
COMMENT ON TABLE shadow_takings IS 'What usage since from_us is charged, as published and under the draft; before credit.';

GRANT SELECT, INSERT ON catalogue_shadow TO tallygate_engine;
GRANT UPDATE (life, started_by, started_at, stopped_by, stopped_at) ON catalogue_shadow TO tallygate_engine;
GRANT SELECT, INSERT, UPDATE, DELETE ON shadow_partition, shadow_base, shadow_takings TO tallygate_engine;
