"""The operations of the API, as they are served and described, one row each."""

from __future__ import annotations

from typing import Final

from triggerkit.web.api import (
    audit,
    backfills,
    consumers,
    databases,
    endpoints,
    messages,
    pulling,
    runs,
    traces,
)
from triggerkit.web.api.operation import Operation

#: Where the API is.
PREFIX: Final = "/api/v1"

# fmt: off
OPERATIONS: Final = (
    Operation("GET", "/databases", databases.list_databases, "List the source databases"),
    Operation("GET", "/databases/{name}", databases.show_database, "Show a source database"),
    Operation("GET", "/databases/{name}/health", databases.show_health,
              "Show how a database's capture is"),
    Operation("GET", "/endpoints", endpoints.list_endpoints, "List the endpoints"),
    Operation("POST", "/endpoints", endpoints.create_endpoint, "Make an endpoint", 201, (409,)),
    Operation("GET", "/endpoints/{name}", endpoints.show_endpoint, "Show an endpoint"),
    Operation("PATCH", "/endpoints/{name}", endpoints.edit_endpoint, "Change an endpoint",
              errors=(409,)),
    Operation("DELETE", "/endpoints/{name}", endpoints.delete_endpoint, "Delete an endpoint",
              204, (409,)),
    Operation("POST", "/endpoints/{name}/test", endpoints.test_endpoint, "Send a test message"),
    Operation("POST", "/endpoints/{name}/enable", endpoints.enable_endpoint,
              "Push to a gone endpoint again"),
    Operation("GET", "/consumers", consumers.list_consumers, "List the consumers"),
    Operation("POST", "/consumers", consumers.create_consumer, "Make a consumer", 201, (409,)),
    Operation("GET", "/consumers/{name}", consumers.show_consumer, "Show a consumer"),
    Operation("PATCH", "/consumers/{name}", consumers.edit_consumer, "Change a consumer",
              errors=(409,)),
    Operation("DELETE", "/consumers/{name}", consumers.delete_consumer, "Delete a consumer", 204),
    Operation("GET", "/consumers/{name}/health", consumers.show_health,
              "Show a consumer's lag and problems"),
    Operation("POST", "/consumers/{name}/pause", consumers.pause_consumer, "Pause a consumer"),
    Operation("POST", "/consumers/{name}/resume", consumers.resume_consumer, "Resume a consumer"),
    Operation("POST", "/consumers/{name}/replay", consumers.replay_consumer,
              "Deliver again from a place on"),
    *pulling.OPERATIONS,
    Operation("GET", "/backfills", backfills.list_backfills, "List the backfills"),
    Operation("POST", "/backfills", backfills.start_backfill, "Start backfills", 201, (404, 409)),
    Operation("GET", "/backfills/{id}", backfills.show_backfill, "Show a backfill"),
    Operation("POST", "/backfills/{id}/pause", backfills.pause_backfill, "Pause a backfill",
              errors=(409,)),
    Operation("POST", "/backfills/{id}/resume", backfills.resume_backfill, "Resume a backfill",
              errors=(409,)),
    Operation("POST", "/backfills/{id}/cancel", backfills.cancel_backfill, "Cancel a backfill",
              errors=(409,)),
    Operation("GET", "/messages", messages.list_messages, "List parked messages", errors=(404,)),
    Operation("POST", "/messages/retry", messages.retry_messages, "Try parked messages again",
              errors=(404, 409)),
    Operation("POST", "/messages/discard", messages.discard_messages, "Drop parked messages",
              errors=(404,)),
    Operation("GET", "/messages/{consumer}/{position}", messages.show_message,
              "Show a parked message"),
    Operation("POST", "/messages/{consumer}/{position}/retry", messages.retry_message,
              "Try a parked message again", errors=(409,)),
    Operation("POST", "/messages/{consumer}/{position}/discard", messages.discard_message,
              "Drop a parked message"),
    Operation("GET", "/tasks", runs.list_tasks, "List the tasks"),
    Operation("GET", "/runs", runs.list_all_runs, "List the latest runs"),
    Operation("GET", "/runs/{id}", runs.show_one_run, "Show a run"),
    Operation("GET", "/traces/{position}", traces.show_trace, "Show the way of a change"),
    Operation("GET", "/audit", audit.list_changes, "List what was changed"),
)
# fmt: on
