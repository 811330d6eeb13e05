-- Gateways of others: set by people, their keys looked after by one process at a time.

-- name: set_gateway
-- One that is there goes on with its keys. No row: there are too many.
INSERT INTO gateway AS kept (gateway, kind, url, token) SELECT $1, $2, $3, $4
WHERE (SELECT count(*) FROM gateway WHERE NOT removed AND gateway <> $1) < $5
ON CONFLICT (gateway) DO UPDATE SET kind = excluded.kind, url = excluded.url, token = excluded.token, removed = false
RETURNING 1

-- name: remove_gateway
-- It stays, and is told nothing.
UPDATE gateway SET removed = true WHERE gateway = $1 AND NOT removed RETURNING 1

-- name: gateways
-- All that are told, without their tokens.
SELECT gateway, kind, url FROM gateway WHERE NOT removed ORDER BY gateway

-- name: set_key
-- One that is there goes on as it stands. No row: there is no such gateway, or there are too many keys.
INSERT INTO gateway_key AS kept (gateway, key, account, scope, budget) SELECT gateway, $2, $3, $4, $5 FROM gateway
WHERE gateway = $1 AND NOT removed AND (SELECT count(*) FROM gateway_key WHERE NOT removed AND (gateway, key) <> ($1, $2)) < $6
ON CONFLICT (gateway, key) DO UPDATE
SET account = excluded.account, scope = excluded.scope, budget = excluded.budget, removed = false
RETURNING 1

-- name: remove_key
-- It stays as the gateway has it, and is looked after no more.
UPDATE gateway_key SET removed = true WHERE gateway = $1 AND key = $2 AND NOT removed RETURNING 1

-- name: keys
-- All that are looked after; of one gateway where it is named.
SELECT key.gateway, key.key, key.account, key.scope, key.budget, key.ordinal, key.blocked, key.reason
FROM gateway_key AS key JOIN gateway USING (gateway)
WHERE NOT key.removed AND NOT gateway.removed AND ($1::text IS NULL OR key.gateway = $1) ORDER BY key.gateway, key.key

-- name: acts
-- How far the carrying out of some acts has come.
SELECT alert_id, delivered_at IS NOT NULL AS told, attempts, error FROM alert WHERE alert_id = ANY($1::text[])

-- name: claim
-- Ours, if it is already or nobody's; a new owner has a new epoch.
UPDATE gateway_watch
SET epoch = epoch + CASE WHEN owner = $1 THEN 0 ELSE 1 END, owner = $1,
    expires_at = clock_timestamp() + make_interval(secs => $2)
WHERE owner = $1 OR expires_at < clock_timestamp() RETURNING epoch

-- name: owns
-- The fence: nobody has claimed it since.
SELECT 1 FROM gateway_watch WHERE epoch = $1 FOR SHARE

-- name: decide
-- How a key is to stand from now on. No row: it was decided, changed or removed meanwhile.
UPDATE gateway_key SET ordinal = ordinal + 1, blocked = $4, reason = $5
WHERE gateway = $1 AND key = $2 AND ordinal = $3 AND blocked <> $4 AND NOT removed RETURNING ordinal

-- name: write_act
-- Into the outbox of all alerts.
INSERT INTO alert (alert_id, partition, account, log_offset, body) VALUES ($1, -2, '', $2, $3)

-- name: act_of
-- What an act is to be carried out with. No row: another has taken its place, or key or gateway are gone.
SELECT gateway.kind, gateway.url, gateway.token, key.budget, key.blocked
FROM gateway_key AS key JOIN gateway USING (gateway)
WHERE key.gateway = $1 AND key.key = $2 AND key.ordinal = $3 AND NOT key.removed AND NOT gateway.removed
