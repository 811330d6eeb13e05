-- Rates by day, as the seller records them: what margin in one currency is made at.

-- name: set_rate
-- Recorded, or recorded anew.
INSERT INTO margin_rate (day, source, target, rate) VALUES ($1, $2, $3, $4)
ON CONFLICT (source, target, day) DO UPDATE SET rate = excluded.rate, recorded_at = clock_timestamp()

-- name: remove_rate
-- Of one day.
DELETE FROM margin_rate WHERE day = $1 AND source = $2 AND target = $3 RETURNING 1

-- name: rates
-- Of days in [$1, $2], into one currency or ($3 null) all, the latest first.
SELECT day, source, target, rate, recorded_at FROM margin_rate
WHERE day BETWEEN $1 AND $2 AND ($3::text IS NULL OR target = $3) ORDER BY day DESC, source, target LIMIT $4
