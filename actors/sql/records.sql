-- Lists for people and programs, by the HTTP API. Read-only: the session refuses anything else.

-- name: list_accounts
-- As the last checkpoints have them; behind ($1, $2).
SELECT partition, account, balance, spend, currency FROM account
WHERE (partition, account) > ($1::integer, $2::text) ORDER BY partition, account LIMIT $3

-- name: get_account
-- One of them.
SELECT partition, account, balance, spend, currency FROM account WHERE partition = $1 AND account = $2

-- name: list_postings
-- The ledger of an account, newest first; before ($2, $3).
SELECT partition, ckpt_seq, line, lot, lot_kind, kind, usage_period_us, posting_period_us, amount FROM posting
WHERE account = $1 AND (ckpt_seq, line) < ($2::bigint, $3::integer) ORDER BY ckpt_seq DESC, line DESC LIMIT $4

-- name: list_commands
-- What an account was told to be, newest first; before $2.
SELECT partition, log_offset, log_time_us, command_key, kind, body, answer FROM command
WHERE account = $1 AND log_offset < $2 ORDER BY log_offset DESC LIMIT $3

-- name: list_alerts
-- Alerts of an account, newest first; before ($2, $3).
SELECT alert_id, log_offset, body, created_at, attempts, delivered_at, given_up_at, error FROM alert
WHERE account = $1 AND (log_offset, alert_id) < ($2::bigint, $3::text) ORDER BY log_offset DESC, alert_id DESC LIMIT $4

-- name: page_dead_letters
-- All of them, newest first; before ($1, $2, $3).
SELECT partition, log_offset, log_time_us, reason, detail, key, value, recorded_at FROM dead_letter
WHERE (recorded_at, partition, log_offset) < ($1::timestamptz, $2::integer, $3::bigint)
  AND ($4::integer IS NULL OR partition = $4)
ORDER BY recorded_at DESC, partition DESC, log_offset DESC LIMIT $5

-- name: page_dead_letters_of_reason
-- Those of one reason, newest first; before ($1, $2, $3).
SELECT partition, log_offset, log_time_us, reason, detail, key, value, recorded_at FROM dead_letter
WHERE (recorded_at, partition, log_offset) < ($1::timestamptz, $2::integer, $3::bigint)
  AND ($4::integer IS NULL OR partition = $4) AND reason = $6
ORDER BY recorded_at DESC, partition DESC, log_offset DESC LIMIT $5

-- name: get_dead_letter
-- One of them.
SELECT partition, log_offset, log_time_us, reason, detail, key, value, recorded_at FROM dead_letter
WHERE partition = $1 AND log_offset = $2

-- name: find_dead_letters
-- Those among the newest $3 of a partition whose record, of at most $5 bytes, holds the bytes $2; newest first.
SELECT partition, log_offset, log_time_us, reason, detail, key, value, recorded_at
FROM (SELECT * FROM dead_letter WHERE partition = $1 ORDER BY log_offset DESC LIMIT $3) AS newest
WHERE octet_length(value) <= $5 AND position($2::bytea IN value) > 0 ORDER BY log_offset DESC LIMIT $4

-- name: list_catalogues
-- Published versions, newest first; below $1.
SELECT version, sha256, published_at FROM catalogue WHERE version < $1 ORDER BY version DESC LIMIT $2

-- name: get_catalogue
-- One of them, with its body.
SELECT version, sha256, published_at, body FROM catalogue WHERE version = $1

-- name: partition_states
-- Each partition's own state: it has the instants from which catalogue versions are in force.
SELECT blob FROM partition WHERE blob IS NOT NULL ORDER BY partition
