-- name: add_draft
-- A new draft; its row.
INSERT INTO catalogue_draft (body, sha256, based_on, created_by) VALUES ($1, sha256($1), $2, $3) RETURNING *

-- name: get_draft
-- One draft.
SELECT * FROM catalogue_draft WHERE draft = $1

-- name: list_drafts
-- Newest first, without their bodies; below $1.
SELECT draft, NULL::bytea AS body, sha256, based_on, created_by, created_at, state, decided_by, decided_at, version, effective_us
FROM catalogue_draft WHERE draft < $1 ORDER BY draft DESC LIMIT $2

-- name: lock_draft
-- Nobody else decides about it meanwhile.
SELECT state FROM catalogue_draft WHERE draft = $1 FOR UPDATE

-- name: publish_draft
-- Its body becomes version $2; no row: that version exists.
INSERT INTO catalogue (version, body, sha256) SELECT $2, body, sha256 FROM catalogue_draft WHERE draft = $1
ON CONFLICT DO NOTHING RETURNING version

-- name: decide_draft
-- Who decided what; its row.
UPDATE catalogue_draft SET state = $2, decided_by = $3, decided_at = clock_timestamp(), version = $4, effective_us = $5
WHERE draft = $1 RETURNING *
