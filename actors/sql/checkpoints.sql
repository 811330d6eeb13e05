-- Whole checkpoints, for whoever seals, rebuilds and reconciles. Only reads; each in one repeatable-read transaction.

-- name: partitions
-- Every partition that was ever claimed.
SELECT partition FROM partition ORDER BY partition

-- name: head
-- The partition's own row.
SELECT epoch, ckpt_seq, next_offset, last_offset, last_append_ms, last_digest, blob FROM partition WHERE partition = $1

-- name: postings
-- The ledger of a partition, summed by all that a posting says of its place and of the period that it was made in.
SELECT account, lot, lot_kind, kind, usage_period_us, posting_period_us, sum(amount) AS amount,
       min(ckpt_seq) AS first_seq, max(ckpt_seq) AS last_seq
FROM posting WHERE partition = $1
GROUP BY account, lot, lot_kind, kind, usage_period_us, posting_period_us
ORDER BY account, lot, kind, usage_period_us, posting_period_us, lot_kind

-- name: alerts
-- Every alert of a partition, told or not.
SELECT alert_id, account, log_offset, body FROM alert WHERE partition = $1 ORDER BY log_offset, alert_id

-- name: dead_letters
-- What was not rated.
SELECT log_offset, log_time_us, reason, detail, key, value FROM dead_letter WHERE partition = $1 ORDER BY log_offset

-- name: commands
-- Every command from an offset on.
SELECT log_offset, log_time_us, account, command_key, digest, kind, body, answer
FROM command WHERE partition = $1 AND log_offset >= $2 ORDER BY log_offset

-- name: plan_changes
-- When accounts were sold other plans: the log time of each such command.
SELECT account, log_time_us FROM command WHERE partition = $1 AND kind = 'set_plan' AND answer = 'applied'

-- name: run_entries
-- The rows of a sealed run.
SELECT entries FROM dedup_rows WHERE partition = $1 AND bucket = $2 AND generation = $3 ORDER BY part
