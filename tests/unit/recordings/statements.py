"""The SQL whose frames and values are recorded."""

from __future__ import annotations

from typing import LiteralString

SETUP: LiteralString = """
CREATE TABLE posts (
    id bigint PRIMARY KEY, title text, body text, score int, updated_at timestamptz
);
ALTER TABLE posts ALTER body SET STORAGE EXTERNAL, SET (toast_tuple_target = 128);
CREATE TABLE whole (LIKE posts INCLUDING ALL);
ALTER TABLE whole REPLICA IDENTITY FULL, SET (toast_tuple_target = 128);
CREATE TABLE pairs (a int, b text, note text, PRIMARY KEY (b, a));
CREATE TABLE long_keys (id text PRIMARY KEY, n int);
ALTER TABLE long_keys ALTER id SET STORAGE EXTERNAL, SET (toast_tuple_target = 128);
CREATE TABLE indexed (id int PRIMARY KEY, email text NOT NULL UNIQUE, n int);
ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_email_key;
CREATE TABLE keyless (a int, b text);
ALTER TABLE keyless REPLICA IDENTITY FULL;
CREATE TABLE times (at timestamptz PRIMARY KEY, n int);
CREATE SCHEMA triggerkit;
CREATE TABLE triggerkit.signals (id int PRIMARY KEY);
CREATE TYPE mood AS ENUM ('sad', 'ok, "then"');
CREATE TYPE point3 AS (x int, y text, z numeric);
CREATE DOMAIN short AS varchar(5);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE TABLE types (
    id int PRIMARY KEY, flag bool, small int2, big int8, real4 float4, real8 float8, exact numeric,
    word text, code char(5), data bytea, day date, clock time, local timestamp, instant timestamptz,
    span interval, price money, uid uuid, doc json, docb jsonb, host inet, numbers int4range,
    mood mood, moods mood[], short short, positive positive, spot point3, ints int[], texts text[],
    docs jsonb[], boxes box[], nothing text
);
CREATE PUBLICATION triggerkit_recording FOR ALL TABLES;
SELECT pg_create_logical_replication_slot('triggerkit_recording', 'pgoutput');
SELECT pg_replication_origin_create('elsewhere');
"""

STEPS: dict[str, list[LiteralString]] = {
    "insert": [
        "INSERT INTO posts VALUES (1, 'Ünïcødé', 'body', -7, '2026-11-21 20:19:34.123456+00')"
    ],
    "insert nulls": ["INSERT INTO posts (id) VALUES (2)", "INSERT INTO posts VALUES (3, '', '')"],
    "insert many": ["INSERT INTO posts SELECT i, 't' || i FROM generate_series(10, 14) i"],
    "copy": ["COPY posts (id, title) FROM STDIN"],
    "insert large": [
        "INSERT INTO posts VALUES (4, 'large', repeat('x', 2100), 1, '2026-01-01')",
    ],
    "update": ["UPDATE posts SET score = 8 WHERE id = 1"],
    "update with unchanged toast": ["UPDATE posts SET score = 2 WHERE id = 4"],
    "update unchanged toast and nulls": [
        "UPDATE posts SET title = NULL, score = NULL, updated_at = NULL WHERE id = 4"
    ],
    "update key": ["UPDATE posts SET id = 5, title = 'moved' WHERE id = 1"],
    "update key with unchanged toast": ["UPDATE posts SET id = 40 WHERE id = 4"],
    "delete": ["DELETE FROM posts WHERE id = 5"],
    "full insert": ["INSERT INTO whole VALUES (1, 'large', repeat('y', 2100), 1, '2026-01-01')"],
    "full update with unchanged toast": ["UPDATE whole SET score = 2, title = NULL WHERE id = 1"],
    "full update of nothing": ["UPDATE whole SET score = 2 WHERE id = 1"],
    "full update of toast": ["UPDATE whole SET body = repeat('z', 2100) WHERE id = 1"],
    "full update key": ["UPDATE whole SET id = 6 WHERE id = 1"],
    "full delete": ["DELETE FROM whole WHERE id = 6"],
    "two key columns": [
        "INSERT INTO pairs VALUES (1, 'b', 'n')",
        "UPDATE pairs SET note = 'm'",
        "UPDATE pairs SET a = 2",
        "DELETE FROM pairs",
    ],
    "key in toast": [
        "INSERT INTO long_keys VALUES (repeat('k', 2100), 1)",
        "UPDATE long_keys SET n = 2",
        "UPDATE long_keys SET id = repeat('l', 2100)",
    ],
    "identity by index": [
        "INSERT INTO indexed VALUES (1, 'a@example.com', 1)",
        "UPDATE indexed SET n = 2",
        "UPDATE indexed SET id = 2",
        "UPDATE indexed SET email = 'b@example.com'",
        "DELETE FROM indexed",
    ],
    "no primary key": [
        "INSERT INTO keyless VALUES (1, NULL)",
        "UPDATE keyless SET a = 2",
        "DELETE FROM keyless",
    ],
    "time as key": ["INSERT INTO times VALUES ('2026-01-01', 1)", "UPDATE times SET n = 2"],
    "truncate": ["TRUNCATE posts, whole, triggerkit.signals RESTART IDENTITY CASCADE"],
    "alter": [
        "INSERT INTO posts VALUES (1, 'before')",
        "ALTER TABLE posts ADD extra int DEFAULT 7",
        "INSERT INTO posts VALUES (2, 'added')",
        "ALTER TABLE posts RENAME title TO headline",
        "INSERT INTO posts VALUES (3, 'renamed')",
        "ALTER TABLE posts ALTER score TYPE text",
        "INSERT INTO posts VALUES (4, 'retyped', NULL, 'many')",
        "ALTER TABLE posts DROP body",
        "INSERT INTO posts VALUES (5, 'dropped', '9')",
    ],
    "own schema": ["INSERT INTO triggerkit.signals VALUES (1)", "DELETE FROM triggerkit.signals"],
    "messages": [
        "SELECT pg_logical_emit_message(true, 'in', 'content of a transaction')",
        "SELECT pg_logical_emit_message(false, 'out', '\\x00ff'::bytea)",
    ],
    "origin": [
        "SELECT pg_replication_origin_session_setup('elsewhere')",
        "INSERT INTO pairs VALUES (7, 'from', 'elsewhere')",
        "SELECT pg_replication_origin_session_reset()",
    ],
    "types": [
        r"""INSERT INTO types VALUES (
            1, true, -2, 9223372036854775807, 0.1, 'NaN', 'NaN', E'a\tb', 'ab', '\x00ff',
            '0044-03-15 BC', '24:00', 'infinity', '2026-11-21 20:19:34.5+00',
            '1 day -2 hours', 12.34, '8f6c9a2e-6a0c-4b66-93d5-0d6b6c1f2a3b', '{"a": 1,  "a": 2}',
            ('{"n": ' || repeat('1', 401) || '}')::jsonb, '10.0.0.1/8', '[1,5)', 'ok, "then"',
            '{sad,NULL,"ok, \"then\""}', 'abc', 7, ROW(1, 'a,"b', 1.50), '[0:1]={7,8}',
            '{"a,b",NULL,"NULL",""," ","\"","\\"}', ARRAY['{"a": "x,\"y"}', NULL]::jsonb[],
            '{(1,1),(0,0);NULL}', NULL
        )""",
    ],
}

#: Expressions whose values are recorded, one a line.
VALUES: LiteralString = r"""
true
false
0::int2
(-32768)::int2
2147483647
(-9223372036854775808)::int8
4294967295::oid
0.1::float4
1e-38::float4
3.4028235e38::float4
0.1::float8
'-0'::float8
1e308::float8
5e-324::float8
123456789012345678::float8
'NaN'::float8
'Infinity'::float8
'-Infinity'::float4
1.50::numeric
'NaN'::numeric
'Infinity'::numeric
'-Infinity'::numeric
'-0'::numeric
1e400::numeric
0.1::numeric(20,10)
''::text
E'tab\tline\n"quote" back\\slash'::text
'Grüße 🐘'::text
'abc'::varchar(5)
'ab'::char(5)
'x'::"char"
'a_name'::name
'8F6C9A2E-6A0C-4B66-93D5-0D6B6C1F2A3B'::uuid
'sad'::mood
'abc'::short
7::positive
ROW(1, 'a,"b', 1.50)::point3
'2026-11-21 20:19:34.123456+00'::timestamptz
'2026-11-21 20:19:34.1+00'::timestamptz
'2026-11-21 20:19:34+00'::timestamptz
'2026-11-21 20:19:34+05:30'::timestamptz
'infinity'::timestamptz
'-infinity'::timestamptz
'0044-03-15 12:00:00 BC'::timestamptz
'12026-01-01 00:00:00.5'::timestamptz
'294276-12-31 23:59:59'::timestamptz
'0001-01-01'::timestamptz
'4713-01-01 BC'::timestamptz
'2026-11-21 20:19:34.123456'::timestamp
'2026-11-21 20:19:34.12'::timestamp
'2026-11-21'::timestamp
'infinity'::timestamp
'0044-03-15 BC'::timestamp
'12026-01-01'::timestamp
'2026-11-21'::date
'infinity'::date
'0044-03-15 BC'::date
'24:00:00'::time
'20:19:34.5+05:30'::timetz
'1 year -2 days 03:04:05.6'::interval
12.34::numeric::money
'[1,5)'::int4range
'(,)'::tstzrange
'empty'::daterange
'{[1,2),[5,)}'::int4multirange
'10.0.0.1/8'::inet
'fe80::/10'::cidr
'08:00:2b:01:02:03'::macaddr
B'101'
'a fat cat'::tsvector
'(1,2)'::point
'((1,1),(0,0))'::box
'1/16'::pg_lsn
'\xdeadbeef00'::bytea
''::bytea
'posts'::regclass
'1 2 3'::int2vector
E'{"b": 1,\n "a": [null, 1.10, "x"]}'::json
'{"b": 1, "a": [null, 1.10, "x"]}'::jsonb
'null'::jsonb
('{"n": ' || repeat('1', 401) || '}')::jsonb
repeat('7', 5000)::jsonb
'1e400'::jsonb
'"\ud83d\ude00\u0041"'::jsonb
'"\ud800"'::json
'{}'::int[]
'{1,NULL,-3}'::int[]
'{{1,2},{3,NULL}}'::int[]
'[0:1]={7,8}'::int[]
'[-1:0][2:3]={{1,2},{3,4}}'::int8[]
'{{{1}},{{2}}}'::int2[]
'{t,f,NULL}'::bool[]
'{0.1,NaN,-Infinity}'::float8[]
'{1.50,NaN,1e20}'::numeric[]
ARRAY['a', NULL, 'NULL', 'null', '', ' ', 'a b', 'a,b', '{', '}', '"', '\', E'\n', 'é']
ARRAY[['a', '"'], ['\\', NULL]]::varchar[]
ARRAY['\xdead', '\x']::bytea[]
ARRAY['2026-11-21 20:19:34.5+00', 'infinity', NULL]::timestamptz[]
ARRAY['2026-11-21']::date[]
ARRAY['1 day']::interval[]
ARRAY['{"a": "x,\"y"}', '[1, 2]', NULL, 'null']::jsonb[]
ARRAY['{"a" : 1}']::json[]
ARRAY['((1,1),(0,0))', NULL, '((3,3),(2,2))']::box[]
ARRAY['(1,2)', '(3,4)']::point[]
ARRAY['[1,5)', 'empty']::int4range[]
ARRAY['8f6c9a2e-6a0c-4b66-93d5-0d6b6c1f2a3b']::uuid[]
ARRAY['sad', 'ok, "then"', NULL]::mood[]
ARRAY['abc']::short[]
ARRAY[ROW(1, 'a,"b', 1.50)]::point3[]
ARRAY['10.0.0.1/8']::inet[]
"""
