-- API keys.

-- name: key_counter
-- Moves with every change of a key.
SELECT counter FROM api_key_change

-- name: count_key_change
-- Also queues those who change keys, one behind the other.
UPDATE api_key_change SET counter = counter + 1

-- name: insert_key
-- A new key.
INSERT INTO api_key (public_id, name, digest, scopes, account, created_by, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: live_keys
-- Every key that can still be used; whether it has expired is judged at each use.
SELECT public_id, name, digest, scopes, account, expires_at FROM api_key WHERE revoked_at IS NULL

-- name: live_key
-- One of them.
SELECT public_id, name, digest, scopes, account, expires_at FROM api_key WHERE public_id = $1 AND revoked_at IS NULL

-- name: count_live_keys
-- Against the limit.
SELECT count(*) FROM api_key WHERE revoked_at IS NULL

-- name: list_keys
-- Newest first; $1 is the position after which to go on, as (created_at, public_id).
SELECT public_id, name, scopes, account, created_at, created_by, expires_at, revoked_at
FROM api_key
WHERE $1::timestamptz IS NULL OR (created_at, public_id) < ($1, $2)
ORDER BY created_at DESC, public_id DESC
LIMIT $3

-- name: revoke_key
-- Again changes nothing; no row: there is no such key.
UPDATE api_key SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE public_id = $1 RETURNING public_id
