"""Sample posts of real text that every machine with Python has: the standard library's docs.

Each documented public module, class and function becomes a post: its name and signature are the
title, its docstring the body, its module the author.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

from psycopg import Connection

#: Left out: what acts when imported (opens a browser, prints, takes over the terminal), what needs
#: a display, what is a test or a private part of another module, and twins of `os.path`.
EXCLUDED = frozenset({
    "antigravity", "this", "idlelib", "lib2to3", "distutils", "ensurepip", "tkinter", "turtle",
    "turtledemo", "readline", "rlcompleter", "test", "pydoc_data", "encodings", "posix", "nt",
    "posixpath", "ntpath", "nturl2path", "sre_compile", "sre_constants", "sre_parse",
})  # fmt: skip

#: Modules of packages that are worth a reader's search but are not found at the top.
SUBMODULES = (
    "collections.abc", "concurrent.futures", "ctypes.util", "email.message", "email.mime.text",
    "email.utils", "html.parser", "http.client", "http.cookies", "http.server",
    "importlib.metadata", "importlib.resources", "json.tool", "logging.config",
    "logging.handlers", "multiprocessing.pool", "multiprocessing.shared_memory", "os.path",
    "unittest.mock", "urllib.parse", "urllib.request", "urllib.robotparser", "wsgiref.util",
    "xml.dom.minidom", "xml.etree.ElementTree", "xml.sax.saxutils", "xmlrpc.client",
)  # fmt: skip

#: Shorter docs say nothing to search for.
MIN_BODY_CHARS = 40

#: Longer signatures make no title.
MAX_SIGNATURE_CHARS = 100

#: Defaults of these types print the same everywhere.
PLAIN = (int, float, str, bytes, type(None))

ANY_POST = "SELECT EXISTS (SELECT FROM posts)"
COPY_POSTS = "COPY posts (title, body, author) FROM STDIN"


class SamplePost(NamedTuple):
    """A post to be inserted; the author is the module it documents."""

    title: str
    body: str
    author: str


def seed(connection: Connection[Any]) -> int:
    """Fill the empty table `posts`; returns how many posts it inserted, 0 if it had some."""
    with connection.transaction(), connection.cursor() as cursor:
        filled = cursor.execute(ANY_POST).fetchone()
        if filled is not None and filled[0]:
            return 0
        posts = sample_posts()
        with cursor.copy(COPY_POSTS) as copy:
            for post in posts:
                copy.write_row(post)
    return len(posts)


def sample_posts() -> list[SamplePost]:
    """Build the posts: the same ones in the same order on the same Python."""
    seen: set[int] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [post for module in _modules() for post in _posts_of(module, seen)]


def _modules() -> Iterator[tuple[str, ModuleType]]:
    top = (name for name in sys.stdlib_module_names if not name.startswith("_"))
    for name in sorted({*top, *SUBMODULES} - EXCLUDED):
        try:
            yield name, importlib.import_module(name)
        except Exception:  # noqa: S112 - some are for another platform, or were not built here
            continue


def _posts_of(named: tuple[str, ModuleType], seen: set[int]) -> Iterator[SamplePost]:
    name, module = named
    body = _doc(module)
    if body is not None:
        yield SamplePost(f"{name} — module", body, name)
    for member, value in sorted(vars(module).items()):
        if member.startswith("_") or id(value) in seen or not _belongs(member, value, module):
            continue
        body = _doc(value)
        if body is not None:
            seen.add(id(value))
            prefix = "" if module is builtins else f"{name}."
            yield SamplePost(f"{prefix}{member}{_signature(value)}", body, name)


def _belongs(member: str, value: object, module: ModuleType) -> bool:
    """Whether a class or function is the module's own, or comes from its private or C part."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return False
    home = getattr(value, "__module__", None) or "_"
    own = module.__name__
    if home == own or home == f"_{own}" or home.startswith(f"{own}."):
        return True
    exported = member in getattr(module, "__all__", ())
    return exported and (home.startswith("_") or home in EXCLUDED)


def _doc(value: object) -> str | None:
    """The value's own docstring, None when it has none worth reading."""
    doc = getattr(value, "__doc__", None)
    if not isinstance(doc, str):
        return None
    # A text in Postgres has no NUL.
    doc = inspect.cleandoc(doc).replace("\0", "\\0")
    return doc if len(doc) >= MIN_BODY_CHARS else None


def _signature(value: Any) -> str:
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return "" if inspect.isclass(value) else "()"
    signature = str(inspect.Signature([_plain(parameter) for parameter in parameters]))
    return signature if len(signature) <= MAX_SIGNATURE_CHARS else "(...)"


class _Elided:
    """Stands for a default that is an object: it prints differently from run to run."""

    def __repr__(self) -> str:
        return "..."


def _plain(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter without annotation, and without a default that says where this process runs."""
    default = parameter.default
    said = isinstance(default, PLAIN) and default != sys.executable
    if default is not parameter.empty and not said:
        default = _Elided()
    return parameter.replace(default=default, annotation=parameter.empty)
