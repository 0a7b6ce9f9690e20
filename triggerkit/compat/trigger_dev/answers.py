"""Answers as the SDK reads them. An error is `{"error": text}`: the text is all that it shows."""

from __future__ import annotations

import psycopg
from pydantic import ValidationError
from starlette.responses import Response

from triggerkit.errors import InvalidPayload
from triggerkit.web.api import problems

#: Statuses after which the SDK is to try again. By itself it also would after 409 and 501.
_AGAIN = frozenset({408, 429, 503})


def refused(status: int, error: str) -> Response:
    """Return an error."""
    return told(problems.answer(status, {"error": error}))


def answer_to(error: Exception, where: str) -> Response:
    """Return the answer to what a call raised; `where` names the call, for the log."""
    if isinstance(error, ValidationError):
        return _invalid(error)
    if isinstance(error, InvalidPayload):
        return refused(422, str(error))
    # Two at the same time: the second one finds what the first has made.
    return told(problems.answer_to(error, where), again=isinstance(error, psycopg.IntegrityError))


def told(response: Response, *, again: bool = False) -> Response:
    """Return an answer that says whether to try again."""
    if response.status_code >= 400:
        is_again = again or response.status_code in _AGAIN
        response.headers["x-should-retry"] = "true" if is_again else "false"
    return response


def _invalid(error: ValidationError) -> Response:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return refused(400, "malformed JSON")
    said = []
    for one in found[: problems.MAX_PROBLEMS]:
        place = ".".join(map(str, one["loc"]))
        text = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            text = "is not known here"
        said.append(f"{place}: {text}" if place else text)
    return refused(422, "; ".join(said))
