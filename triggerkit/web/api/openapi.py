"""The description of the API in OpenAPI 3.1, made of the operations that are served.

Source: OpenAPI Specification 3.1.1; its schemas are JSON Schema 2020-12, which pydantic writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, TypeAdapter

from triggerkit.web.api.operation import Operation
from triggerkit.web.api.problems import Error, InvalidRequest

_REFERENCE = "#/components/schemas/{model}"

_ABOUT = (
    "Every request carries `Authorization: Bearer` and TRIGGERKIT_SECRET_KEY. What is wrong with "
    'one is answered by `{"error": …}`, with `detail` where fields are wrong. No answer shows a '
    "secret: of endpoints' headers and signing secrets there are names and fingerprints."
)


def describe(operations: Sequence[Operation], prefix: str) -> dict[str, Any]:
    """Return the description of `operations`, whose paths are below `prefix`."""
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        at = paths.setdefault(f"{prefix}{operation.path}", {})
        at[operation.method.lower()] = _described(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "triggerkit",
            "summary": "A row changes in Postgres, a Python task runs.",
            "description": _ABOUT,
            "version": version("triggerkit"),
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"secretKey": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"secretKey": []}],
    }


class _Schemas:
    """The schemas of all requests and answers, made together so that each stands there once."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        kinds: list[tuple[tuple[str, str], Any, TypeAdapter[Any]]] = [
            (("", "error"), "serialization", TypeAdapter(Error)),
            (("", "invalid"), "serialization", TypeAdapter(InvalidRequest)),
        ]
        for operation in operations:
            if operation.body is not None:
                adapter: TypeAdapter[Any] = TypeAdapter(operation.body)
                kinds.append(((operation.name, "body"), "validation", adapter))
            kinds.append(((operation.name, "answer"), "serialization", operation.answer))
        found, definitions = TypeAdapter.json_schemas(kinds, ref_template=_REFERENCE)
        self.components: dict[str, Any] = definitions.get("$defs", {})
        self._found = {key: schema for (key, _), schema in found.items()}

    def content(self, name: str, part: str) -> dict[str, Any]:
        """Return a request's or an answer's schema, as OpenAPI has it."""
        return {"application/json": {"schema": self._found[(name, part)]}}


def _described(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.path.split("/")[1]],
        "summary": operation.summary,
        "description": " ".join(operation.about.split()),
        "parameters": [*_in_path(operation), *_in_query(operation.query)],
        "responses": _answers(operation, schemas),
    }
    if operation.body is not None:
        content = schemas.content(operation.name, "body")
        found["requestBody"] = {"required": True, "content": content}
    return found


def _answers(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    done: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if operation.status != HTTPStatus.NO_CONTENT:
        done["content"] = schemas.content(operation.name, "answer")
    answers = {str(operation.status): done}
    for status in operation.statuses:
        part = "invalid" if status == HTTPStatus.UNPROCESSABLE_ENTITY else "error"
        phrase = HTTPStatus(status).phrase
        answers[str(status)] = {"description": phrase, "content": schemas.content("", part)}
    return answers


def _in_path(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": adapter.json_schema()}
        for name, adapter in operation.parameters.items()
    ]


def _in_query(query: type[BaseModel] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    schema = query.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": given}
        for name, given in schema["properties"].items()
    ]
