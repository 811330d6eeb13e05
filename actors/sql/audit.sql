-- The audit trail, and answers to be given again.

-- name: add_audit
-- One more row; none is ever changed.
INSERT INTO audit (actor, act, stage, account, subject, before, after, reason, request_id)
VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $8, $9)

-- name: list_audit
-- Newest first, below $1; each filter is left out where it is not given.
SELECT audit_id, at, actor, act, stage, account, subject, before, after, reason, request_id FROM audit
WHERE audit_id < $1 AND ($2::text IS NULL OR account = $2) AND ($3::text IS NULL OR act = $3)
  AND ($4::text IS NULL OR request_id = $4)
ORDER BY audit_id DESC LIMIT $5

-- name: forget_answers
-- The caller's own answer when it is a day old, and a few others that are.
DELETE FROM idempotency WHERE begun_at < clock_timestamp() - interval '24 hours' AND (
    (actor = $1 AND idempotency_key = $2)
    OR ctid = ANY (ARRAY(
        SELECT ctid FROM idempotency WHERE begun_at < clock_timestamp() - interval '24 hours'
        ORDER BY begun_at LIMIT 50 FOR UPDATE SKIP LOCKED)))

-- name: begin_answer
-- A row is returned to the first who comes.
INSERT INTO idempotency (actor, idempotency_key, operation, digest) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING RETURNING 1

-- name: find_answer
-- What whoever came first was answered.
SELECT operation, digest, status, answer FROM idempotency WHERE actor = $1 AND idempotency_key = $2

-- name: keep_answer
-- The answer, to be given again.
UPDATE idempotency SET status = $3, answer = $4 WHERE actor = $1 AND idempotency_key = $2

-- name: forget_answer
-- Nothing happened: the key may be used again.
DELETE FROM idempotency WHERE actor = $1 AND idempotency_key = $2 AND status IS NULL
