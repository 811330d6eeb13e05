-- Every query of the product, by name. `-- name:` starts one; the comment lines below it say what it is for.

-- name: assignment_names
-- Does the assignment name this incarnation? The lock keeps it so until the claim has ended.
SELECT 1 FROM assignment WHERE partition = $1 AND incarnation = $2 FOR SHARE

-- name: living_owner
-- Another owner that may still hand the partition over: neither dead nor gone, and its lease runs.
SELECT owner FROM partition JOIN member ON incarnation = owner
WHERE partition = $1 AND owner <> $2 AND dead_at IS NULL AND lease_until > clock_timestamp()

-- name: ensure_partition
-- A partition that was never claimed gets its row.
INSERT INTO partition (partition) VALUES ($1) ON CONFLICT DO NOTHING

-- name: partition_backend
-- The session of the owner that a claim is about to replace.
SELECT backend_pid, backend_start FROM partition WHERE partition = $1 AND owner IS NOT NULL

-- name: end_backend
-- End a session, and wait for its end up to so many milliseconds. Only if pid and start both match, and never our own.
SELECT pg_terminate_backend(pid, $3::bigint) FROM pg_stat_activity
WHERE pid = $1 AND backend_start = $2 AND pid <> pg_backend_pid()

-- name: own_backend
-- Who we are in pg_stat_activity.
SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()

-- name: lock_partition
-- The partition's row as it stands once nobody else is writing it.
SELECT epoch, ckpt_seq, next_offset, last_offset, last_append_ms, last_digest, blob, owner, previous_owners
FROM partition WHERE partition = $1 FOR UPDATE

-- name: speaking_members
-- Which of these incarnations may still answer. The lock waits for a renewal under way and holds off the next one: so none is
-- left of more than a whole lease, also where our clock was set back since.
SELECT incarnation, host, lock_path, least(extract(epoch FROM lease_until - clock_timestamp())::float8, lease_s) AS lease_left_s
FROM member WHERE incarnation = ANY ($1::text[]) ORDER BY incarnation FOR SHARE

-- name: claim_partition
-- A new ownership begins.
UPDATE partition
SET epoch = epoch + 1, owner = $2, previous_owners = $3, backend_pid = $4, backend_start = $5, updated_at = clock_timestamp()
WHERE partition = $1 RETURNING epoch

-- name: introduce_backend
-- After a reconnect: the owner's new session, on all partitions it still owns.
UPDATE partition SET backend_pid = $3, backend_start = $4
FROM unnest($1::integer[], $2::bigint[]) AS mine (partition, epoch)
WHERE partition.partition = mine.partition AND partition.epoch = mine.epoch

-- name: commit_partition
-- The fence of every checkpoint: no row means that somebody else owns the partition, or has written meanwhile.
UPDATE partition
SET ckpt_seq = $3, next_offset = $4, last_offset = $5, last_append_ms = $6, last_digest = $7, blob = $8, updated_at = clock_timestamp()
WHERE partition = $1 AND epoch = $2 AND ckpt_seq = $3::bigint - 1 RETURNING 1

-- name: commit_accounts
-- The accounts that changed since the last checkpoint.
INSERT INTO account AS kept (partition, account, blob, wake_us, balance, spend, currency)
SELECT $1, * FROM unnest($2::text[], $3::bytea[], $4::bigint[], $5::numeric[], $6::numeric[], $7::text[])
ON CONFLICT (partition, account) DO UPDATE
SET blob = excluded.blob, wake_us = excluded.wake_us, balance = excluded.balance, spend = excluded.spend, currency = excluded.currency

-- name: commit_dedup
-- The identities rated since the last checkpoint, one segment per generation.
INSERT INTO dedup_segment (partition, bucket, generation, seq, entries)
SELECT $1, bucket, generation, $2, entries
FROM unnest($3::bigint[], $4::bigint[], $5::bytea[]) AS segment (bucket, generation, entries)

-- name: crowded_levels
-- Levels with at least $2 segments, as long as the joined one stays below $3 bytes.
SELECT bucket, generation, level FROM dedup_segment WHERE partition = $1
GROUP BY bucket, generation, level HAVING count(*) >= $2 AND sum(octet_length(entries)) <= $3
ORDER BY bucket, generation, level

-- name: merge_level
-- Join all segments of one level into one of the next.
WITH taken AS (
    DELETE FROM dedup_segment WHERE partition = $1 AND bucket = $2 AND generation = $3 AND level = $4
    RETURNING seq, entries
)
INSERT INTO dedup_segment (partition, bucket, generation, level, seq, entries)
SELECT $1, $2, $3, $4::integer + 1, max(seq), string_agg(entries, ''::bytea ORDER BY seq) FROM taken

-- name: forget_buckets
-- Buckets whose time is over.
DELETE FROM dedup_segment WHERE partition = $1 AND bucket < $2

-- name: forget_runs
-- Likewise their runs; the rows go a few parts at a time (`sweep_rows`).
DELETE FROM dedup_run WHERE partition = $1 AND bucket < $2

-- name: sweep_rows
-- A few megabytes of what belonged to forgotten buckets.
DELETE FROM dedup_rows WHERE (partition, bucket, generation, part) IN (
    SELECT partition, bucket, generation, part FROM dedup_rows WHERE partition = $1 AND bucket < $2 LIMIT $3
)

-- name: seal_owned
-- Whether the partition is still at this epoch; it stays so until our transaction ends.
SELECT 1 FROM partition WHERE partition = $1 AND epoch = $2 FOR SHARE

-- name: seal_run
-- A sealed run; none is returned when it is there already.
INSERT INTO dedup_run (partition, bucket, generation, ids, outline, digest) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING RETURNING 1

-- name: seal_rows
-- One part of its rows.
INSERT INTO dedup_rows (partition, bucket, generation, part, entries) VALUES ($1, $2, $3, $4, $5)

-- name: drop_loose
-- The segments whose place the run has taken.
DELETE FROM dedup_segment WHERE partition = $1 AND bucket = $2 AND generation = $3

-- name: load_runs
-- All sealed runs but for their rows.
SELECT bucket, generation, ids, outline, digest FROM dedup_run WHERE partition = $1 ORDER BY bucket, generation

-- name: run_part
-- One part of the rows of a run.
SELECT entries FROM dedup_rows WHERE partition = $1 AND bucket = $2 AND generation = $3 AND part = $4

-- name: run_rows
-- Single rows, in the order in which they are asked for; of those that are gone, null.
SELECT substring(entries FROM (row % $5) * 16 + 1 FOR 16) AS entry
FROM unnest($2::bigint[], $3::bigint[], $4::integer[]) WITH ORDINALITY AS wanted (bucket, generation, row, number)
LEFT JOIN dedup_rows AS kept
    ON kept.partition = $1 AND kept.bucket = wanted.bucket AND kept.generation = wanted.generation
    AND kept.part = wanted.row / $5
ORDER BY number

-- name: commit_commands
-- Commands and their answers; a command already there stays as it is.
INSERT INTO command (partition, log_offset, log_time_us, account, command_key, digest, kind, body, answer)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::bytea[], $9::text[])
ON CONFLICT DO NOTHING

-- name: commit_postings
-- The ledger lines of this checkpoint, numbered from 0.
INSERT INTO posting (partition, ckpt_seq, account, lot, lot_kind, kind, usage_period_us, posting_period_us, amount, line)
SELECT $1, $2, account, lot, lot_kind, kind, usage_period_us, posting_period_us, amount, line - 1
FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::numeric[])
WITH ORDINALITY AS given (account, lot, lot_kind, kind, usage_period_us, posting_period_us, amount, line)

-- name: commit_alerts
-- Alerts to tell; one that is in the outbox already keeps its state.
INSERT INTO alert (partition, alert_id, account, log_offset, body)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bytea[])
ON CONFLICT DO NOTHING

-- name: commit_dead_letters
-- Records that were not rated.
INSERT INTO dead_letter (partition, log_offset, log_time_us, reason, detail, key, value)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bytea[], $7::bytea[])
ON CONFLICT DO NOTHING

-- name: settle_commit
-- Waits for the row, ends the ownership in which a COMMIT was lost and begins the next, of the same owner and by this session.
UPDATE partition SET epoch = epoch + 1, backend_pid = $4, backend_start = $5, updated_at = clock_timestamp()
WHERE partition = $1 AND epoch >= $2 AND owner = $3 RETURNING epoch, ckpt_seq

-- name: release_partition
-- Nobody owns it; the epoch moves on, so that a late checkpoint of the old owner is refused.
UPDATE partition
SET epoch = epoch + 1, owner = NULL, backend_pid = NULL, backend_start = NULL, updated_at = clock_timestamp()
WHERE partition = $1 AND epoch = $2 RETURNING 1

-- name: load_standing
-- Which checkpoint of which ownership the rows read with it belong to.
SELECT epoch, ckpt_seq FROM partition WHERE partition = $1

-- name: load_accounts
-- All accounts of a partition.
SELECT account, blob, wake_us, balance, spend, currency FROM account WHERE partition = $1 ORDER BY account

-- name: load_dedup
-- All segments of identities that are not sealed yet, oldest first.
SELECT bucket, generation, entries FROM dedup_segment WHERE partition = $1 ORDER BY bucket, generation, seq

-- name: load_commands
-- Commands not older than a log time.
SELECT log_offset, log_time_us, account, command_key, digest, kind, body, answer
FROM command WHERE partition = $1 AND log_time_us >= $2 ORDER BY log_offset

-- name: load_engine_errors
-- Offsets to be skipped on replay.
SELECT log_offset FROM dead_letter WHERE partition = $1 AND reason = 'engine_error' ORDER BY log_offset

-- name: load_alerts
-- Alerts still to be told.
SELECT alert_id, account, log_offset, body FROM alert
WHERE partition = $1 AND delivered_at IS NULL AND given_up_at IS NULL ORDER BY log_offset, alert_id

-- name: record_deliveries
-- How far the telling has come. What was delivered or given up stays so, whatever a slower attempt reports later.
UPDATE alert
SET attempts = greatest(alert.attempts, told.attempts),
    delivered_at = coalesce(delivered_at, CASE WHEN told.delivered THEN clock_timestamp() END),
    given_up_at = coalesce(given_up_at, CASE WHEN told.given_up THEN clock_timestamp() END),
    error = told.error
FROM unnest($1::text[], $2::integer[], $3::boolean[], $4::boolean[], $5::text[]) AS told (alert_id, attempts, delivered, given_up, error)
WHERE alert.alert_id = told.alert_id

-- name: catalogue
-- One version's JSON.
SELECT body FROM catalogue WHERE version = $1

-- name: latest_catalogue
-- The newest version's number.
SELECT max(version) FROM catalogue

-- name: publish_catalogue
-- A new version; no row means that the number is taken.
INSERT INTO catalogue (version, body, sha256) VALUES ($1, $2, sha256($2)) ON CONFLICT DO NOTHING RETURNING 1

-- name: answer
-- The newest answer to a command key of an account; another command's attempt to reuse the key is not its answer.
SELECT answer FROM command WHERE account = $1 AND command_key = $2 AND answer <> 'key_reused' ORDER BY log_offset DESC LIMIT 1

-- name: list_partitions
-- Ownership and progress of all partitions.
SELECT partition, epoch, ckpt_seq, next_offset, owner, extract(epoch FROM clock_timestamp() - updated_at)::float8 AS age_s
FROM partition ORDER BY partition

-- name: checkpoint
-- A partition's own state, and up to where it goes.
SELECT blob, next_offset FROM partition WHERE partition = $1

-- name: sum_postings
-- The ledger, summed.
SELECT account, lot, kind, sum(amount) AS amount FROM posting GROUP BY account, lot, kind

-- name: nearest_depletion
-- The accounts with the lowest balances above zero. Reads all accounts: for people, not for programs in a hurry.
SELECT partition, account, balance, spend, currency FROM account WHERE balance > 0 ORDER BY balance, account LIMIT $1

-- name: count_depleted
-- How many accounts have nothing left.
SELECT count(*) FROM account WHERE balance <= 0

-- name: list_dead_letters
-- The newest dead letters.
SELECT partition, log_offset, log_time_us, reason, detail, key, value FROM dead_letter
ORDER BY log_time_us DESC, partition, log_offset DESC LIMIT $1

-- name: count_dead_letters
-- Dead letters by reason.
SELECT reason, count(*) AS letters FROM dead_letter GROUP BY reason ORDER BY reason

-- name: count_outbox
-- Alerts by state.
SELECT count(*) FILTER (WHERE delivered_at IS NULL AND given_up_at IS NULL) AS waiting,
       count(*) FILTER (WHERE delivered_at IS NOT NULL) AS delivered,
       count(*) FILTER (WHERE delivered_at IS NULL AND given_up_at IS NOT NULL) AS given_up
FROM alert

-- name: register_member
-- A process joins with a fresh lease; no row means that this incarnation is dead.
INSERT INTO member (incarnation, shard, host, lock_path, pid, lease_until, lease_s, door_host, door_port)
VALUES ($1, $2, $3, $4, $5, clock_timestamp() + make_interval(secs => $6), $6, $7, $8)
ON CONFLICT (incarnation) DO UPDATE SET lease_until = excluded.lease_until, lease_s = excluded.lease_s
WHERE member.dead_at IS NULL RETURNING 1

-- name: renew_member
-- Extend a lease; no row means that this incarnation is dead or was never registered.
UPDATE member SET lease_until = clock_timestamp() + make_interval(secs => $2), lease_s = $2
WHERE incarnation = $1 AND dead_at IS NULL RETURNING 1

-- name: member_partitions
-- What an incarnation should own, and what it does own. Asked after its lease was extended, in the same transaction: a claim that took the lease's old end is seen here.
SELECT partition, coalesce(incarnation = $1, false) AS assigned, coalesce(owner = $1, false) AS owned
FROM assignment FULL JOIN partition USING (partition) WHERE incarnation = $1 OR owner = $1

-- name: leave_member
-- A process that has stopped speaking gives up its lease.
UPDATE member SET dead_at = coalesce(dead_at, clock_timestamp()), lease_until = least(lease_until, clock_timestamp())
WHERE incarnation = $1

-- name: take_office
-- A new term, if the office is free or already ours.
UPDATE controller SET term = term + 1, controller = $1, lease_until = clock_timestamp() + make_interval(secs => $2)
WHERE controller = $1 OR lease_until <= clock_timestamp() RETURNING term

-- name: stay_in_office
-- Extend the controller's lease within its term.
UPDATE controller SET lease_until = clock_timestamp() + make_interval(secs => $2) WHERE term = $1 RETURNING 1

-- name: resign
-- The office is free at once.
UPDATE controller SET lease_until = least(lease_until, clock_timestamp()) WHERE term = $1

-- name: in_office
-- Is this still the term? The lock keeps the next one from beginning until we have written.
SELECT 1 FROM controller WHERE term = $1 FOR SHARE

-- name: list_members
-- All living members and what is assigned to them; and what our clock says.
SELECT incarnation, shard, host, lock_path, draining, lease_s, extract(epoch FROM clock_timestamp())::float8 AS now_s,
       extract(epoch FROM lease_until - clock_timestamp())::float8 AS lease_left_s,
       array(SELECT partition FROM assignment WHERE assignment.incarnation = member.incarnation ORDER BY partition) AS partitions,
       array(SELECT partition FROM partition WHERE owner = incarnation ORDER BY partition) AS owned
FROM member WHERE dead_at IS NULL ORDER BY registered_at, incarnation

-- name: list_doorways
-- The living members that can be asked, and what each one owns.
SELECT incarnation, door_host, door_port,
       array(SELECT partition FROM partition WHERE owner = incarnation ORDER BY partition) AS partitions,
       array(SELECT epoch FROM partition WHERE owner = incarnation ORDER BY partition) AS epochs
FROM member WHERE dead_at IS NULL AND door_port IS NOT NULL AND lease_until > clock_timestamp()
ORDER BY registered_at, incarnation

-- name: assign_partitions
-- The owner-to-be of each partition.
INSERT INTO assignment (partition, incarnation, term)
SELECT partition, incarnation, $1 FROM unnest($2::integer[], $3::text[]) AS wanted (partition, incarnation)
ON CONFLICT (partition) DO UPDATE SET incarnation = excluded.incarnation, term = excluded.term

-- name: tell_assignment
-- Wakes the members as soon as the assignment is committed, so that nobody waits for the next renewal.
SELECT pg_notify('tallygate_assignment', current_schema())

-- name: set_draining
-- An operator's wish; no row means that this incarnation is no member any more.
UPDATE member SET draining = $2 WHERE incarnation = $1 AND dead_at IS NULL RETURNING 1

-- name: declare_dead
-- Its next renewal is refused.
UPDATE member SET dead_at = coalesce(dead_at, clock_timestamp()) WHERE incarnation = $1
