-- Checkpoints of the margin of requests, and what people ask of it.

-- name: claim
-- A new ownership of a partition begins: whoever owned it before is refused at its next checkpoint.
INSERT INTO margin_partition AS kept (partition, owner) VALUES ($1, $2)
ON CONFLICT (partition) DO UPDATE SET epoch = kept.epoch + 1, owner = excluded.owner, updated_at = clock_timestamp()
RETURNING epoch, ckpt_seq, rated_offset, costs_offsets, closed_us

-- name: rows_from
-- The rows of a partition that may still change.
SELECT hour_us, account, model, feature, plan, currency, revenue, known_cost, requests, without_cost, without_revenue, provisional,
    foreign_cost
FROM margin_row WHERE partition = $1 AND hour_us >= $2

-- name: run_rows_from
-- The rows of runs of a partition: those that may still change, and what is known of the others.
SELECT hour_us, account, model, feature, plan, currency, revenue, known_cost, requests, without_cost, without_revenue,
    provisional, foreign_cost, run, charges, costs
FROM margin_run WHERE partition = $1 AND hour_us >= $2

-- name: costs_closed
-- Hours that begin before this instant are not told of any more by any actor that attributes cost; none has begun: null.
SELECT min(closed_us) FROM cost_partition WHERE ckpt_seq > 0

-- name: commit_partition
-- The fence of a checkpoint: no row means that somebody else owns the partition.
UPDATE margin_partition
SET ckpt_seq = $3, rated_offset = $4, costs_offsets = $5, closed_us = $6, told_us = $7, updated_at = clock_timestamp()
WHERE partition = $1 AND epoch = $2 AND ckpt_seq = $3::bigint - 1 RETURNING partition

-- name: commit_rows
-- Rows that changed, as they stand.
INSERT INTO margin_row AS kept (
    partition, hour_us, account, model, feature, plan, currency, revenue, known_cost, requests, without_cost, without_revenue,
    provisional, foreign_cost
)
SELECT $1, * FROM unnest(
    $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::numeric[], $9::numeric[], $10::bigint[],
    $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[]
)
ON CONFLICT (hour_us, partition, account, model, feature, plan, currency) DO UPDATE
SET revenue = excluded.revenue, known_cost = excluded.known_cost, requests = excluded.requests,
    without_cost = excluded.without_cost, without_revenue = excluded.without_revenue, provisional = excluded.provisional,
    foreign_cost = excluded.foreign_cost

-- name: commit_run_rows
-- The same, of runs.
INSERT INTO margin_run AS kept (
    partition, hour_us, account, model, feature, plan, currency, revenue, known_cost, requests, without_cost, without_revenue,
    provisional, foreign_cost, run, charges, costs
)
SELECT $1, * FROM unnest(
    $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::numeric[], $9::numeric[], $10::bigint[],
    $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::text[], $16::bigint[], $17::bigint[]
)
ON CONFLICT (account, run, hour_us, partition, model, feature, plan, currency) DO UPDATE
SET revenue = excluded.revenue, known_cost = excluded.known_cost, requests = excluded.requests,
    without_cost = excluded.without_cost, without_revenue = excluded.without_revenue, provisional = excluded.provisional,
    foreign_cost = excluded.foreign_cost, charges = excluded.charges, costs = excluded.costs

-- name: drop_run_rows
-- Of runs what is older than rows are kept, some at a time: the first time there may be very many.
DELETE FROM margin_run WHERE ctid IN (
    SELECT ctid FROM margin_run WHERE partition = $1 AND hour_us < $2 LIMIT $3
)

-- name: statuses
-- How far each partition has come.
SELECT partition, epoch, ckpt_seq, rated_offset, costs_offsets, closed_us, owner FROM margin_partition ORDER BY partition

-- name: sums
-- What hours that begin in [$1, $2) have come to, by what is asked for; an empty text, or 0, where it is not: by stretches of
-- $3 microseconds. A limit bounds what one question may bring.
SELECT CASE WHEN $3::bigint = 0 THEN 0 ELSE hour_us - hour_us % nullif($3::bigint, 0) END AS hour_us, CASE WHEN $4 THEN account ELSE '' END AS account,
    CASE WHEN $5 THEN model ELSE '' END AS model, CASE WHEN $6 THEN feature ELSE '' END AS feature,
    CASE WHEN $7 THEN plan ELSE '' END AS plan, currency, sum(revenue) AS revenue, sum(known_cost) AS known_cost,
    sum(requests)::bigint AS requests, sum(without_cost)::bigint AS without_cost,
    sum(without_revenue)::bigint AS without_revenue, sum(provisional)::bigint AS provisional,
    sum(foreign_cost)::bigint AS foreign_cost
FROM margin_row WHERE hour_us >= $1 AND hour_us < $2 AND ($8::text IS NULL OR account = $8)
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6 LIMIT $9

-- name: run_sums
-- The same, by run: of requests that belong to one.
SELECT CASE WHEN $3::bigint = 0 THEN 0 ELSE hour_us - hour_us % nullif($3::bigint, 0) END AS hour_us, CASE WHEN $4 THEN account ELSE '' END AS account,
    CASE WHEN $5 THEN model ELSE '' END AS model, CASE WHEN $6 THEN feature ELSE '' END AS feature,
    CASE WHEN $7 THEN plan ELSE '' END AS plan, currency, run, sum(revenue) AS revenue, sum(known_cost) AS known_cost,
    sum(requests)::bigint AS requests, sum(without_cost)::bigint AS without_cost,
    sum(without_revenue)::bigint AS without_revenue, sum(provisional)::bigint AS provisional,
    sum(foreign_cost)::bigint AS foreign_cost
FROM margin_run WHERE hour_us >= $1 AND hour_us < $2 AND ($8::text IS NULL OR account = $8)
GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7 LIMIT $9

-- name: sums_of_run
-- One run, in all hours.
SELECT 0::bigint AS hour_us, account, '' AS model, '' AS feature, '' AS plan, currency, run, sum(revenue) AS revenue,
    sum(known_cost) AS known_cost, sum(requests)::bigint AS requests, sum(without_cost)::bigint AS without_cost,
    sum(without_revenue)::bigint AS without_revenue, sum(provisional)::bigint AS provisional,
    sum(foreign_cost)::bigint AS foreign_cost
FROM margin_run WHERE account = $1 AND run = $2 GROUP BY account, run, currency
HAVING sum(requests) <> 0 OR sum(revenue) <> 0 OR sum(known_cost) <> 0 ORDER BY currency

-- name: buckets
-- Where the cost of all GPUs went in these hours.
SELECT bucket, currency, sum(amount) AS amount, sum(unknown)::bigint AS unknown
FROM cost_row WHERE hour_us >= $1 AND hour_us < $2 GROUP BY 1, 2 ORDER BY 1, 2
