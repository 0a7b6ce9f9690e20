"""Names of tables and columns as names of Python classes and attributes."""

from __future__ import annotations

import json
import keyword
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from pydantic import BaseModel

#: Names that a written module uses itself: an attribute or class of such a name would hide it.
RESERVED: Final = frozenset(
    {
        "Annotated", "Any", "AllowInfNan", "BaseModel", "Decimal", "Field", "Literal",
        "NotRequired", "Numeric", "TypedDict", "UUID", "None", "True", "False",
        "bool", "dataclass", "dt", "float", "int", "list", "str",
    }
)  # fmt: skip

#: Words that are their own singular, and words' ends that are none of a plural.
_SAME: Final = frozenset({"series", "news", "species", "data", "media"})
_SINGULAR: Final = ("ss", "us", "is")

#: How plurals end, and what their singular has there; the first that fits is taken.
_PLURALS: Final = (
    ("ies", "y"),
    ("sses", "ss"),
    ("shes", "sh"),
    ("ches", "ch"),
    ("xes", "x"),
    ("zes", "z"),
    ("ouses", "ouse"),
    ("uses", "us"),
    ("s", ""),
)


def quoted(text: str) -> str:
    """`text` as a string literal, in the quotes that a formatter leaves."""
    literal = json.dumps(text, ensure_ascii=False)
    if '"' in text and "'" not in text:
        return "'" + literal[1:-1].replace('\\"', '"') + "'"
    return literal


def is_plain(name: str) -> bool:
    """Return whether a column's name is one of an attribute as it stands."""
    return (
        name.isidentifier()
        and not keyword.iskeyword(name)
        and name not in RESERVED
        and not name.startswith("_")
        # Python reads a name in this form.
        and unicodedata.normalize("NFKC", name) == name
    )


def attribute_names(columns: Iterable[str]) -> list[str]:
    """Return a name of an attribute for each column, all of them different; its own where that can
    be."""
    listed = list(columns)
    taken = {name for name in listed if _is_free(name)}
    return [name if _is_free(name) else unique(_made(name), taken) for name in listed]


def class_name(name: str, *, singular: bool = True) -> str:
    """`post_categories` as `PostCategory`."""
    words = [word for word in re.split(r"[\W_]+", unicodedata.normalize("NFKC", name)) if word]
    if words and singular:
        words[-1] = _singular(words[-1])
    found = "".join(word[0].upper() + word[1:] for word in words)
    if not found.isidentifier():
        found = f"Table{found}"
    return f"{found}Row" if found in RESERVED else found


def unique(name: str, taken: set[str]) -> str:
    """`name`, or with a number where it is `taken`; then it is."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found


def _is_free(name: str) -> bool:
    return is_plain(name) and not hasattr(BaseModel, name)


def _made(name: str) -> str:
    found = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", name)).strip("_") or "column"
    if not found.isidentifier():
        found = f"column_{found}"
    return found if _is_free(found) else f"{found}_"


def _singular(word: str) -> str:
    lower = word.lower()
    if lower in _SAME or lower.endswith(_SINGULAR):
        return word
    for end, replacement in _PLURALS:
        if lower.endswith(end) and len(word) > len(end):
            return word[: len(word) - len(end)] + replacement
    return word
