"""What the guide to the API makes: an endpoint and a consumer of its table."""

from __future__ import annotations

import psycopg

from tests.integration.serving import Answer
from triggerkit.settings import Settings
from triggerkit.signature import new_secret

SECRET = new_secret()

LOCAL = "http://127.0.0.1:3001/api/create-embedding-for-post"

ENDPOINT = {"name": "local_endpoint", "url": LOCAL, "headers": {"Authorization": "Bearer s3cret!"}}

CONSUMER = {
    "name": "posts_push_consumer",
    "kind": "rows",
    "tables": ["public.posts"],
    "sort_by": "updated_at",
    "start": "beginning",
    "endpoint": "local_endpoint",
}

#: Where the consumer is.
AT = "/consumers/posts_push_consumer"


def refusal(answer: Answer) -> tuple[int, str]:
    """The status and the error of an answer."""
    return answer.status, answer.json["error"]


def put_into_log(settings: Settings) -> None:
    """Put the change of position 1 into the log: the post 1 was deleted."""
    with psycopg.connect(settings.state_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE triggerkit.e PARTITION OF triggerkit.events DEFAULT")
        connection.execute(
            "INSERT INTO triggerkit.events (position, database_id, partition, schema_name, "
            "table_name, key, action, commit_lsn, commit_idx, commit_at, record) "
            "SELECT 1, id, 0, 'public', 'posts', '[\"1\"]', 'delete', 7, 0, now(), '{\"id\": 1}' "
            "FROM triggerkit.databases"
        )
        connection.execute("UPDATE triggerkit.databases SET next_position = 2")
