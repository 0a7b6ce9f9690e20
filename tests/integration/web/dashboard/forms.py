"""Forms as a browser sends them: what stands in their fields, with what is typed over it."""

from __future__ import annotations

from html.parser import HTMLParser

from tests.integration.web.dashboard.visitor import Seen, Visitor


class _Fields(HTMLParser):
    """Gathers what the form of class `make` would send."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._is_in = False
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name, value = given.get("name"), given.get("value") or ""
        if tag == "form":
            self._is_in = given.get("class") == "make"
        elif not self._is_in:
            return
        elif tag == "select":
            self._select = name or ""
            self.fields.setdefault(self._select, "")
        elif tag == "option" and "selected" in given:
            self.fields[self._select] = value
        elif tag == "input" and name is not None:
            is_sent = given.get("type") not in ("checkbox", "radio") or "checked" in given
            if is_sent:
                self.fields[name] = value

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._is_in = False


def fields_of(seen: Seen) -> dict[str, str]:
    """What the form of a page would send as it stands."""
    parser = _Fields()
    parser.feed(seen.html)
    return parser.fields


def press(visitor: Visitor, path: str, page: Seen, button: str, **typed: str) -> Seen:
    """Type into the fields of a page, the dots of whose names are written as two underscores, and
    press a button."""
    over = {name.replace("__", "."): text for name, text in typed.items()}
    return visitor.submit(path, {**fields_of(page), **over, "do": button})
