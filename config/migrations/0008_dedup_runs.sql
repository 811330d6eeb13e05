-- The memory of rated events at rest: what is loose, and what is sealed for good (engine/dedup.py).

ALTER TABLE dedup_segment ADD COLUMN generation bigint NOT NULL DEFAULT 0;
ALTER TABLE dedup_segment DROP CONSTRAINT dedup_segment_pkey;
ALTER TABLE dedup_segment ADD PRIMARY KEY (partition, bucket, generation, level, seq);
COMMENT ON COLUMN dedup_segment.generation IS 'All segments of a generation become one sealed run, which takes their place.';
COMMENT ON COLUMN dedup_segment.level IS '0: written by a checkpoint. n+1: many of level n joined, up to a megabyte or two; then they wait to be sealed.';

CREATE TABLE dedup_run (
    partition  integer NOT NULL,
    bucket     bigint NOT NULL,
    generation bigint NOT NULL,
    ids        bigint NOT NULL CHECK (ids > 0),
    outline    bytea NOT NULL,
    digest     bytea NOT NULL CHECK (octet_length(digest) = 16),
    PRIMARY KEY (partition, bucket, generation)
);
ALTER TABLE dedup_run ALTER COLUMN outline SET STORAGE EXTERNAL;
COMMENT ON TABLE dedup_run IS 'Sealed runs of identities of rated events; written once, deleted with their bucket.';
COMMENT ON COLUMN dedup_run.outline IS 'The first 32 bits of each identity (engine/runs.py): what a takeover loads.';
COMMENT ON COLUMN dedup_run.digest IS 'xxh3-128 of outline and rows, by which a copy on local disk is known to be whole.';

CREATE TABLE dedup_rows (
    partition  integer NOT NULL,
    bucket     bigint NOT NULL,
    generation bigint NOT NULL,
    part       integer NOT NULL,
    entries    bytea NOT NULL CHECK (octet_length(entries) % 16 = 0),
    PRIMARY KEY (partition, bucket, generation, part)
);
-- So that a single row can be read out of the middle.
ALTER TABLE dedup_rows ALTER COLUMN entries SET STORAGE EXTERNAL;
COMMENT ON TABLE dedup_rows IS 'The other 16 bytes of each entry of a sealed run, 65,536 entries a part.';

GRANT SELECT, INSERT, DELETE ON dedup_run, dedup_rows TO tallygate_engine;
