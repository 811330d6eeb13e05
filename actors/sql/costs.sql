-- Checkpoints of cost attribution, and what people ask of them.

-- name: claim
-- A new ownership of a partition begins: whoever owned it before is refused at its next checkpoint.
INSERT INTO cost_partition AS kept (partition, owner) VALUES ($1, $2)
ON CONFLICT (partition) DO UPDATE SET epoch = kept.epoch + 1, owner = excluded.owner, updated_at = clock_timestamp()
RETURNING epoch, ckpt_seq, next_offset, last_offset, last_append_ms, last_digest, blob, settled_us

-- name: rows_from
-- The rows of a partition that may still change: hours that begin at an instant or later.
SELECT hour_us, replica, model, bucket, account, feature, amount, unknown, requests, computed, cached, output
FROM cost_row WHERE partition = $1 AND hour_us >= $2

-- name: commit_partition
-- The fence of a checkpoint: no row means that somebody else owns the partition.
UPDATE cost_partition
SET ckpt_seq = $3, next_offset = $4, last_offset = $5, last_append_ms = $6, last_digest = $7, blob = $8,
    settled_us = $9, closed_us = $10, updated_at = clock_timestamp()
WHERE partition = $1 AND epoch = $2 AND ckpt_seq = $3::bigint - 1 RETURNING partition

-- name: commit_rows
-- Rows that changed, as they stand.
INSERT INTO cost_row AS kept (
    partition, currency, hour_us, replica, model, bucket, account, feature, amount, unknown, requests, computed, cached, output
)
SELECT $1, $2, * FROM unnest(
    $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::numeric[], $10::bigint[],
    $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[]
)
ON CONFLICT (hour_us, partition, replica, model, bucket, account, feature) DO UPDATE
SET currency = excluded.currency, amount = excluded.amount, unknown = excluded.unknown, requests = excluded.requests,
    computed = excluded.computed, cached = excluded.cached, output = excluded.output

-- name: commit_changes
-- The differences that made them.
INSERT INTO cost_change (
    partition, ckpt_seq, currency, line, hour_us, replica, model, bucket, account, feature, change, settled
)
SELECT $1, $2, $3, line, hour_us, replica, model, bucket, account, feature, change, settled FROM unnest(
    $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::numeric[], $11::boolean[]
) WITH ORDINALITY AS told (hour_us, replica, model, bucket, account, feature, change, settled, line)

-- name: commit_dead_letters
-- What was set aside.
INSERT INTO cost_dead_letter (partition, log_offset, reason, detail, key, value)
SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::text[], $5::bytea[], $6::bytea[]) ON CONFLICT DO NOTHING

-- name: drop_changes
-- Differences of hours that closed long ago, some at a time, in the order in which they came. While the oldest one is to be kept
-- no other is looked at.
DELETE FROM cost_change WHERE ctid IN (
    SELECT ctid FROM (
        SELECT ctid, hour_us FROM cost_change
        WHERE partition = $1
            AND (SELECT hour_us < $2 FROM cost_change WHERE partition = $1 ORDER BY ckpt_seq, line LIMIT 1)
        ORDER BY ckpt_seq, line LIMIT $3
    ) AS oldest WHERE hour_us < $2
)

-- name: partitions
-- How far each partition has come.
SELECT partition, epoch, ckpt_seq, next_offset, settled_us, closed_us, owner FROM cost_partition ORDER BY partition

-- name: blobs
-- What the newest checkpoints know of rates and replicas.
SELECT partition, blob FROM cost_partition WHERE blob IS NOT NULL

-- name: sums
-- What hours have cost, by what is asked for; an empty text where it is not.
SELECT CASE WHEN $3 THEN account ELSE '' END AS account, CASE WHEN $4 THEN model ELSE '' END AS model,
    CASE WHEN $5 THEN feature ELSE '' END AS feature, CASE WHEN $6 THEN hour_us ELSE 0 END AS hour_us, bucket, currency,
    sum(amount) AS amount, sum(unknown)::bigint AS unknown, sum(requests)::bigint AS requests,
    sum(computed)::bigint AS computed, sum(cached)::bigint AS cached, sum(output)::bigint AS output
FROM cost_row WHERE hour_us >= $1 AND hour_us < $2 GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 4, 1, 2, 3, 5, 6

-- name: change_sums
-- The sums of all differences, by row; to be held against the rows.
SELECT hour_us, replica, model, bucket, account, feature, sum(change) AS change FROM cost_change WHERE partition = $1
GROUP BY 1, 2, 3, 4, 5, 6

-- name: dead_letters
-- What was set aside, newest first.
SELECT partition, log_offset, reason, detail FROM cost_dead_letter ORDER BY recorded_at DESC, log_offset DESC LIMIT $1
