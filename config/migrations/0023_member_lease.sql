-- Of a lease no more is left than it is long, whatever becomes of this server's clock.

ALTER TABLE member ADD COLUMN lease_s double precision;
COMMENT ON COLUMN member.lease_s IS 'How long its lease is, from each renewal on. NULL: of an earlier release.';
