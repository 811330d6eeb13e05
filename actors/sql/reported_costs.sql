-- Reported costs beside computed ones.

-- name: record
-- As they stand now.
INSERT INTO reported_cost (source, id, provider, model, time_us, currency, computed, reported)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::numeric[], $8::numeric[]
)
ON CONFLICT (source, id) DO UPDATE
SET provider = excluded.provider, model = excluded.model, time_us = excluded.time_us, currency = excluded.currency,
    computed = excluded.computed, reported = excluded.reported, recorded_at = clock_timestamp()

-- name: gaps
-- By provider, model, currency and day (UTC). A gap is of requests of which both are known.
SELECT provider, model, currency, time_us / 86400000000 * 86400000000 AS day_us, count(*) AS requests,
    count(*) FILTER (WHERE computed IS NULL) AS without_computed, count(*) FILTER (WHERE reported IS NULL) AS without_reported,
    coalesce(sum(computed), 0) AS computed, coalesce(sum(reported), 0) AS reported,
    coalesce(sum(reported - computed), 0) AS gap, count(*) FILTER (WHERE reported <> computed) AS differing
FROM reported_cost WHERE time_us >= $1 AND time_us < $2 GROUP BY 1, 2, 3, 4 ORDER BY 4, 1, 2, 3 LIMIT $3
