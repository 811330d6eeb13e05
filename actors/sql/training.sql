-- Training runs: declared by people, moved on by their logs, judged by whoever owns the first partition of the margin.

-- name: set_run
-- A run that is there goes on where its log has come to; one that was removed begins anew. No row: there are too many.
INSERT INTO training_run AS kept (run, gpu, gpus, started_us, unit, budget, level, precision, peak)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
WHERE (SELECT count(*) FROM training_run WHERE NOT removed AND run <> $1) < $10
ON CONFLICT (run) DO UPDATE
SET gpu = excluded.gpu, gpus = excluded.gpus, started_us = excluded.started_us, unit = excluded.unit,
    budget = excluded.budget, level = excluded.level, precision = excluded.precision, peak = excluded.peak,
    revision = kept.revision + 1, removed = false, active = kept.active AND NOT kept.removed,
    progress = CASE WHEN kept.removed THEN '{}' ELSE kept.progress END
RETURNING 1

-- name: remove_run
-- It stays, with its ordinal, but nobody looks at it.
UPDATE training_run SET removed = true, active = false, revision = revision + 1 WHERE run = $1 AND NOT removed RETURNING 1

-- name: runs
-- All that are looked at.
SELECT run, gpu, gpus, started_us, unit, budget, level, precision, peak, progress, ordinal, active, revision
FROM training_run WHERE NOT removed ORDER BY run

-- name: one_run
-- One, to be moved on.
SELECT run, gpu, gpus, started_us, unit, budget, level, precision, peak, progress, ordinal, active, revision
FROM training_run WHERE run = $1 AND NOT removed FOR UPDATE

-- name: move_on
-- How far its log has come.
UPDATE training_run SET progress = $2, revision = revision + 1 WHERE run = $1 RETURNING revision

-- name: write_standing
-- How its budget stands. No row: it has moved on, or was changed, meanwhile.
UPDATE training_run SET ordinal = $3, active = $4 WHERE run = $1 AND revision = $2 RETURNING 1
