"""Routes whose names in the path may have a slash, which clients send as %2F."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.routing import Match, Route
from starlette.types import Scope


class NamedRoute(Route):
    """A route that goes by the path as it was sent, where that has such a slash: servers give the
    path decoded, in which it is none of a name any more."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the route is that of a request, with the names of its path decoded."""
        sent = (scope.get("raw_path") or b"").decode("ascii", "replace")
        if "%2f" not in sent.lower():
            return super().matches(scope)
        # What is above ours may be sent in more than one way, but not with more or fewer slashes.
        above = scope.get("root_path", "")
        is_within = above and scope["path"].startswith(f"{above}/")
        own = sent.split("/")[above.count("/") + 1 if is_within else 1 :]
        found, child = super().matches({**scope, "path": "/" + "/".join(own), "root_path": ""})
        names = child.get("path_params", {})
        return found, {**child, **({"path_params": _decoded(names)} if names else {})}


def _decoded(names: dict[str, str]) -> dict[str, str]:
    return {field: unquote(name) for field, name in names.items()}
