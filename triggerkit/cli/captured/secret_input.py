"""Headers and signing secrets as a command is given them, mostly from elsewhere than its line."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from triggerkit.consumers.endpoints.model import Endpoint
from triggerkit.consumers.endpoints.signing import OF_KNOWN, OF_NEW, signed
from triggerkit.errors import InvalidEndpoint

#: Where a value is read from instead: an optional first word such as `Bearer`, then the place.
_PLACE = re.compile(r"(?P<first>\S+ +)?(?:env:(?P<name>\w+)|@(?P<path>.+))")


def headers_given(options: list[str] | None) -> dict[str, str]:
    """Return the headers of `--header`, by name.

    Raises:
        InvalidEndpoint: one has no colon or is given twice, or its value cannot be read.
    """
    headers: dict[str, str] = {}
    for text in options or []:
        name, colon, value = text.partition(":")
        if not colon:
            raise InvalidEndpoint("write a header as --header 'Name: value'")
        if name.strip().lower() in (known.lower() for known in headers):
            raise InvalidEndpoint(f"the header {name.strip()} is given twice")
        headers[name.strip()] = secret_given(value.strip(), f"the header {name.strip()}")
    return headers


def signing_given(text: str, before: Endpoint | None) -> str | None:
    """Return the signing secrets that `--signing-secret` asks for; `before` is None of a new
    endpoint.

    Raises:
        InvalidEndpoint: the secret cannot be read.
    """
    words = OF_NEW if before is None else OF_KNOWN
    return signed(text, before) if text in words else secret_given(text, "the signing secret")


def secret_given(text: str, what: str) -> str:
    """Return a secret that is given as it is, which is warned of, or by `env:NAME` or `@file`.

    Raises:
        InvalidEndpoint: it cannot be read.
    """
    place = _PLACE.fullmatch(text)
    if place is None:
        print(
            f"warning: {what} is on the command line, where other users and the shell's history "
            "can see it; use env:NAME or @file instead",
            file=sys.stderr,
        )
        return text
    first, name, path = place["first"] or "", place["name"], place["path"]
    if name is not None:
        if not os.environ.get(name):
            raise InvalidEndpoint(f"{what}: the environment variable {name} is not set")
        return first + os.environ[name]
    try:
        return first + Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidEndpoint(f"{what}: {path} cannot be read: {error}") from None
