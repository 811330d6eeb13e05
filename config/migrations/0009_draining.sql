-- A shard that an operator empties before its node is stopped.

ALTER TABLE member ADD COLUMN draining boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN member.draining IS 'Its partitions are handed over to other members, and it gets none; set by an operator.';
