-- Shadows of catalogue drafts.

-- name: running
-- How many there are.
SELECT count(*) FROM catalogue_shadow WHERE stopped_at IS NULL

-- name: one_at_a_time
-- Whoever starts one waits until others have.
SELECT pg_advisory_xact_lock(hashtext('catalogue_shadow'))

-- name: lock_shadow
-- Nobody else starts or stops it meanwhile.
SELECT life, stopped_at IS NULL AS runs FROM catalogue_shadow WHERE draft = $1 FOR UPDATE

-- name: start_shadow
-- A new life of it; what an earlier one told is removed by then.
INSERT INTO catalogue_shadow AS kept (draft, started_by) VALUES ($1, $2)
ON CONFLICT (draft) DO UPDATE SET life = kept.life + 1, started_by = excluded.started_by, started_at = clock_timestamp(),
    stopped_by = NULL, stopped_at = NULL

-- name: stop_shadow
-- What it has found stays.
UPDATE catalogue_shadow SET stopped_by = $2, stopped_at = clock_timestamp() WHERE draft = $1

-- name: remove_takings
-- Of an earlier life.
DELETE FROM shadow_takings WHERE draft = $1

-- name: remove_bases
-- Nobody folds again from there.
DELETE FROM shadow_base WHERE draft = $1

-- name: remove_partitions
-- Of an earlier life.
DELETE FROM shadow_partition WHERE draft = $1

-- name: active
-- Those that are to be followed.
SELECT shadow.draft, shadow.life, draft.body
FROM catalogue_shadow AS shadow JOIN catalogue_draft AS draft USING (draft) WHERE shadow.stopped_at IS NULL ORDER BY 1

-- name: claim
-- Whoever followed it before is refused at its next write. No row: that life is over.
INSERT INTO shadow_partition AS kept (draft, partition, life, owner)
SELECT $1, $2, $3, $4 FROM catalogue_shadow WHERE draft = $1 AND life = $3 AND stopped_at IS NULL
ON CONFLICT (draft, partition) DO UPDATE SET epoch = kept.epoch + 1, owner = excluded.owner WHERE kept.life = $3
RETURNING epoch, base_offset, from_us, next_offset, log_time_us

-- name: begin
-- The base is stored; no row: fenced.
UPDATE shadow_partition SET base_offset = $5, next_offset = $5, from_us = $6, log_time_us = $7, updated_at = clock_timestamp()
WHERE draft = $1 AND partition = $2 AND life = $3 AND epoch = $4 AND base_offset IS NULL RETURNING 1

-- name: put_part
-- One piece of a sealed base.
INSERT INTO shadow_base (draft, partition, part, body) VALUES ($1, $2, $3, $4)

-- name: parts
-- All pieces, in order.
SELECT body FROM shadow_base WHERE draft = $1 AND partition = $2 ORDER BY part

-- name: advance
-- No row: fenced.
UPDATE shadow_partition SET next_offset = $5, log_time_us = $6, turns = $7, trouble = '', updated_at = clock_timestamp()
WHERE draft = $1 AND partition = $2 AND life = $3 AND epoch = $4 AND next_offset <= $5 RETURNING 1

-- name: put_takings
-- Customers whose takings have changed, as they stand.
INSERT INTO shadow_takings AS kept (draft, partition, account, plan, currency, before, after, events_before, events_after)
SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::text[], $6::numeric[], $7::numeric[], $8::bigint[], $9::bigint[])
ON CONFLICT (draft, account) DO UPDATE SET before = excluded.before, after = excluded.after,
    events_before = excluded.events_before, events_after = excluded.events_after

-- name: tell_trouble
-- Why a partition does not get on.
UPDATE shadow_partition SET trouble = $5, updated_at = clock_timestamp()
WHERE draft = $1 AND partition = $2 AND life = $3 AND epoch = $4 AND trouble <> $5

-- name: shadow
-- One, whatever has become of it.
SELECT draft, life, started_by, started_at, stopped_by, stopped_at FROM catalogue_shadow WHERE draft = $1

-- name: partitions
-- How far it has come.
SELECT partition, base_offset, from_us, next_offset, log_time_us, turns, trouble FROM shadow_partition WHERE draft = $1 ORDER BY partition

-- name: plans
-- What the customers of each plan bring.
SELECT plan, currency, count(*) AS customers, sum(before) AS before, sum(after) AS after, sum(events_before)::bigint AS events_before,
    sum(events_after)::bigint AS events_after
FROM shadow_takings WHERE draft = $1 GROUP BY plan, currency ORDER BY plan, currency

-- name: customers
-- Those with the largest differences first, or the one asked for.
SELECT account, plan, currency, before, after, events_before, events_after FROM shadow_takings
WHERE draft = $1 AND ($2::text IS NULL OR account = $2) ORDER BY abs(after - before) DESC, account LIMIT $3
