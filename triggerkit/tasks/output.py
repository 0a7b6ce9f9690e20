"""A task's output as its type, read from the JSON that the run has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_type_hints

import orjson
from pydantic import TypeAdapter

from triggerkit.errors import InvalidOutput
from triggerkit.message import BatchResult
from triggerkit.tasks.function import called


class OutputType:
    """The type that a function returns; JSON as it is when none is known."""

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        """Read what `function` says that it returns."""
        self._adapter: TypeAdapter[Any] | None = None
        self._is_batch_result = False
        if function is None:
            return
        try:
            kind = get_type_hints(called(function), include_extras=True).get("return", Any)
            self._is_batch_result = kind is BatchResult
            if kind not in (Any, None, type(None), BatchResult):
                self._adapter = TypeAdapter(kind)
        except Exception:
            # A name that only a type checker knows, or a type that pydantic does not.
            self._adapter = None

    def read(self, output: Any) -> Any:
        """Return the output as the function's type.

        Raises:
            InvalidOutput: it does not fit, as when it was too large to be stored.
        """
        if self._is_batch_result:
            return BatchResult(output)
        if self._adapter is None:
            return output
        try:
            return self._adapter.validate_json(orjson.dumps(output))
        except Exception as error:
            raise InvalidOutput from error


#: An output whose type is not known.
as_json = OutputType()
