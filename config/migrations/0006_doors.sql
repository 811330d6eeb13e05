-- Where each shard process is to be asked about the accounts it owns.

ALTER TABLE member
    ADD COLUMN door_host text,
    ADD COLUMN door_port integer CHECK (door_port BETWEEN 1 AND 65535),
    ADD CHECK (num_nonnulls(door_host, door_port) IN (0, 2));
COMMENT ON COLUMN member.door_host IS 'Address at which other processes reach its door. NULL: it has none.';
