-- Catalogues that are proposed: kept until somebody approves one, which publishes it, or discards it.

CREATE TABLE catalogue_draft (
    draft        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body         bytea NOT NULL,
    sha256       bytea NOT NULL CHECK (octet_length(sha256) = 32),
    based_on     bigint NOT NULL CHECK (based_on >= 0),
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    state        text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'approved', 'discarded')),
    decided_by   text,
    decided_at   timestamptz,
    version      bigint REFERENCES catalogue,
    effective_us bigint,
    CHECK ((state = 'draft') = (decided_by IS NULL)),
    CHECK (num_nonnulls(decided_by, decided_at) IN (0, 2)),
    CHECK (num_nonnulls(version, effective_us) = CASE state WHEN 'approved' THEN 2 ELSE 0 END)
);
COMMENT ON TABLE catalogue_draft IS 'Proposed catalogues. Nothing is rated by a draft; approving it adds its body to the table catalogue. A body never changes.';
COMMENT ON COLUMN catalogue_draft.based_on IS 'The newest version when it was drafted; 0: none. It can be approved only while that is still the newest.';
COMMENT ON COLUMN catalogue_draft.created_by IS 'Public id of the API key.';
COMMENT ON COLUMN catalogue_draft.decided_by IS 'Public id of the API key that approved or discarded it.';
COMMENT ON COLUMN catalogue_draft.effective_us IS 'Event time from which the version is in force; 0: for all time.';

GRANT SELECT, INSERT ON catalogue_draft TO tallygate_engine;
GRANT UPDATE (state, decided_by, decided_at, version, effective_us) ON catalogue_draft TO tallygate_engine;
