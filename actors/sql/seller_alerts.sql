-- Alerts for the seller: of no log, so of no partition that anybody could own. Whoever owns the first partition of the margin
-- writes them, one at a time.

-- name: owns
-- The fence: whoever looks owns the first partition of the margin.
SELECT 1 FROM margin_partition WHERE partition = 0 AND epoch = $1 FOR SHARE

-- name: write_alert
-- Into the outbox of all alerts. It is numbered by itself; the fence lets one at a time.
INSERT INTO alert (alert_id, partition, account, log_offset, body)
SELECT $1, -1, '', coalesce(max(log_offset) + 1, 0), $2 FROM alert WHERE partition = -1
RETURNING log_offset
