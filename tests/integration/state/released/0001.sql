-- The state of a small project as 0.1.0 left it, written by pg_dump --schema=triggerkit --inserts.

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE SCHEMA triggerkit;

CREATE FUNCTION triggerkit.tell_of_end() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_notify('triggerkit_ended', NEW.id);
    RETURN NULL;
END $$;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE triggerkit.attempts (
    run_id text NOT NULL COLLATE pg_catalog."C",
    attempt integer NOT NULL,
    status text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    worker text NOT NULL,
    error jsonb
);

CREATE TABLE triggerkit.audit (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail jsonb
);

ALTER TABLE triggerkit.audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME triggerkit.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE triggerkit.backfills (
    id integer NOT NULL,
    consumer_id integer NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    sort_column text,
    state text DEFAULT 'active'::text NOT NULL,
    lower_bound jsonb,
    upper_bound jsonb,
    rows_per_s integer,
    error text,
    cursor jsonb,
    first_position bigint,
    last_position bigint,
    rows_read bigint DEFAULT 0 NOT NULL,
    rows_logged bigint DEFAULT 0 NOT NULL,
    rows_estimated bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT backfills_state_check CHECK ((state = ANY (ARRAY['active'::text, 'paused'::text, 'canceled'::text, 'failed'::text, 'completed'::text])))
);

ALTER TABLE triggerkit.backfills ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME triggerkit.backfills_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE triggerkit.consumers (
    id integer NOT NULL,
    name text NOT NULL,
    database_id integer NOT NULL,
    endpoint_id integer,
    kind text NOT NULL,
    definition jsonb NOT NULL,
    state text DEFAULT 'active'::text NOT NULL,
    replay_epoch integer DEFAULT 0 NOT NULL,
    replay_from text,
    managed_by text DEFAULT 'api'::text NOT NULL,
    gap text,
    gap_at timestamp with time zone,
    last_error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT consumers_kind_check CHECK ((kind = ANY (ARRAY['rows'::text, 'changes'::text]))),
    CONSTRAINT consumers_managed_by_check CHECK ((managed_by = ANY (ARRAY['code'::text, 'file'::text, 'api'::text]))),
    CONSTRAINT consumers_state_check CHECK ((state = ANY (ARRAY['active'::text, 'paused'::text, 'disabled'::text])))
);

ALTER TABLE triggerkit.consumers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME triggerkit.consumers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE triggerkit.cursors (
    consumer_id integer NOT NULL,
    partition smallint NOT NULL,
    "position" bigint NOT NULL,
    batch_id text,
    batch_last bigint,
    attempt integer DEFAULT 0 NOT NULL,
    lease_until timestamp with time zone,
    leased integer DEFAULT 0 NOT NULL,
    settled bigint[] DEFAULT '{}'::bigint[] NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE triggerkit.databases (
    id integer NOT NULL,
    name text NOT NULL,
    slot_name text NOT NULL,
    publication_name text NOT NULL,
    system_identifier text,
    timeline integer,
    slot_epoch integer DEFAULT 0 NOT NULL,
    writer_epoch bigint DEFAULT 0 NOT NULL,
    next_position bigint DEFAULT 1 NOT NULL,
    epoch_position bigint DEFAULT 1 NOT NULL,
    retained_from bigint DEFAULT 1 NOT NULL,
    last_commit_lsn bigint DEFAULT 0 NOT NULL,
    heartbeat_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE triggerkit.databases ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME triggerkit.databases_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE triggerkit.deliveries (
    id bigint NOT NULL,
    consumer_id integer NOT NULL,
    partition smallint NOT NULL,
    first_position bigint NOT NULL,
    last_position bigint NOT NULL,
    batch_id text NOT NULL,
    attempt integer NOT NULL,
    messages integer NOT NULL,
    sent_at timestamp with time zone NOT NULL,
    answered_at timestamp with time zone,
    status integer,
    error text
);

ALTER TABLE triggerkit.deliveries ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME triggerkit.deliveries_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE triggerkit.endpoints (
    id integer NOT NULL,
    name text NOT NULL,
    url text NOT NULL,
    headers bytea,
    signing_secret bytea,
    managed_by text DEFAULT 'api'::text NOT NULL,
    disabled_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT endpoints_managed_by_check CHECK ((managed_by = ANY (ARRAY['code'::text, 'file'::text, 'api'::text])))
);

ALTER TABLE triggerkit.endpoints ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME triggerkit.endpoints_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE triggerkit.events (
    "position" bigint NOT NULL,
    database_id integer NOT NULL,
    partition smallint NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    key text NOT NULL,
    action text NOT NULL,
    commit_lsn bigint NOT NULL,
    commit_idx integer NOT NULL,
    commit_at timestamp with time zone NOT NULL,
    xid bigint,
    record text,
    changes text,
    unchanged text[],
    consumer_id integer,
    backfill_id integer,
    fault text,
    annotations text,
    captured_at timestamp with time zone DEFAULT now() NOT NULL
)
PARTITION BY LIST (database_id);

CREATE TABLE triggerkit.events_1 (
    "position" bigint CONSTRAINT events_position_not_null NOT NULL,
    database_id integer CONSTRAINT events_database_id_not_null NOT NULL,
    partition smallint CONSTRAINT events_partition_not_null NOT NULL,
    schema_name text CONSTRAINT events_schema_name_not_null NOT NULL,
    table_name text CONSTRAINT events_table_name_not_null NOT NULL,
    key text CONSTRAINT events_key_not_null NOT NULL,
    action text CONSTRAINT events_action_not_null NOT NULL,
    commit_lsn bigint CONSTRAINT events_commit_lsn_not_null NOT NULL,
    commit_idx integer CONSTRAINT events_commit_idx_not_null NOT NULL,
    commit_at timestamp with time zone CONSTRAINT events_commit_at_not_null NOT NULL,
    xid bigint,
    record text,
    changes text,
    unchanged text[],
    consumer_id integer,
    backfill_id integer,
    fault text,
    annotations text,
    captured_at timestamp with time zone DEFAULT now() CONSTRAINT events_captured_at_not_null NOT NULL
)
PARTITION BY RANGE ("position");

CREATE TABLE triggerkit.events_1_0 (
    "position" bigint CONSTRAINT events_position_not_null NOT NULL,
    database_id integer CONSTRAINT events_database_id_not_null NOT NULL,
    partition smallint CONSTRAINT events_partition_not_null NOT NULL,
    schema_name text CONSTRAINT events_schema_name_not_null NOT NULL,
    table_name text CONSTRAINT events_table_name_not_null NOT NULL,
    key text CONSTRAINT events_key_not_null NOT NULL,
    action text CONSTRAINT events_action_not_null NOT NULL,
    commit_lsn bigint CONSTRAINT events_commit_lsn_not_null NOT NULL,
    commit_idx integer CONSTRAINT events_commit_idx_not_null NOT NULL,
    commit_at timestamp with time zone CONSTRAINT events_commit_at_not_null NOT NULL,
    xid bigint,
    record text,
    changes text,
    unchanged text[],
    consumer_id integer,
    backfill_id integer,
    fault text,
    annotations text,
    captured_at timestamp with time zone DEFAULT now() CONSTRAINT events_captured_at_not_null NOT NULL
);

CREATE TABLE triggerkit.events_1_1 (
    "position" bigint CONSTRAINT events_position_not_null NOT NULL,
    database_id integer CONSTRAINT events_database_id_not_null NOT NULL,
    partition smallint CONSTRAINT events_partition_not_null NOT NULL,
    schema_name text CONSTRAINT events_schema_name_not_null NOT NULL,
    table_name text CONSTRAINT events_table_name_not_null NOT NULL,
    key text CONSTRAINT events_key_not_null NOT NULL,
    action text CONSTRAINT events_action_not_null NOT NULL,
    commit_lsn bigint CONSTRAINT events_commit_lsn_not_null NOT NULL,
    commit_idx integer CONSTRAINT events_commit_idx_not_null NOT NULL,
    commit_at timestamp with time zone CONSTRAINT events_commit_at_not_null NOT NULL,
    xid bigint,
    record text,
    changes text,
    unchanged text[],
    consumer_id integer,
    backfill_id integer,
    fault text,
    annotations text,
    captured_at timestamp with time zone DEFAULT now() CONSTRAINT events_captured_at_not_null NOT NULL
);

CREATE TABLE triggerkit.installation (
    id uuid DEFAULT (md5((random() || (clock_timestamp())::text)))::uuid NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE triggerkit.migrations (
    version integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE triggerkit.parked (
    consumer_id integer NOT NULL,
    partition smallint NOT NULL,
    "position" bigint NOT NULL,
    key text NOT NULL,
    body text NOT NULL,
    reason text NOT NULL,
    state text DEFAULT 'failing'::text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    status integer,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    lease_id text,
    parked_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT parked_state_check CHECK ((state = ANY (ARRAY['failing'::text, 'waiting'::text, 'blocked'::text, 'dead'::text])))
);

CREATE TABLE triggerkit.queues (
    name text NOT NULL,
    concurrency integer,
    rate_limit integer,
    rate_period_s double precision,
    managed_by text DEFAULT 'api'::text NOT NULL,
    paused_at timestamp with time zone,
    CONSTRAINT queues_concurrency_check CHECK ((concurrency > 0)),
    CONSTRAINT queues_managed_by_check CHECK ((managed_by = ANY (ARRAY['code'::text, 'api'::text]))),
    CONSTRAINT queues_rate_limit_check CHECK ((rate_limit > 0)),
    CONSTRAINT queues_rate_period_s_check CHECK ((rate_period_s > (0)::double precision))
);

CREATE TABLE triggerkit.runs (
    id text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    task text NOT NULL,
    queue text NOT NULL,
    status text NOT NULL,
    blocked boolean DEFAULT false NOT NULL,
    pending boolean DEFAULT false NOT NULL,
    gate text,
    priority integer DEFAULT 0 NOT NULL,
    rank bigint DEFAULT ((EXTRACT(epoch FROM clock_timestamp()) * (1000000)::numeric))::bigint NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    max_attempts integer NOT NULL,
    waits integer DEFAULT 0 NOT NULL,
    crashes integer DEFAULT 0 NOT NULL,
    payload text NOT NULL,
    items integer,
    output text,
    error jsonb,
    idempotency_key text,
    idempotency_expires_at timestamp with time zone,
    concurrency_key text,
    debounce_key text,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    source jsonb,
    item_key text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    scheduled_at timestamp with time zone,
    expires_at timestamp with time zone,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    cancel_requested_at timestamp with time zone,
    worker text,
    claim text,
    version text,
    replay_of text,
    parent_id text,
    traceparent text,
    awaited boolean DEFAULT false NOT NULL,
    CONSTRAINT runs_gate_check CHECK ((gate = ANY (ARRAY['held'::text, 'open'::text]))),
    CONSTRAINT runs_status_check CHECK ((status = ANY (ARRAY['delayed'::text, 'queued'::text, 'executing'::text, 'retrying'::text, 'completed'::text, 'failed'::text, 'crashed'::text, 'canceled'::text, 'expired'::text, 'timed_out'::text])))
)
WITH (fillfactor='70');
ALTER TABLE ONLY triggerkit.runs ALTER COLUMN payload SET STORAGE EXTERNAL;

ALTER TABLE triggerkit.runs ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME triggerkit.runs_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE triggerkit.schedules (
    name text NOT NULL,
    task text NOT NULL,
    queue text NOT NULL,
    max_attempts integer NOT NULL,
    cron text NOT NULL,
    timezone text NOT NULL,
    catch_up boolean DEFAULT false NOT NULL,
    payload text DEFAULT 'null'::text NOT NULL,
    paused_at timestamp with time zone,
    next_at timestamp with time zone NOT NULL,
    last_at timestamp with time zone,
    last_run text
);

CREATE TABLE triggerkit.spans (
    id bigint NOT NULL,
    run_id text NOT NULL COLLATE pg_catalog."C",
    attempt integer NOT NULL,
    kind text NOT NULL,
    span_id text,
    parent text,
    name text NOT NULL,
    level text,
    attributes jsonb DEFAULT '{}'::jsonb NOT NULL,
    error text,
    started_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    CONSTRAINT spans_kind_check CHECK ((kind = ANY (ARRAY['span'::text, 'log'::text])))
);

ALTER TABLE triggerkit.spans ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME triggerkit.spans_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE triggerkit.starts (
    queue text NOT NULL,
    at timestamp with time zone NOT NULL
);

CREATE TABLE triggerkit.workers (
    id text NOT NULL,
    hostname text NOT NULL,
    pid integer NOT NULL,
    parent_pid integer NOT NULL,
    home text,
    pid_started bigint,
    backend integer,
    queues text[] DEFAULT '{}'::text[] NOT NULL,
    tasks text[] DEFAULT '{}'::text[] NOT NULL,
    version text,
    slots integer NOT NULL,
    async_slots integer DEFAULT 0 NOT NULL,
    beat bigint DEFAULT 0 NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY triggerkit.events ATTACH PARTITION triggerkit.events_1 FOR VALUES IN (1);

ALTER TABLE ONLY triggerkit.events_1 ATTACH PARTITION triggerkit.events_1_0 FOR VALUES FROM ('0') TO ('500000');

ALTER TABLE ONLY triggerkit.events_1 ATTACH PARTITION triggerkit.events_1_1 FOR VALUES FROM ('500000') TO ('1000000');

INSERT INTO triggerkit.attempts VALUES ('run_01m8mkntzn62pemkbbswsyk53a', 1, 'failed', '2026-11-29 21:34:17.102597+00', '2026-11-29 21:34:17.123992+00', 'host:8500:7b0ced/1', '{"type": "ValueError", "message": "no notes", "traceback": "Traceback (most recent call last):\n  File \"/srv/blog/tasks.py\", line 13, in fail_on_notes\n    raise ValueError(\"no notes\")\nValueError: no notes\n"}');
INSERT INTO triggerkit.attempts VALUES ('run_01m8mknv11rmxhcmnebt5jsn8r', 1, 'failed', '2026-11-29 21:34:17.216165+00', '2026-11-29 21:34:17.228853+00', 'host:8500:7b0ced/1', '{"type": "ValueError", "message": "no notes", "traceback": "Traceback (most recent call last):\n  File \"/srv/blog/tasks.py\", line 13, in fail_on_notes\n    raise ValueError(\"no notes\")\nValueError: no notes\n"}');
INSERT INTO triggerkit.attempts VALUES ('run_01m8mkntzn62pemkbbswsyk53a', 2, 'failed', '2026-11-29 21:34:17.933753+00', '2026-11-29 21:34:17.948306+00', 'host:8500:7b0ced/1', '{"type": "ValueError", "message": "no notes", "traceback": "Traceback (most recent call last):\n  File \"/srv/blog/tasks.py\", line 13, in fail_on_notes\n    raise ValueError(\"no notes\")\nValueError: no notes\n"}');
INSERT INTO triggerkit.attempts VALUES ('run_01m8mknv11rmxhcmnebt5jsn8r', 2, 'failed', '2026-11-29 21:34:17.963569+00', '2026-11-29 21:34:17.975002+00', 'host:8500:7b0ced/1', '{"type": "ValueError", "message": "no notes", "traceback": "Traceback (most recent call last):\n  File \"/srv/blog/tasks.py\", line 13, in fail_on_notes\n    raise ValueError(\"no notes\")\nValueError: no notes\n"}');

INSERT INTO triggerkit.audit OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-29 21:34:09.684636+00', 'apply', 'create', 'consumer index_posts', '{"kind": "rows", "name": "index_posts", "start": "beginning", "filter": null, "paused": null, "tables": ["public.posts"], "actions": null, "filters": [], "sort_by": null, "endpoint": null, "group_by": null, "timeout_s": 30.0, "transform": null, "batch_size": 50, "concurrency": 8, "replay_from": null, "max_attempts": null, "on_exhausted": "block", "when_changed": null, "batch_timeout_s": 0.0}');
INSERT INTO triggerkit.audit OVERRIDING SYSTEM VALUE VALUES (2, '2026-11-29 21:34:09.70995+00', 'apply', 'create', 'consumer fail_on_notes', '{"kind": "changes", "name": "fail_on_notes", "start": "end", "filter": null, "paused": null, "tables": ["public.notes"], "actions": null, "filters": [], "sort_by": null, "endpoint": null, "group_by": null, "timeout_s": 30.0, "transform": null, "batch_size": 100, "concurrency": 8, "replay_from": null, "max_attempts": null, "on_exhausted": "block", "when_changed": null, "batch_timeout_s": 0.0}');
INSERT INTO triggerkit.audit OVERRIDING SYSTEM VALUE VALUES (3, '2026-11-29 21:34:09.728373+00', 'apply', 'create', 'consumer pulled', '{"kind": "changes", "name": "pulled", "start": "beginning", "filter": null, "paused": null, "tables": ["public.posts"], "actions": null, "filters": [], "sort_by": null, "endpoint": null, "group_by": null, "timeout_s": 30.0, "transform": null, "batch_size": 1, "concurrency": 8, "replay_from": null, "max_attempts": null, "on_exhausted": "block", "when_changed": null, "batch_timeout_s": 0.0}');
INSERT INTO triggerkit.audit OVERRIDING SYSTEM VALUE VALUES (4, '2026-11-29 21:34:09.738772+00', 'apply', 'create', 'consumer elsewhere', '{"kind": "changes", "name": "elsewhere", "start": "end", "filter": null, "paused": null, "tables": ["public.posts"], "actions": null, "filters": [], "sort_by": null, "endpoint": "refusing", "group_by": null, "timeout_s": 30.0, "transform": null, "batch_size": 1, "concurrency": 8, "replay_from": null, "max_attempts": null, "on_exhausted": "block", "when_changed": null, "batch_timeout_s": 0.0}');
INSERT INTO triggerkit.audit OVERRIDING SYSTEM VALUE VALUES (5, '2026-11-29 21:34:22.324472+00', 'cli:root', 'pause queue', 'queue slow', NULL);
INSERT INTO triggerkit.audit OVERRIDING SYSTEM VALUE VALUES (6, '2026-11-29 21:34:59.419031+00', 'cli:root', 'pause', 'consumer pulled', NULL);
INSERT INTO triggerkit.audit OVERRIDING SYSTEM VALUE VALUES (7, '2026-11-29 21:35:14.284086+00', 'cli:root', 'resume', 'consumer pulled', NULL);

INSERT INTO triggerkit.backfills OVERRIDING SYSTEM VALUE VALUES (2, 3, 'public', 'posts', NULL, 'completed', NULL, '{"last": ["8"], "until": null, "last_null": null}', NULL, NULL, '{"after": null, "nulls": true, "rows_per_s": null}', 1, 8, 8, 8, 8, '2026-11-29 21:34:09.728373+00', '2026-11-29 21:34:10.045652+00');
INSERT INTO triggerkit.backfills OVERRIDING SYSTEM VALUE VALUES (1, 1, 'public', 'posts', NULL, 'completed', NULL, '{"last": ["8"], "until": null, "last_null": null}', NULL, NULL, '{"after": null, "nulls": true, "rows_per_s": null}', 1, 16, 8, 8, 8, '2026-11-29 21:34:09.684636+00', '2026-11-29 21:34:10.08118+00');

INSERT INTO triggerkit.consumers OVERRIDING SYSTEM VALUE VALUES (1, 'index_posts', 1, 2, 'rows', '{"kind": "rows", "name": "index_posts", "start": "beginning", "filter": null, "paused": null, "tables": ["public.posts"], "actions": null, "filters": [], "sort_by": null, "endpoint": null, "group_by": null, "timeout_s": 30.0, "transform": null, "batch_size": 50, "concurrency": 8, "replay_from": null, "max_attempts": null, "on_exhausted": "block", "when_changed": null, "batch_timeout_s": 0.0}', 'active', 0, NULL, 'code', NULL, NULL, NULL, '2026-11-29 21:34:09.684636+00');
INSERT INTO triggerkit.consumers OVERRIDING SYSTEM VALUE VALUES (2, 'fail_on_notes', 1, 3, 'changes', '{"kind": "changes", "name": "fail_on_notes", "start": "end", "filter": null, "paused": null, "tables": ["public.notes"], "actions": null, "filters": [], "sort_by": null, "endpoint": null, "group_by": null, "timeout_s": 30.0, "transform": null, "batch_size": 100, "concurrency": 8, "replay_from": null, "max_attempts": null, "on_exhausted": "block", "when_changed": null, "batch_timeout_s": 0.0}', 'active', 0, NULL, 'code', NULL, NULL, NULL, '2026-11-29 21:34:09.70995+00');
INSERT INTO triggerkit.consumers OVERRIDING SYSTEM VALUE VALUES (4, 'elsewhere', 1, 1, 'changes', '{"kind": "changes", "name": "elsewhere", "start": "end", "filter": null, "paused": null, "tables": ["public.posts"], "actions": null, "filters": [], "sort_by": null, "endpoint": "refusing", "group_by": null, "timeout_s": 30.0, "transform": null, "batch_size": 1, "concurrency": 8, "replay_from": null, "max_attempts": null, "on_exhausted": "block", "when_changed": null, "batch_timeout_s": 0.0}', 'active', 0, NULL, 'file', NULL, NULL, NULL, '2026-11-29 21:34:09.738772+00');
INSERT INTO triggerkit.consumers OVERRIDING SYSTEM VALUE VALUES (3, 'pulled', 1, NULL, 'changes', '{"kind": "changes", "name": "pulled", "start": "beginning", "filter": null, "paused": null, "tables": ["public.posts"], "actions": null, "filters": [], "sort_by": null, "endpoint": null, "group_by": null, "timeout_s": 30.0, "transform": null, "batch_size": 1, "concurrency": 8, "replay_from": null, "max_attempts": null, "on_exhausted": "block", "when_changed": null, "batch_timeout_s": 0.0}', 'active', 0, NULL, 'file', NULL, NULL, NULL, '2026-11-29 21:34:09.728373+00');

INSERT INTO triggerkit.cursors VALUES (3, 2, 0, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (3, 3, 0, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (3, 4, 0, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (3, 5, 0, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (3, 6, 0, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (3, 7, 0, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (3, 0, 0, 'aF0Wk2AQKkKi6kOH', 11, 1, '2026-11-29 21:35:45.131472+00', 1, '{}');
INSERT INTO triggerkit.cursors VALUES (4, 1, 22, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (1, 1, 22, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (3, 1, 0, 'aF0Wk2AQKkKi6kOH', 8, 1, '2026-11-29 21:35:45.131558+00', 1, '{}');
INSERT INTO triggerkit.cursors VALUES (2, 0, 22, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (2, 1, 22, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (2, 2, 22, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (2, 3, 22, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (1, 2, 22, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (1, 0, 22, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (2, 4, 16, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (4, 6, 21, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (4, 0, 22, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (2, 5, 21, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (4, 2, 16, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (2, 6, 21, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (4, 3, 16, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (1, 6, 21, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (4, 4, 16, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (4, 7, 21, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (1, 3, 16, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (4, 5, 21, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (1, 4, 16, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (1, 7, 21, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (1, 5, 21, NULL, NULL, 0, NULL, 0, '{}');
INSERT INTO triggerkit.cursors VALUES (2, 7, 21, NULL, NULL, 0, NULL, 0, '{}');

INSERT INTO triggerkit.databases OVERRIDING SYSTEM VALUE VALUES (1, 'triggerkit', 'triggerkit_triggerkit', 'triggerkit', '7713709781063518869', 1, 1795988050, 2, 23, 1, 1, 31342944, '2026-11-29 21:35:51.966996+00', '2026-11-29 21:34:09.506764+00');

INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (1, 1, 0, 11, 11, 'msg_d729c6c9b3bd1ff1639f47f26da851f4', 1, 1, '2026-11-29 21:34:10.103149+00', '2026-11-29 21:34:10.190486+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (2, 1, 1, 16, 16, 'msg_7612bc3f90426925c36851b191ae65f1', 1, 1, '2026-11-29 21:34:10.191235+00', '2026-11-29 21:34:10.240046+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (3, 1, 2, 13, 13, 'msg_3d6f12a5bf9d93e669226ad87f7ab4fb', 1, 1, '2026-11-29 21:34:10.258001+00', '2026-11-29 21:34:10.306669+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (4, 1, 3, 14, 14, 'msg_70ae755821e7f11d5254cd17c1b7a41c', 1, 1, '2026-11-29 21:34:10.334472+00', '2026-11-29 21:34:10.351667+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (5, 1, 4, 15, 15, 'msg_57150dd5de1b71f613139a5d5dc02fc8', 1, 1, '2026-11-29 21:34:10.363608+00', '2026-11-29 21:34:10.393462+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (6, 1, 5, 12, 12, 'msg_1d062fdad1eddbead6de37e16ee44701', 1, 1, '2026-11-29 21:34:10.396094+00', '2026-11-29 21:34:10.413351+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (7, 1, 6, 9, 9, 'msg_b155963a69a14a25cf63fa4e2beed2eb', 1, 1, '2026-11-29 21:34:10.422512+00', '2026-11-29 21:34:10.438049+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (8, 1, 7, 10, 10, 'msg_2fee65893a43f6b777293140a491dd6b', 1, 1, '2026-11-29 21:34:10.462539+00', '2026-11-29 21:34:10.496664+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (9, 1, 0, 19, 19, 'msg_a931627ac1d24e737ff48b0214e24051', 1, 1, '2026-11-29 21:34:17.043452+00', '2026-11-29 21:34:17.071304+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (10, 4, 5, 20, 20, 'msg_6186b47715da2da3a7d4a78ef9e118b3', 1, 1, '2026-11-29 21:34:17.057342+00', '2026-11-29 21:34:17.071609+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (11, 4, 6, 21, 21, 'msg_f45d693676e3bada80bc4c7f4d28d2d2', 1, 1, '2026-11-29 21:34:17.070919+00', '2026-11-29 21:34:17.093368+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (12, 2, 6, 18, 21, 'msg_8c1ff1250840a0055e08b45d1ebba67c', 1, 1, '2026-11-29 21:34:17.066661+00', '2026-11-29 21:34:17.105643+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (13, 4, 0, 19, 19, 'msg_322e59bc5c1ad8dd823e189fc4959d68', 1, 1, '2026-11-29 21:34:17.061283+00', '2026-11-29 21:34:17.120132+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (14, 1, 5, 20, 20, 'msg_587f8bbd15087ed7ca3458a3f4ec6ac1', 1, 1, '2026-11-29 21:34:17.089881+00', '2026-11-29 21:34:17.138595+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (15, 1, 6, 21, 21, 'msg_0167dde40e5ebbab1b2042eb647f710b', 1, 1, '2026-11-29 21:34:17.135046+00', '2026-11-29 21:34:17.194417+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (16, 2, 7, 17, 17, 'msg_3623ee9f806741cf7336c75ba3cb8e7d', 1, 1, '2026-11-29 21:34:17.120691+00', '2026-11-29 21:34:17.20256+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (17, 4, 5, 20, 20, 'msg_404c36c34da299e3b5a8df68b6e3301e', 2, 1, '2026-11-29 21:34:17.98339+00', '2026-11-29 21:34:17.994718+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (18, 4, 6, 21, 21, 'msg_4c0243644bf3773437e4a033ee632ada', 2, 1, '2026-11-29 21:34:18.177109+00', '2026-11-29 21:34:18.184741+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (19, 4, 0, 19, 19, 'msg_ecb25561303a3581e36b01845a241a6c', 2, 1, '2026-11-29 21:34:18.20315+00', '2026-11-29 21:34:18.207666+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (20, 4, 5, 20, 20, 'msg_404c36c34da299e3b5a8df68b6e3301e', 3, 1, '2026-11-29 21:34:20.094811+00', '2026-11-29 21:34:20.112631+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (21, 4, 6, 21, 21, 'msg_4c0243644bf3773437e4a033ee632ada', 3, 1, '2026-11-29 21:34:20.248712+00', '2026-11-29 21:34:20.263611+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (22, 4, 0, 19, 19, 'msg_ecb25561303a3581e36b01845a241a6c', 3, 1, '2026-11-29 21:34:20.26623+00', '2026-11-29 21:34:20.286694+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (23, 4, 5, 20, 20, 'msg_404c36c34da299e3b5a8df68b6e3301e', 4, 1, '2026-11-29 21:34:24.32984+00', '2026-11-29 21:34:24.342304+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (24, 4, 6, 21, 21, 'msg_4c0243644bf3773437e4a033ee632ada', 4, 1, '2026-11-29 21:34:24.590125+00', '2026-11-29 21:34:24.600116+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (25, 4, 0, 19, 19, 'msg_ecb25561303a3581e36b01845a241a6c', 4, 1, '2026-11-29 21:34:24.677414+00', '2026-11-29 21:34:24.682677+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (26, 4, 0, 19, 19, 'msg_ecb25561303a3581e36b01845a241a6c', 5, 1, '2026-11-29 21:34:31.554526+00', '2026-11-29 21:34:31.562634+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (27, 4, 5, 20, 20, 'msg_404c36c34da299e3b5a8df68b6e3301e', 5, 1, '2026-11-29 21:34:32.952584+00', '2026-11-29 21:34:32.96965+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (28, 4, 6, 21, 21, 'msg_4c0243644bf3773437e4a033ee632ada', 5, 1, '2026-11-29 21:34:33.750588+00', '2026-11-29 21:34:33.757188+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (29, 4, 0, 19, 19, 'msg_ecb25561303a3581e36b01845a241a6c', 6, 1, '2026-11-29 21:34:46.745735+00', '2026-11-29 21:34:46.766917+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (30, 4, 5, 20, 20, 'msg_404c36c34da299e3b5a8df68b6e3301e', 6, 1, '2026-11-29 21:34:48.179139+00', '2026-11-29 21:34:48.197997+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (31, 4, 6, 21, 21, 'msg_4c0243644bf3773437e4a033ee632ada', 6, 1, '2026-11-29 21:34:52.118913+00', '2026-11-29 21:34:52.131374+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (32, 4, 1, 22, 22, 'msg_2f2042f9e0c8e64dc1fa87a6889321d5', 1, 1, '2026-11-29 21:34:59.706372+00', '2026-11-29 21:34:59.70955+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (33, 1, 1, 22, 22, 'msg_814cc0c3cbdf98665a6d8f7b5d49cff8', 1, 1, '2026-11-29 21:34:59.724945+00', '2026-11-29 21:34:59.737589+00', 200, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (34, 4, 1, 22, 22, 'msg_2bbbefe8274e9be0522554a7019a3481', 2, 1, '2026-11-29 21:35:00.578267+00', '2026-11-29 21:35:00.582988+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (35, 4, 1, 22, 22, 'msg_2bbbefe8274e9be0522554a7019a3481', 3, 1, '2026-11-29 21:35:02.534874+00', '2026-11-29 21:35:02.537398+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (36, 4, 1, 22, 22, 'msg_2bbbefe8274e9be0522554a7019a3481', 4, 1, '2026-11-29 21:35:06.042581+00', '2026-11-29 21:35:06.062286+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (37, 4, 1, 22, 22, 'msg_2bbbefe8274e9be0522554a7019a3481', 5, 1, '2026-11-29 21:35:13.874752+00', '2026-11-29 21:35:13.903273+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (38, 4, 0, 19, 19, 'msg_ecb25561303a3581e36b01845a241a6c', 7, 1, '2026-11-29 21:35:14.283748+00', '2026-11-29 21:35:14.292849+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (39, 3, 0, 3, 11, 'aF0Wk2AQKkKi6kOH', 1, 1, '2026-11-29 21:35:15.131593+00', NULL, NULL, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (40, 3, 1, 8, 8, 'aF0Wk2AQKkKi6kOH', 1, 1, '2026-11-29 21:35:15.131725+00', NULL, NULL, NULL);
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (41, 4, 6, 21, 21, 'msg_4c0243644bf3773437e4a033ee632ada', 7, 1, '2026-11-29 21:35:51.880065+00', '2026-11-29 21:35:51.92695+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (42, 4, 5, 20, 20, 'msg_404c36c34da299e3b5a8df68b6e3301e', 7, 1, '2026-11-29 21:35:51.902873+00', '2026-11-29 21:35:51.985352+00', 422, 'answered 422');
INSERT INTO triggerkit.deliveries OVERRIDING SYSTEM VALUE VALUES (43, 4, 1, 22, 22, 'msg_2bbbefe8274e9be0522554a7019a3481', 6, 1, '2026-11-29 21:35:51.896614+00', '2026-11-29 21:35:52.04673+00', 422, 'answered 422');

INSERT INTO triggerkit.endpoints OVERRIDING SYSTEM VALUE VALUES (1, 'refusing', 'http://127.0.0.1:18999/refuse', '\x0144916ae7e9fa4944340bd9aefdbc48d63fa0625f478c2b9b686f85f94097aa4a0a7bd4eee6a2ccb4432f158130ee13e6d2e6ac5aee74330e6cb2fd711e67e17ed15bedf32478b664954270a7c089ed461c9c302d684160', NULL, 'file', NULL, '2026-11-29 21:34:09.652187+00');
INSERT INTO triggerkit.endpoints OVERRIDING SYSTEM VALUE VALUES (2, 'index_posts', 'http://127.0.0.1:18123/api/index-posts', NULL, NULL, 'code', NULL, '2026-11-29 21:34:09.674333+00');
INSERT INTO triggerkit.endpoints OVERRIDING SYSTEM VALUE VALUES (3, 'fail_on_notes', 'http://127.0.0.1:18123/api/fail-on-notes', NULL, NULL, 'code', NULL, '2026-11-29 21:34:09.680786+00');

INSERT INTO triggerkit.events_1_0 VALUES (1, 1, 6, 'public', 'posts', '["1"]', 'read', 30254688, 0, '2026-11-29 21:34:10.027757+00', NULL, '{"id":1,"title":"post 1","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 3, 2, NULL, NULL, '2026-11-29 21:34:10.03779+00');
INSERT INTO triggerkit.events_1_0 VALUES (2, 1, 7, 'public', 'posts', '["2"]', 'read', 30254688, 1, '2026-11-29 21:34:10.027757+00', NULL, '{"id":2,"title":"post 2","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 3, 2, NULL, NULL, '2026-11-29 21:34:10.03779+00');
INSERT INTO triggerkit.events_1_0 VALUES (3, 1, 0, 'public', 'posts', '["3"]', 'read', 30254688, 2, '2026-11-29 21:34:10.027757+00', NULL, '{"id":3,"title":"post 3","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 3, 2, NULL, NULL, '2026-11-29 21:34:10.03779+00');
INSERT INTO triggerkit.events_1_0 VALUES (4, 1, 5, 'public', 'posts', '["4"]', 'read', 30254688, 3, '2026-11-29 21:34:10.027757+00', NULL, '{"id":4,"title":"post 4","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 3, 2, NULL, NULL, '2026-11-29 21:34:10.03779+00');
INSERT INTO triggerkit.events_1_0 VALUES (5, 1, 2, 'public', 'posts', '["5"]', 'read', 30254688, 4, '2026-11-29 21:34:10.027757+00', NULL, '{"id":5,"title":"post 5","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 3, 2, NULL, NULL, '2026-11-29 21:34:10.03779+00');
INSERT INTO triggerkit.events_1_0 VALUES (6, 1, 3, 'public', 'posts', '["6"]', 'read', 30254688, 5, '2026-11-29 21:34:10.027757+00', NULL, '{"id":6,"title":"post 6","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 3, 2, NULL, NULL, '2026-11-29 21:34:10.03779+00');
INSERT INTO triggerkit.events_1_0 VALUES (7, 1, 4, 'public', 'posts', '["7"]', 'read', 30254688, 6, '2026-11-29 21:34:10.027757+00', NULL, '{"id":7,"title":"post 7","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 3, 2, NULL, NULL, '2026-11-29 21:34:10.03779+00');
INSERT INTO triggerkit.events_1_0 VALUES (8, 1, 1, 'public', 'posts', '["8"]', 'read', 30254688, 7, '2026-11-29 21:34:10.027757+00', NULL, '{"id":8,"title":"post 8","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 3, 2, NULL, NULL, '2026-11-29 21:34:10.03779+00');
INSERT INTO triggerkit.events_1_0 VALUES (9, 1, 6, 'public', 'posts', '["1"]', 'read', 30254816, 0, '2026-11-29 21:34:10.038046+00', NULL, '{"id":1,"title":"post 1","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 1, 1, NULL, NULL, '2026-11-29 21:34:10.078658+00');
INSERT INTO triggerkit.events_1_0 VALUES (10, 1, 7, 'public', 'posts', '["2"]', 'read', 30254816, 1, '2026-11-29 21:34:10.038046+00', NULL, '{"id":2,"title":"post 2","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 1, 1, NULL, NULL, '2026-11-29 21:34:10.078658+00');
INSERT INTO triggerkit.events_1_0 VALUES (11, 1, 0, 'public', 'posts', '["3"]', 'read', 30254816, 2, '2026-11-29 21:34:10.038046+00', NULL, '{"id":3,"title":"post 3","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 1, 1, NULL, NULL, '2026-11-29 21:34:10.078658+00');
INSERT INTO triggerkit.events_1_0 VALUES (12, 1, 5, 'public', 'posts', '["4"]', 'read', 30254816, 3, '2026-11-29 21:34:10.038046+00', NULL, '{"id":4,"title":"post 4","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 1, 1, NULL, NULL, '2026-11-29 21:34:10.078658+00');
INSERT INTO triggerkit.events_1_0 VALUES (13, 1, 2, 'public', 'posts', '["5"]', 'read', 30254816, 4, '2026-11-29 21:34:10.038046+00', NULL, '{"id":5,"title":"post 5","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 1, 1, NULL, NULL, '2026-11-29 21:34:10.078658+00');
INSERT INTO triggerkit.events_1_0 VALUES (14, 1, 3, 'public', 'posts', '["6"]', 'read', 30254816, 5, '2026-11-29 21:34:10.038046+00', NULL, '{"id":6,"title":"post 6","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 1, 1, NULL, NULL, '2026-11-29 21:34:10.078658+00');
INSERT INTO triggerkit.events_1_0 VALUES (15, 1, 4, 'public', 'posts', '["7"]', 'read', 30254816, 6, '2026-11-29 21:34:10.038046+00', NULL, '{"id":7,"title":"post 7","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 1, 1, NULL, NULL, '2026-11-29 21:34:10.078658+00');
INSERT INTO triggerkit.events_1_0 VALUES (16, 1, 1, 'public', 'posts', '["8"]', 'read', 30254816, 7, '2026-11-29 21:34:10.038046+00', NULL, '{"id":8,"title":"post 8","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, 1, 1, NULL, NULL, '2026-11-29 21:34:10.078658+00');
INSERT INTO triggerkit.events_1_0 VALUES (17, 1, 7, 'public', 'notes', '["1"]', 'insert', 30328352, 0, '2026-11-29 21:34:16.985875+00', 852, '{"id":1,"body":"a"}', NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-29 21:34:17.022899+00');
INSERT INTO triggerkit.events_1_0 VALUES (18, 1, 6, 'public', 'notes', '["2"]', 'insert', 30328352, 1, '2026-11-29 21:34:16.985875+00', 852, '{"id":2,"body":"b"}', NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-29 21:34:17.022899+00');
INSERT INTO triggerkit.events_1_0 VALUES (19, 1, 0, 'public', 'posts', '["3"]', 'update', 30328352, 2, '2026-11-29 21:34:16.985875+00', 852, '{"id":3,"title":"changed","updated_at":"2026-11-29T21:34:09.322232Z"}', '{"title":"post 3"}', NULL, NULL, NULL, NULL, NULL, '2026-11-29 21:34:17.022899+00');
INSERT INTO triggerkit.events_1_0 VALUES (20, 1, 5, 'public', 'posts', '["4"]', 'delete', 30328352, 3, '2026-11-29 21:34:16.985875+00', 852, '{"id":4,"title":"post 4","updated_at":"2026-11-29T21:34:09.322232Z"}', NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-29 21:34:17.022899+00');
INSERT INTO triggerkit.events_1_0 VALUES (21, 1, 6, 'public', 'posts', '["9"]', 'insert', 30328352, 4, '2026-11-29 21:34:16.985875+00', 852, '{"id":9,"title":"new","updated_at":"2026-11-29T21:34:16.967074Z"}', NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-29 21:34:17.022899+00');
INSERT INTO triggerkit.events_1_0 VALUES (22, 1, 1, 'public', 'posts', '["10"]', 'insert', 30850800, 0, '2026-11-29 21:34:59.688759+00', 992, '{"id":10,"title":"not delivered","updated_at":"2026-11-29T21:34:59.688097Z"}', NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-29 21:34:59.700093+00');

INSERT INTO triggerkit.installation VALUES ('7d81064c-ac50-c455-3149-535186436184', '2026-11-29 21:33:37.546252+00');

INSERT INTO triggerkit.migrations VALUES (1, 'initial', '2026-11-29 21:33:37.546252+00');

INSERT INTO triggerkit.parked VALUES (4, 6, 21, 'public.posts:["9"]', '{"record":{"id":9,"title":"new","updated_at":"2026-11-29T21:34:16.967074Z"},"changes":null,"action":"insert","metadata":{"table_schema":"public","table_name":"posts","record_pks":["9"],"commit_timestamp":"2026-11-29T21:34:16.985875Z","commit_lsn":30328352,"commit_idx":4,"idempotency_key":"4.0.7713709781063518869.1795988050.30328352.4","position":21,"xid":852,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"4","name":"elsewhere"},"transaction_annotations":null}}', 'answered 422', 'failing', 7, 7, 422, '2026-11-29 21:37:00.678765+00', NULL, '2026-11-29 21:34:17.092789+00');
INSERT INTO triggerkit.parked VALUES (4, 5, 20, 'public.posts:["4"]', '{"record":{"id":4,"title":"post 4","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":null,"action":"delete","metadata":{"table_schema":"public","table_name":"posts","record_pks":["4"],"commit_timestamp":"2026-11-29T21:34:16.985875Z","commit_lsn":30328352,"commit_idx":3,"idempotency_key":"4.0.7713709781063518869.1795988050.30328352.3","position":20,"xid":852,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"4","name":"elsewhere"},"transaction_annotations":null}}', 'answered 422', 'failing', 7, 7, 422, '2026-11-29 21:36:52.634935+00', NULL, '2026-11-29 21:34:17.067318+00');
INSERT INTO triggerkit.parked VALUES (4, 0, 19, 'public.posts:["3"]', '{"record":{"id":3,"title":"changed","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":{"title":"post 3"},"action":"update","metadata":{"table_schema":"public","table_name":"posts","record_pks":["3"],"commit_timestamp":"2026-11-29T21:34:16.985875Z","commit_lsn":30328352,"commit_idx":2,"idempotency_key":"4.0.7713709781063518869.1795988050.30328352.2","position":19,"xid":852,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"4","name":"elsewhere"},"transaction_annotations":null}}', 'answered 422', 'failing', 7, 7, 422, '2026-11-29 21:36:12.388837+00', NULL, '2026-11-29 21:34:17.112279+00');
INSERT INTO triggerkit.parked VALUES (4, 1, 22, 'public.posts:["10"]', '{"record":{"id":10,"title":"not delivered","updated_at":"2026-11-29T21:34:59.688097Z"},"changes":null,"action":"insert","metadata":{"table_schema":"public","table_name":"posts","record_pks":["10"],"commit_timestamp":"2026-11-29T21:34:59.688759Z","commit_lsn":30850800,"commit_idx":0,"idempotency_key":"4.0.7713709781063518869.1795988050.30850800.0","position":22,"xid":992,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"4","name":"elsewhere"},"transaction_annotations":null}}', 'answered 422', 'failing', 6, 6, 422, '2026-11-29 21:36:22.748528+00', NULL, '2026-11-29 21:34:59.708416+00');

INSERT INTO triggerkit.queues VALUES ('slow', 1, NULL, NULL, 'code', '2026-11-29 21:34:22.297246+00');

INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mknm6g9e819tacretd3wj0', 1, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988050147751, 1, 3, 0, 0, '{"data":[{"record":{"id":3,"title":"post 3","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":null,"action":"read","metadata":{"table_schema":"public","table_name":"posts","record_pks":["3"],"commit_timestamp":"2026-11-29T21:34:10.038046Z","commit_lsn":30254816,"commit_idx":2,"idempotency_key":"1.0.b1.public.posts:[\"3\"]","position":11,"xid":null,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_d729c6c9b3bd1ff1639f47f26da851f4', NULL, 'index_posts/0', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 11, "commit_lsn": 30254816, "last_position": 11}', NULL, '2026-11-29 21:34:10.147878+00', NULL, NULL, '2026-11-29 21:34:10.198052+00', '2026-11-29 21:34:10.268277+00', NULL, 'host:8500:7b0ced/1', '7ec2d90889afdde3', 'cc4037c9', NULL, NULL, '00-7bbb18c2cce17a9f6476cbf53202452f-abb21c710f7e4e0d-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mknm8kyvjvhvq82tg7ydmd', 2, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988050198037, 1, 3, 0, 0, '{"data":[{"record":{"id":8,"title":"post 8","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":null,"action":"read","metadata":{"table_schema":"public","table_name":"posts","record_pks":["8"],"commit_timestamp":"2026-11-29T21:34:10.038046Z","commit_lsn":30254816,"commit_idx":7,"idempotency_key":"1.0.b1.public.posts:[\"8\"]","position":16,"xid":null,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_7612bc3f90426925c36851b191ae65f1', NULL, 'index_posts/1', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 16, "commit_lsn": 30254816, "last_position": 16}', NULL, '2026-11-29 21:34:10.198047+00', NULL, NULL, '2026-11-29 21:34:10.249766+00', '2026-11-29 21:34:10.304049+00', NULL, 'host:8500:7b0ced/1', '3b6d1f1359f29d78', 'cc4037c9', NULL, NULL, '00-c906eb46d25220b651b7a82b740c4641-d795bf306acb3972-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mknmatrswwhyf65msbw1kz', 3, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988050268095, 1, 3, 0, 0, '{"data":[{"record":{"id":5,"title":"post 5","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":null,"action":"read","metadata":{"table_schema":"public","table_name":"posts","record_pks":["5"],"commit_timestamp":"2026-11-29T21:34:10.038046Z","commit_lsn":30254816,"commit_idx":4,"idempotency_key":"1.0.b1.public.posts:[\"5\"]","position":13,"xid":null,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_3d6f12a5bf9d93e669226ad87f7ab4fb', NULL, 'index_posts/2', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 13, "commit_lsn": 30254816, "last_position": 13}', NULL, '2026-11-29 21:34:10.268105+00', NULL, NULL, '2026-11-29 21:34:10.319356+00', '2026-11-29 21:34:10.338831+00', NULL, 'host:8500:7b0ced/1', '2f6ef79d10019394', 'cc4037c9', NULL, NULL, '00-7f5c7047905e1d46b61f9be276e671d9-861b36f98028ee51-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mknmczwshvqhq2v5davv04', 4, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988050336998, 1, 3, 0, 0, '{"data":[{"record":{"id":6,"title":"post 6","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":null,"action":"read","metadata":{"table_schema":"public","table_name":"posts","record_pks":["6"],"commit_timestamp":"2026-11-29T21:34:10.038046Z","commit_lsn":30254816,"commit_idx":5,"idempotency_key":"1.0.b1.public.posts:[\"6\"]","position":14,"xid":null,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_70ae755821e7f11d5254cd17c1b7a41c', NULL, 'index_posts/3', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 14, "commit_lsn": 30254816, "last_position": 14}', NULL, '2026-11-29 21:34:10.337008+00', NULL, NULL, '2026-11-29 21:34:10.368614+00', '2026-11-29 21:34:10.388467+00', NULL, 'host:8500:7b0ced/1', '0e2e5f8ab622d1d3', 'cc4037c9', NULL, NULL, '00-36dd63b74c4880a09e0c9f49d04e7f47-63bbee581ab7b30a-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mknmdyg7cahqhse40q79ff', 5, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988050372036, 1, 3, 0, 0, '{"data":[{"record":{"id":7,"title":"post 7","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":null,"action":"read","metadata":{"table_schema":"public","table_name":"posts","record_pks":["7"],"commit_timestamp":"2026-11-29T21:34:10.038046Z","commit_lsn":30254816,"commit_idx":6,"idempotency_key":"1.0.b1.public.posts:[\"7\"]","position":15,"xid":null,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_57150dd5de1b71f613139a5d5dc02fc8', NULL, 'index_posts/4', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 15, "commit_lsn": 30254816, "last_position": 15}', NULL, '2026-11-29 21:34:10.372044+00', NULL, NULL, '2026-11-29 21:34:10.40556+00', '2026-11-29 21:34:10.413941+00', NULL, 'host:8500:7b0ced/1', '025f292f31832f44', 'cc4037c9', NULL, NULL, '00-fa5cc17bde9fa929c1ad3d6d7d26ad21-86a8a3344121b52f-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mknmey20sm1ewqk95wvpvf', 6, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988050402135, 1, 3, 0, 0, '{"data":[{"record":{"id":4,"title":"post 4","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":null,"action":"read","metadata":{"table_schema":"public","table_name":"posts","record_pks":["4"],"commit_timestamp":"2026-11-29T21:34:10.038046Z","commit_lsn":30254816,"commit_idx":3,"idempotency_key":"1.0.b1.public.posts:[\"4\"]","position":12,"xid":null,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_1d062fdad1eddbead6de37e16ee44701', NULL, 'index_posts/5', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 12, "commit_lsn": 30254816, "last_position": 12}', NULL, '2026-11-29 21:34:10.402143+00', NULL, NULL, '2026-11-29 21:34:10.442754+00', '2026-11-29 21:34:10.465395+00', NULL, 'host:8500:7b0ced/1', 'e2cb00725770a79b', 'cc4037c9', NULL, NULL, '00-90aec3d383b06e5cac4d9ed148c11dca-a3c02234c20024e4-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mknmfqpjq8v464cp3n0e2s', 7, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988050424539, 1, 3, 0, 0, '{"data":[{"record":{"id":1,"title":"post 1","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":null,"action":"read","metadata":{"table_schema":"public","table_name":"posts","record_pks":["1"],"commit_timestamp":"2026-11-29T21:34:10.038046Z","commit_lsn":30254816,"commit_idx":0,"idempotency_key":"1.0.b1.public.posts:[\"1\"]","position":9,"xid":null,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_b155963a69a14a25cf63fa4e2beed2eb', NULL, 'index_posts/6', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 9, "commit_lsn": 30254816, "last_position": 9}', NULL, '2026-11-29 21:34:10.424548+00', NULL, NULL, '2026-11-29 21:34:10.442822+00', '2026-11-29 21:34:10.483108+00', NULL, 'host:8500:7b0ced/1', 'e2cb00725770a79b', 'cc4037c9', NULL, NULL, '00-8b62cce988aaf7e64d4a0f8fca860084-192f0812a433ddaf-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mknmh2hf0ystbvm9bcjtj3', 8, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988050467941, 1, 3, 0, 0, '{"data":[{"record":{"id":2,"title":"post 2","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":null,"action":"read","metadata":{"table_schema":"public","table_name":"posts","record_pks":["2"],"commit_timestamp":"2026-11-29T21:34:10.038046Z","commit_lsn":30254816,"commit_idx":1,"idempotency_key":"1.0.b1.public.posts:[\"2\"]","position":10,"xid":null,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_2fee65893a43f6b777293140a491dd6b', NULL, 'index_posts/7', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 10, "commit_lsn": 30254816, "last_position": 10}', NULL, '2026-11-29 21:34:10.467951+00', NULL, NULL, '2026-11-29 21:34:10.495254+00', '2026-11-29 21:34:10.500119+00', NULL, 'host:8500:7b0ced/1', 'e492cae2f40f4ef5', 'cc4037c9', NULL, NULL, '00-881ee3b7cb5cab4dccc332bf63f364fe-b4f03a132996ebf2-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mkntymkhxfbg9hzddks16e', 9, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988057045741, 1, 3, 0, 0, '{"data":[{"record":{"id":3,"title":"changed","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":{"title":"post 3"},"action":"update","metadata":{"table_schema":"public","table_name":"posts","record_pks":["3"],"commit_timestamp":"2026-11-29T21:34:16.985875Z","commit_lsn":30328352,"commit_idx":2,"idempotency_key":"1.0.7713709781063518869.1795988050.30328352.2","position":19,"xid":852,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_a931627ac1d24e737ff48b0214e24051', NULL, 'index_posts/0', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 19, "commit_lsn": 30328352, "last_position": 19}', NULL, '2026-11-29 21:34:17.045753+00', NULL, NULL, '2026-11-29 21:34:17.066229+00', '2026-11-29 21:34:17.075916+00', NULL, 'host:8500:7b0ced/1', '00ec4631d193c625', 'cc4037c9', NULL, NULL, '00-cfb9175521f653c9e3916804cc480b22-069f860b6b8cea80-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mkntzn62pemkbbswsyk53a', 10, 'fail_on_notes', 'default', 'failed', false, false, NULL, 0, 1795988057925494, 2, 2, 0, 0, '{"record":{"id":2,"body":"b"},"changes":null,"action":"insert","metadata":{"table_schema":"public","table_name":"notes","record_pks":["2"],"commit_timestamp":"2026-11-29T21:34:16.985875Z","commit_lsn":30328352,"commit_idx":1,"idempotency_key":"2.0.7713709781063518869.1795988050.30328352.1","position":18,"xid":852,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"2","name":"fail_on_notes"},"transaction_annotations":null}}', NULL, NULL, '{"type": "ValueError", "message": "no notes", "traceback": "Traceback (most recent call last):\n  File \"/srv/blog/tasks.py\", line 13, in fail_on_notes\n    raise ValueError(\"no notes\")\nValueError: no notes\n"}', '2.0.7713709781063518869.1795988050.30328352.1', NULL, 'row/public.notes:["2"]', NULL, '{}', '{}', '{"key": "public.notes:[\"2\"]", "table": "public.notes", "consumer": "fail_on_notes", "position": 18, "commit_lsn": 30328352, "last_position": 18}', NULL, '2026-11-29 21:34:17.079571+00', NULL, NULL, '2026-11-29 21:34:17.933753+00', '2026-11-29 21:34:17.947986+00', NULL, 'host:8500:7b0ced/1', 'e9e6c54bc69b1758', 'cc4037c9', NULL, NULL, '00-b16ffa2e7f93eb1682cf0d7a3ed4d62c-c7c7d17612cf0540-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mknv02r587c86xh9ka4h8n', 11, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988057105192, 1, 3, 0, 0, '{"data":[{"record":{"id":4,"title":"post 4","updated_at":"2026-11-29T21:34:09.322232Z"},"changes":null,"action":"delete","metadata":{"table_schema":"public","table_name":"posts","record_pks":["4"],"commit_timestamp":"2026-11-29T21:34:16.985875Z","commit_lsn":30328352,"commit_idx":3,"idempotency_key":"1.0.7713709781063518869.1795988050.30328352.3","position":20,"xid":852,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_587f8bbd15087ed7ca3458a3f4ec6ac1', NULL, 'index_posts/5', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 20, "commit_lsn": 30328352, "last_position": 20}', NULL, '2026-11-29 21:34:17.105201+00', NULL, NULL, '2026-11-29 21:34:17.135483+00', '2026-11-29 21:34:17.158138+00', NULL, 'host:8500:7b0ced/1', 'fba9c1f80131df22', 'cc4037c9', NULL, NULL, '00-eab35bd780aa56b5f27310758b500458-055c0b45348fa13a-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mknv1r31k9wp9jf5hkmy05', 13, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988057155692, 1, 3, 0, 0, '{"data":[{"record":{"id":9,"title":"new","updated_at":"2026-11-29T21:34:16.967074Z"},"changes":null,"action":"insert","metadata":{"table_schema":"public","table_name":"posts","record_pks":["9"],"commit_timestamp":"2026-11-29T21:34:16.985875Z","commit_lsn":30328352,"commit_idx":4,"idempotency_key":"1.0.7713709781063518869.1795988050.30328352.4","position":21,"xid":852,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_0167dde40e5ebbab1b2042eb647f710b', NULL, 'index_posts/6', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 21, "commit_lsn": 30328352, "last_position": 21}', NULL, '2026-11-29 21:34:17.1557+00', NULL, NULL, '2026-11-29 21:34:17.189348+00', '2026-11-29 21:34:17.196133+00', NULL, 'host:8500:7b0ced/1', '1e6f0afe8f25ad59', 'cc4037c9', NULL, NULL, '00-d16f27bbfd0bcc10b757996f88b49a66-8cbda0682abbc295-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mknv11rmxhcmnebt5jsn8r', 12, 'fail_on_notes', 'default', 'failed', false, false, NULL, 0, 1795988057925665, 2, 2, 0, 0, '{"record":{"id":1,"body":"a"},"changes":null,"action":"insert","metadata":{"table_schema":"public","table_name":"notes","record_pks":["1"],"commit_timestamp":"2026-11-29T21:34:16.985875Z","commit_lsn":30328352,"commit_idx":0,"idempotency_key":"2.0.7713709781063518869.1795988050.30328352.0","position":17,"xid":852,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"2","name":"fail_on_notes"},"transaction_annotations":null}}', NULL, NULL, '{"type": "ValueError", "message": "no notes", "traceback": "Traceback (most recent call last):\n  File \"/srv/blog/tasks.py\", line 13, in fail_on_notes\n    raise ValueError(\"no notes\")\nValueError: no notes\n"}', '2.0.7713709781063518869.1795988050.30328352.0', NULL, 'row/public.notes:["1"]', NULL, '{}', '{}', '{"key": "public.notes:[\"1\"]", "table": "public.notes", "consumer": "fail_on_notes", "position": 17, "commit_lsn": 30328352, "last_position": 17}', NULL, '2026-11-29 21:34:17.141047+00', NULL, NULL, '2026-11-29 21:34:17.963569+00', '2026-11-29 21:34:17.974894+00', NULL, 'host:8500:7b0ced/1', 'f922de927467f134', 'cc4037c9', NULL, NULL, '00-9aedd15d234174e41fd130433d87b720-46d22420a4da9677-01', false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mkp3g9d2d81jbwbwbkv7rq', 14, 'send', 'slow', 'queued', false, false, 'held', 0, 1795988065887754, 0, 3, 0, 0, '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{}', '{}', NULL, NULL, '2026-11-29 21:34:25.887847+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mkp6g2rt8vk2jfq0r99b21', 15, 'send', 'slow', 'queued', false, false, 'held', 0, 1795988068926964, 0, 3, 0, 0, '2', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{}', '{}', NULL, NULL, '2026-11-29 21:34:28.927054+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mkpmn5wh5egv7ws46h1xje', 16, 'send', 'slow', 'delayed', false, false, NULL, 5, 1795988078429283, 0, 3, 0, 0, '3', NULL, NULL, NULL, 'once', '2026-12-11 11:21:22.429327+00', NULL, NULL, '{later}', '{"why": "test"}', NULL, NULL, '2026-11-29 21:34:43.42938+00', '2026-11-30 21:34:43.42928+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mkpqsd44e9qwysjgzsp3hk', 17, 'send', 'slow', 'queued', false, false, 'held', 0, 1795988086644525, 0, 3, 0, 0, '4', NULL, NULL, NULL, NULL, NULL, 'k', NULL, '{}', '{}', NULL, NULL, '2026-11-29 21:34:46.64461+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mkptnvs5fwgbn5smvekssy', 18, 'send', 'slow', 'queued', true, false, 'held', 0, 1795988089612841, 0, 3, 0, 0, '5', NULL, NULL, NULL, NULL, NULL, 'k', NULL, '{}', '{}', NULL, NULL, '2026-11-29 21:34:49.613087+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mkpx7g2dwyhqet0t12x2y0', 19, 'send', 'slow', 'delayed', false, false, NULL, 0, 1795988092207485, 0, 3, 0, 0, '6', NULL, NULL, NULL, NULL, NULL, NULL, 'd', '{}', '{}', NULL, NULL, '2026-11-29 21:34:52.207583+00', '2026-11-30 21:34:52.207454+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false);
INSERT INTO triggerkit.runs OVERRIDING SYSTEM VALUE VALUES ('run_01m8mkq4mdsfwgy2nt7nw6b9z8', 20, 'index_posts', 'default', 'completed', false, false, NULL, 0, 1795988099727393, 1, 3, 0, 0, '{"data":[{"record":{"id":10,"title":"not delivered","updated_at":"2026-11-29T21:34:59.688097Z"},"changes":null,"action":"insert","metadata":{"table_schema":"public","table_name":"posts","record_pks":["10"],"commit_timestamp":"2026-11-29T21:34:59.688759Z","commit_lsn":30850800,"commit_idx":0,"idempotency_key":"1.0.7713709781063518869.1795988050.30850800.0","position":22,"xid":992,"database":{"id":"1","name":"triggerkit","epoch":1795988050},"consumer":{"id":"1","name":"index_posts"},"transaction_annotations":null}}]}', 1, '1', NULL, 'msg_814cc0c3cbdf98665a6d8f7b5d49cff8', NULL, 'index_posts/1', NULL, '{}', '{}', '{"table": "public.posts", "consumer": "index_posts", "position": 22, "commit_lsn": 30850800, "last_position": 22}', NULL, '2026-11-29 21:34:59.727407+00', NULL, NULL, '2026-11-29 21:34:59.736855+00', '2026-11-29 21:34:59.748896+00', NULL, 'host:8500:7b0ced/1', 'b9ec7afbad8a430c', 'cc4037c9', NULL, NULL, '00-404c39838f25082256d2f4deb6e16ee4-00d08585ba4a0789-01', false);

INSERT INTO triggerkit.schedules VALUES ('nightly', 'nightly', 'default', 3, '0 4 * * *', 'Europe/Berlin', false, 'null', NULL, '2026-11-30 03:00:00+00', NULL, NULL);

INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (1, 'run_01m8mknm6g9e819tacretd3wj0', 1, 'log', NULL, '6e93b72a85d43ab5', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:10.219817+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (2, 'run_01m8mknm6g9e819tacretd3wj0', 1, 'span', '6e93b72a85d43ab5', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:10.219761+00', '2026-11-29 21:34:10.220437+00');
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (3, 'run_01m8mknm8kyvjvhvq82tg7ydmd', 1, 'log', NULL, '7f4b868939d17e2c', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:10.287626+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (4, 'run_01m8mknm8kyvjvhvq82tg7ydmd', 1, 'span', '7f4b868939d17e2c', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:10.287591+00', '2026-11-29 21:34:10.287846+00');
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (5, 'run_01m8mknmatrswwhyf65msbw1kz', 1, 'log', NULL, 'e6d7f801a2534281', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:10.333765+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (6, 'run_01m8mknmatrswwhyf65msbw1kz', 1, 'span', 'e6d7f801a2534281', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:10.333738+00', '2026-11-29 21:34:10.333921+00');
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (7, 'run_01m8mknmczwshvqhq2v5davv04', 1, 'log', NULL, '93b40a326b4d84de', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:10.386718+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (8, 'run_01m8mknmczwshvqhq2v5davv04', 1, 'span', '93b40a326b4d84de', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:10.386691+00', '2026-11-29 21:34:10.38695+00');
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (9, 'run_01m8mknmdyg7cahqhse40q79ff', 1, 'log', NULL, 'ba2c85175dd65a14', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:10.411928+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (10, 'run_01m8mknmdyg7cahqhse40q79ff', 1, 'span', 'ba2c85175dd65a14', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:10.411903+00', '2026-11-29 21:34:10.412098+00');
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (11, 'run_01m8mknmey20sm1ewqk95wvpvf', 1, 'log', NULL, 'b5d4973bf1f455bd', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:10.463515+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (12, 'run_01m8mknmey20sm1ewqk95wvpvf', 1, 'span', 'b5d4973bf1f455bd', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:10.46349+00', '2026-11-29 21:34:10.46369+00');
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (13, 'run_01m8mknmfqpjq8v464cp3n0e2s', 1, 'log', NULL, '51b49f7e030c78c7', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:10.464147+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (14, 'run_01m8mknmfqpjq8v464cp3n0e2s', 1, 'span', '51b49f7e030c78c7', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:10.464137+00', '2026-11-29 21:34:10.464487+00');
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (15, 'run_01m8mknmh2hf0ystbvm9bcjtj3', 1, 'log', NULL, 'd3963d7c218a7b05', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:10.499087+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (16, 'run_01m8mknmh2hf0ystbvm9bcjtj3', 1, 'span', 'd3963d7c218a7b05', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:10.49906+00', '2026-11-29 21:34:10.49924+00');
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (17, 'run_01m8mkntymkhxfbg9hzddks16e', 1, 'log', NULL, '9b9cae8a1670ca8e', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:17.074998+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (18, 'run_01m8mkntymkhxfbg9hzddks16e', 1, 'span', '9b9cae8a1670ca8e', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:17.074974+00', '2026-11-29 21:34:17.07518+00');
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (19, 'run_01m8mknv02r587c86xh9ka4h8n', 1, 'log', NULL, '6687135d1b0e8e68', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:17.143627+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (20, 'run_01m8mknv02r587c86xh9ka4h8n', 1, 'span', '6687135d1b0e8e68', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:17.143606+00', '2026-11-29 21:34:17.145312+00');
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (21, 'run_01m8mknv1r31k9wp9jf5hkmy05', 1, 'log', NULL, 'f80388e2484e9776', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:17.195306+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (22, 'run_01m8mknv1r31k9wp9jf5hkmy05', 1, 'span', 'f80388e2484e9776', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:17.195283+00', '2026-11-29 21:34:17.19547+00');
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (23, 'run_01m8mkq4mdsfwgy2nt7nw6b9z8', 1, 'log', NULL, 'cd66461e0d77d279', 'indexed 1', 'stdout', '{}', NULL, '2026-11-29 21:34:59.747181+00', NULL);
INSERT INTO triggerkit.spans OVERRIDING SYSTEM VALUE VALUES (24, 'run_01m8mkq4mdsfwgy2nt7nw6b9z8', 1, 'span', 'cd66461e0d77d279', NULL, 'write', NULL, '{"rows": 1}', NULL, '2026-11-29 21:34:59.74715+00', '2026-11-29 21:34:59.747415+00');

INSERT INTO triggerkit.workers VALUES ('host:14003:160647/1', 'host', 14010, 14003, '8756f5d5-e99b-4b39-9f1b-54feacd6c6a3/4026531836', 153145, 14033, '{default,slow}', '{fail_on_notes,index_posts,nightly,send}', 'cc4037c9', 8, 100, 1, '2026-11-29 21:35:51.713243+00');

SELECT pg_catalog.setval('triggerkit.audit_id_seq', 7, true);

SELECT pg_catalog.setval('triggerkit.backfills_id_seq', 2, true);

SELECT pg_catalog.setval('triggerkit.consumers_id_seq', 4, true);

SELECT pg_catalog.setval('triggerkit.databases_id_seq', 2, true);

SELECT pg_catalog.setval('triggerkit.deliveries_id_seq', 43, true);

SELECT pg_catalog.setval('triggerkit.endpoints_id_seq', 7, true);

SELECT pg_catalog.setval('triggerkit.runs_seq_seq', 20, true);

SELECT pg_catalog.setval('triggerkit.spans_id_seq', 24, true);

ALTER TABLE ONLY triggerkit.attempts
    ADD CONSTRAINT attempts_pkey PRIMARY KEY (run_id, attempt);

ALTER TABLE ONLY triggerkit.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);

ALTER TABLE ONLY triggerkit.backfills
    ADD CONSTRAINT backfills_pkey PRIMARY KEY (id);

ALTER TABLE ONLY triggerkit.consumers
    ADD CONSTRAINT consumers_name_key UNIQUE (name);

ALTER TABLE ONLY triggerkit.consumers
    ADD CONSTRAINT consumers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY triggerkit.cursors
    ADD CONSTRAINT cursors_pkey PRIMARY KEY (consumer_id, partition);

ALTER TABLE ONLY triggerkit.databases
    ADD CONSTRAINT databases_name_key UNIQUE (name);

ALTER TABLE ONLY triggerkit.databases
    ADD CONSTRAINT databases_pkey PRIMARY KEY (id);

ALTER TABLE ONLY triggerkit.deliveries
    ADD CONSTRAINT deliveries_pkey PRIMARY KEY (id);

ALTER TABLE ONLY triggerkit.endpoints
    ADD CONSTRAINT endpoints_name_key UNIQUE (name);

ALTER TABLE ONLY triggerkit.endpoints
    ADD CONSTRAINT endpoints_pkey PRIMARY KEY (id);

ALTER TABLE ONLY triggerkit.events
    ADD CONSTRAINT events_pkey PRIMARY KEY (database_id, partition, "position");

ALTER TABLE ONLY triggerkit.events_1
    ADD CONSTRAINT events_1_pkey PRIMARY KEY (database_id, partition, "position");

ALTER TABLE ONLY triggerkit.events_1_0
    ADD CONSTRAINT events_1_0_pkey PRIMARY KEY (database_id, partition, "position");

ALTER TABLE ONLY triggerkit.events_1_1
    ADD CONSTRAINT events_1_1_pkey PRIMARY KEY (database_id, partition, "position");

ALTER TABLE ONLY triggerkit.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (id);

ALTER TABLE ONLY triggerkit.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY triggerkit.parked
    ADD CONSTRAINT parked_pkey PRIMARY KEY (consumer_id, partition, "position");

ALTER TABLE ONLY triggerkit.queues
    ADD CONSTRAINT queues_pkey PRIMARY KEY (name);

ALTER TABLE ONLY triggerkit.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY triggerkit.schedules
    ADD CONSTRAINT schedules_pkey PRIMARY KEY (name);

ALTER TABLE ONLY triggerkit.spans
    ADD CONSTRAINT spans_pkey PRIMARY KEY (id);

ALTER TABLE ONLY triggerkit.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (id);

CREATE INDEX backfills_open ON triggerkit.backfills USING btree (consumer_id) WHERE (state = ANY (ARRAY['active'::text, 'paused'::text]));

CREATE INDEX deliveries_position ON triggerkit.deliveries USING btree (consumer_id, partition, last_position);

CREATE INDEX events_large ON ONLY triggerkit.events USING btree (database_id, partition, hashtext(key), "position") WHERE ((octet_length(record) > 2000) OR (unchanged IS NOT NULL) OR (fault IS NOT NULL));

CREATE INDEX events_1_database_id_partition_hashtext_position_idx ON ONLY triggerkit.events_1 USING btree (database_id, partition, hashtext(key), "position") WHERE ((octet_length(record) > 2000) OR (unchanged IS NOT NULL) OR (fault IS NOT NULL));

CREATE INDEX events_1_0_database_id_partition_hashtext_position_idx ON triggerkit.events_1_0 USING btree (database_id, partition, hashtext(key), "position") WHERE ((octet_length(record) > 2000) OR (unchanged IS NOT NULL) OR (fault IS NOT NULL));

CREATE INDEX events_1_1_database_id_partition_hashtext_position_idx ON triggerkit.events_1_1 USING btree (database_id, partition, hashtext(key), "position") WHERE ((octet_length(record) > 2000) OR (unchanged IS NOT NULL) OR (fault IS NOT NULL));

CREATE INDEX parked_due ON triggerkit.parked USING btree (consumer_id, due_at) WHERE (state = 'failing'::text);

CREATE INDEX parked_key ON triggerkit.parked USING btree (consumer_id, hashtext(key), "position");

CREATE UNIQUE INDEX runs_debounce ON triggerkit.runs USING btree (task, debounce_key) WHERE ((debounce_key IS NOT NULL) AND (status = 'delayed'::text));

CREATE INDEX runs_due ON triggerkit.runs USING btree (scheduled_at) WHERE (status = ANY (ARRAY['delayed'::text, 'retrying'::text]));

CREATE INDEX runs_expiring ON triggerkit.runs USING btree (expires_at) WHERE ((expires_at IS NOT NULL) AND (status = ANY (ARRAY['delayed'::text, 'queued'::text])) AND (attempt = 0));

CREATE INDEX runs_going ON triggerkit.runs USING btree (task, concurrency_key) WHERE ((concurrency_key IS NOT NULL) AND (finished_at IS NULL) AND (NOT blocked));

CREATE INDEX runs_held ON triggerkit.runs USING btree (queue, rank) WHERE ((status = 'queued'::text) AND (NOT blocked) AND (gate = 'held'::text));

CREATE UNIQUE INDEX runs_idempotency ON triggerkit.runs USING btree (task, idempotency_key) WHERE (idempotency_key IS NOT NULL);

CREATE INDEX runs_item ON triggerkit.runs USING btree (task, item_key) WHERE ((item_key IS NOT NULL) AND (finished_at IS NULL));

CREATE INDEX runs_key ON triggerkit.runs USING btree (task, concurrency_key, seq) WHERE ((concurrency_key IS NOT NULL) AND (finished_at IS NULL));

CREATE INDEX runs_open ON triggerkit.runs USING btree (queue) WHERE (gate = 'open'::text);

CREATE INDEX runs_parent ON triggerkit.runs USING btree (parent_id, id) WHERE (parent_id IS NOT NULL);

CREATE INDEX runs_pending ON triggerkit.runs USING btree (seq) WHERE pending;

CREATE INDEX runs_ready ON triggerkit.runs USING btree (task, rank) WHERE ((status = 'queued'::text) AND (NOT blocked) AND (gate IS DISTINCT FROM 'held'::text));

CREATE INDEX runs_unsuccessful ON triggerkit.runs USING btree (status, id) WHERE (status = ANY (ARRAY['failed'::text, 'crashed'::text, 'canceled'::text, 'expired'::text, 'timed_out'::text]));

CREATE INDEX runs_worker ON triggerkit.runs USING btree (worker) WHERE (status = 'executing'::text);

CREATE INDEX schedules_due ON triggerkit.schedules USING btree (next_at) WHERE (paused_at IS NULL);

CREATE INDEX spans_run ON triggerkit.spans USING btree (run_id, id);

CREATE INDEX starts_queue ON triggerkit.starts USING btree (queue, at);

ALTER INDEX triggerkit.events_1_database_id_partition_hashtext_position_idx ATTACH PARTITION triggerkit.events_1_0_database_id_partition_hashtext_position_idx;

ALTER INDEX triggerkit.events_1_pkey ATTACH PARTITION triggerkit.events_1_0_pkey;

ALTER INDEX triggerkit.events_1_database_id_partition_hashtext_position_idx ATTACH PARTITION triggerkit.events_1_1_database_id_partition_hashtext_position_idx;

ALTER INDEX triggerkit.events_1_pkey ATTACH PARTITION triggerkit.events_1_1_pkey;

ALTER INDEX triggerkit.events_large ATTACH PARTITION triggerkit.events_1_database_id_partition_hashtext_position_idx;

ALTER INDEX triggerkit.events_pkey ATTACH PARTITION triggerkit.events_1_pkey;

CREATE TRIGGER runs_awaited AFTER UPDATE OF finished_at ON triggerkit.runs FOR EACH ROW WHEN ((new.awaited AND (new.finished_at IS NOT NULL) AND (old.finished_at IS NULL))) EXECUTE FUNCTION triggerkit.tell_of_end();

ALTER TABLE ONLY triggerkit.backfills
    ADD CONSTRAINT backfills_consumer_id_fkey FOREIGN KEY (consumer_id) REFERENCES triggerkit.consumers(id) ON DELETE CASCADE;

ALTER TABLE ONLY triggerkit.consumers
    ADD CONSTRAINT consumers_database_id_fkey FOREIGN KEY (database_id) REFERENCES triggerkit.databases(id);

ALTER TABLE ONLY triggerkit.consumers
    ADD CONSTRAINT consumers_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES triggerkit.endpoints(id);

ALTER TABLE ONLY triggerkit.cursors
    ADD CONSTRAINT cursors_consumer_id_fkey FOREIGN KEY (consumer_id) REFERENCES triggerkit.consumers(id) ON DELETE CASCADE;

ALTER TABLE ONLY triggerkit.deliveries
    ADD CONSTRAINT deliveries_consumer_id_fkey FOREIGN KEY (consumer_id) REFERENCES triggerkit.consumers(id) ON DELETE CASCADE;

ALTER TABLE ONLY triggerkit.parked
    ADD CONSTRAINT parked_consumer_id_fkey FOREIGN KEY (consumer_id) REFERENCES triggerkit.consumers(id) ON DELETE CASCADE;
