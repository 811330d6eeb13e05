-- Margin floors: set by people, looked at hour by hour.

-- name: set_floor
-- A new floor looks from the hour on that is given; one that is there goes on. No row: there are too many.
INSERT INTO margin_floor AS kept (floor, of, subject, permille, clear_permille, level, next_us)
SELECT $1, $2, $3, $4, $5, $6, $7
WHERE (SELECT count(*) FROM margin_floor WHERE NOT removed AND floor <> $1) < $8
ON CONFLICT (floor) DO UPDATE
SET of = excluded.of, subject = excluded.subject, permille = excluded.permille, clear_permille = excluded.clear_permille,
    level = excluded.level, revision = kept.revision + 1, removed = false,
    active = kept.active AND NOT kept.removed AND (kept.of, kept.subject) = (excluded.of, excluded.subject),
    next_us = CASE WHEN kept.removed THEN excluded.next_us ELSE kept.next_us END,
    last_us = CASE WHEN (kept.of, kept.subject) = (excluded.of, excluded.subject) THEN kept.last_us END,
    last_permille = CASE WHEN (kept.of, kept.subject) = (excluded.of, excluded.subject) THEN kept.last_permille END
RETURNING 1

-- name: remove_floor
-- It stays, with its ordinal, but nobody looks at it.
UPDATE margin_floor SET removed = true, active = false, revision = revision + 1 WHERE floor = $1 AND NOT removed RETURNING 1

-- name: floors
-- All that are looked at.
SELECT floor, of, subject, permille, clear_permille, level, ordinal, active, next_us, last_us, last_permille, revision
FROM margin_floor WHERE NOT removed ORDER BY floor

-- name: told_us
-- Since when every partition's rows hold all that was appended; null until every one has a checkpoint.
SELECT CASE WHEN count(*) >= $1 THEN min(told_us) END FROM margin_partition WHERE partition < $1

-- name: costs_settled
-- Up to where all costs have been told as they settled; null where nobody attributes any.
SELECT min(settled_us) FROM cost_partition WHERE ckpt_seq > 0

-- name: hour_sums
-- What an hour came to of one model, plan or account, by currency.
SELECT currency, sum(revenue) AS revenue, sum(known_cost) AS known_cost, sum(requests)::bigint AS requests,
    sum(without_cost)::bigint AS without_cost, sum(without_revenue)::bigint AS without_revenue,
    sum(provisional)::bigint AS provisional, sum(foreign_cost)::bigint AS foreign_cost
FROM margin_row WHERE hour_us = $1 AND CASE $2 WHEN 'model' THEN model WHEN 'plan' THEN plan ELSE account END = $3
GROUP BY currency ORDER BY currency

-- name: write_standing
-- How a floor stands behind an hour. No row: somebody has looked, or changed it, meanwhile.
UPDATE margin_floor
SET ordinal = $4, active = $5, next_us = $6, last_us = CASE WHEN $8::integer IS NULL THEN last_us ELSE $7 END,
    last_permille = coalesce($8, last_permille)
WHERE floor = $1 AND revision = $2 AND next_us = $3 RETURNING 1
