"""Keeps a table of MySQL or MariaDB equal to `customers`."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import unquote, urlsplit

import pymysql
from pydantic import BaseModel
from pymysql.cursors import Cursor

from triggerkit import Change, Retry, rows, task

CREATE = """
CREATE TABLE IF NOT EXISTS customers (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    position bigint NOT NULL
) CHARACTER SET utf8mb4
"""

#: MySQL assigns from left to right: `position` is compared before it is replaced.
UPSERT = """
INSERT INTO customers (id, name, email, position) VALUES (%s, %s, %s, %s)
ON DUPLICATE KEY UPDATE
    name = IF(position <= VALUES(position), VALUES(name), name),
    email = IF(position <= VALUES(position), VALUES(email), email),
    position = GREATEST(position, VALUES(position))
"""


class Customer(BaseModel):
    """A row of `customers`."""

    id: int
    name: str = ""
    email: str = ""


@contextmanager
def transaction() -> Iterator[Cursor]:
    """Open one transaction in MYSQL_URL: `mysql://user:password@host:3306/database`."""
    url = urlsplit(os.environ["MYSQL_URL"])
    connection = pymysql.connect(
        host=url.hostname or "127.0.0.1",
        port=url.port or 3306,
        user=unquote(url.username or ""),
        password=unquote(url.password or ""),
        database=url.path.lstrip("/"),
        connect_timeout=10,
    )
    with closing(connection), connection.cursor() as cursor:
        yield cursor
        connection.commit()


def create_copy() -> None:
    """Make the table of the copy, before the first run."""
    with transaction() as cursor:
        cursor.execute(CREATE)


@task(
    on=rows("public.customers"),
    batch_size=500,
    prepare=create_copy,
    retry=Retry(max_attempts=5, wait_for=(pymysql.err.OperationalError,)),
)
def sync_customers(batch: list[Change[Customer]]) -> int:
    """Apply a batch in one transaction; a repeated or late change does no harm."""
    with transaction() as cursor:
        for change in batch:
            apply(cursor, change)
    return len(batch)


def apply(cursor: Cursor, change: Change[Customer]) -> None:
    """Apply one change to the copy."""
    position, customer = change.metadata.position or 0, change.record
    if change.action == "truncate":
        cursor.execute("DELETE FROM customers WHERE position < %s", [position])
    elif change.action == "delete":
        cursor.execute("DELETE FROM customers WHERE id = %s", [customer.id])
    else:
        cursor.execute(UPSERT, [customer.id, customer.name, customer.email, position])
