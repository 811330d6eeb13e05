-- Who is alive, and who should own what. All leases are set and judged by this server's clock.

CREATE TABLE member (
    incarnation   text PRIMARY KEY,
    shard         text NOT NULL,
    host          text NOT NULL,
    lock_path     text NOT NULL,
    pid           integer NOT NULL,
    lease_until   timestamptz NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    dead_at       timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE member IS 'One row per start of a shard process.';
COMMENT ON COLUMN member.incarnation IS 'Unique per start of a process.';
COMMENT ON COLUMN member.lock_path IS 'A file on host that the process holds locked while it lives; the kernel lets go when it dies.';
COMMENT ON COLUMN member.dead_at IS 'Declared dead by the controller, or left by itself: it is not renewed again.';

CREATE TABLE assignment (
    partition   integer PRIMARY KEY CHECK (partition >= 0),
    incarnation text NOT NULL,
    term        bigint NOT NULL
);
CREATE INDEX assignment_by_incarnation ON assignment (incarnation);
COMMENT ON TABLE assignment IS 'The owner-to-be of each partition, as the controller wants it.';
COMMENT ON COLUMN assignment.term IS 'Term of the controller that decided.';

CREATE TABLE controller (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    term        bigint NOT NULL,
    controller  text NOT NULL,
    lease_until timestamptz NOT NULL
);
INSERT INTO controller (term, controller, lease_until) VALUES (0, '', '-infinity');
COMMENT ON TABLE controller IS 'The one controller in office; every assignment is fenced by its term.';
