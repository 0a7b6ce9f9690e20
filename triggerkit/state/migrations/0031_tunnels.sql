-- Endpoints on somebody's own machine, who may open a tunnel to one, and the tunnels that are open.
ALTER TABLE triggerkit.endpoints ADD COLUMN local boolean NOT NULL DEFAULT false;

CREATE TABLE triggerkit.tunnel_tokens (
    name text PRIMARY KEY,
    -- SHA-256 of the token, which is 32 random bytes.
    digest bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz
);

-- Without its token a tunnel is none.
CREATE TABLE triggerkit.tunnels (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id bigint NOT NULL REFERENCES triggerkit.endpoints ON DELETE CASCADE,
    token text NOT NULL REFERENCES triggerkit.tunnel_tokens ON DELETE CASCADE,
    -- The command that opened it, and the process that holds it.
    instance text NOT NULL,
    serve text NOT NULL,
    port integer NOT NULL,
    is_shared boolean NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON triggerkit.tunnels (endpoint_id);
CREATE INDEX ON triggerkit.tunnels (token);

-- The process that holds a tunnel says so every second. What it did not say for a while is none.
CREATE VIEW triggerkit.open_tunnels AS
    SELECT t.id, t.endpoint_id, t.token, t.serve, t.port, t.is_shared, t.since
    FROM triggerkit.tunnels t JOIN triggerkit.endpoints e ON e.id = t.endpoint_id
    WHERE e.local AND t.seen_at > clock_timestamp() - interval '15 s';

-- Pushes on their way from a stream to the process that holds the tunnel, and their answers on the
-- way back. What a crash of the server empties is sent again, as every push of unknown outcome is.
CREATE UNLOGGED TABLE triggerkit.tunnel_pushes (
    id uuid PRIMARY KEY,
    tunnel_id bigint NOT NULL REFERENCES triggerkit.tunnels ON DELETE CASCADE,
    batch_id text NOT NULL,
    attempt integer NOT NULL,
    timeout_s double precision NOT NULL,
    is_test boolean NOT NULL,
    body bytea NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken_at timestamptz,
    answered_at timestamptz,
    status integer,
    headers jsonb,
    answer bytea,
    is_cut boolean,
    error text,
    is_suspect boolean
);
CREATE INDEX ON triggerkit.tunnel_pushes (tunnel_id);
