-- Every query of actors/endpoints.py, by name.

-- name: raise_change
-- The number of the change about to be made. The row's lock makes changes come one after the other.
UPDATE webhook_change SET change = change + 1 RETURNING change

-- name: count_endpoints
-- All of them, and those of one account (or of all accounts).
SELECT count(*) AS everywhere, count(*) FILTER (WHERE account IS NOT DISTINCT FROM $1) AS here
FROM webhook_endpoint WHERE disabled_at IS NULL

-- name: add_endpoint
-- A new endpoint.
INSERT INTO webhook_endpoint (endpoint_id, account, url, rules, secret, change) VALUES ($1, $2, $3, $4, $5, $6)
RETURNING endpoint_id, account, url, rules, created_at, previous_until, disabled_at, disabled_reason

-- name: list_endpoints
-- A page in order of id: those of one account, or all where none is named.
SELECT endpoint_id, account, url, rules, created_at, previous_until, disabled_at, disabled_reason
FROM webhook_endpoint WHERE ($1::text IS NULL OR account = $1) AND endpoint_id > $2 ORDER BY endpoint_id LIMIT $3

-- name: get_endpoint
-- One endpoint; none where it belongs to another account than the one named.
SELECT endpoint_id, account, url, rules, created_at, previous_until, disabled_at, disabled_reason
FROM webhook_endpoint WHERE endpoint_id = $1 AND ($2::text IS NULL OR account = $2)

-- name: get_listener
-- One endpoint with its secrets.
SELECT endpoint_id, account, url, rules, created_at, previous_until, disabled_at, disabled_reason, secret, previous_secret
FROM webhook_endpoint WHERE endpoint_id = $1 AND ($2::text IS NULL OR account = $2)

-- name: changed_listeners
-- What has changed since a number, with secrets; from the beginning only what is told of alerts.
SELECT endpoint_id, account, url, rules, created_at, previous_until, disabled_at, disabled_reason, secret, previous_secret, change
FROM webhook_endpoint WHERE change > $1 AND ($1 > 0 OR disabled_at IS NULL) ORDER BY change

-- name: disable_endpoint
-- Tell it of nothing more. The first reason stays.
UPDATE webhook_endpoint
SET disabled_at = coalesce(disabled_at, clock_timestamp()), change = $3,
    disabled_reason = CASE WHEN disabled_at IS NULL THEN $4 ELSE disabled_reason END
WHERE endpoint_id = $1 AND ($2::text IS NULL OR account = $2)
RETURNING endpoint_id, account, url, rules, created_at, previous_until, disabled_at, disabled_reason

-- name: enable_endpoint
-- Tell it again.
UPDATE webhook_endpoint SET disabled_at = NULL, disabled_reason = '', change = $3
WHERE endpoint_id = $1 AND ($2::text IS NULL OR account = $2)
RETURNING endpoint_id, account, url, rules, created_at, previous_until, disabled_at, disabled_reason

-- name: rotate_secret
-- The present secret becomes the previous one, valid for so many seconds more.
UPDATE webhook_endpoint
SET previous_secret = secret, previous_until = clock_timestamp() + make_interval(secs => $5), secret = $4, change = $3
WHERE endpoint_id = $1 AND ($2::text IS NULL OR account = $2)
RETURNING endpoint_id, account, url, rules, created_at, previous_until, disabled_at, disabled_reason

-- name: add_deliveries
-- What came of some attempts.
INSERT INTO webhook_delivery (alert_id, endpoint_id, account, cause, attempt, at, delivered, status, error, duration_ms)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::timestamptz[], $7::boolean[],
                     $8::integer[], $9::text[], $10::integer[])

-- name: list_deliveries
-- A page, the newest first; each filter is left out where it is not given.
SELECT delivery_id, alert_id, endpoint_id, account, cause, attempt, at, delivered, status, error, duration_ms
FROM webhook_delivery
WHERE ($1::text IS NULL OR endpoint_id = $1) AND ($2::text IS NULL OR account = $2) AND ($3::text IS NULL OR alert_id = $3)
  AND delivery_id < $4
ORDER BY delivery_id DESC LIMIT $5

-- name: forget_deliveries
-- Some of those that are too old.
DELETE FROM webhook_delivery WHERE delivery_id IN
  (SELECT delivery_id FROM webhook_delivery WHERE at < clock_timestamp() - make_interval(days => $1) ORDER BY at LIMIT $2)

-- name: get_alert
-- What was, or is to be, told; none where it belongs to another account than the one named.
SELECT alert_id, account, log_offset, body FROM alert WHERE alert_id = $1 AND ($2::text IS NULL OR account = $2)
