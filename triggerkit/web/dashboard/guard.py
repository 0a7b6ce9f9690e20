"""What a request to the dashboard has to show: a host that is ours, an origin, and not too many
wrong keys before it."""

from __future__ import annotations

import time
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

from triggerkit.settings import Settings

#: Wrong keys from one address, and the seconds in which it may give as many.
MOST_WRONG = 5
WRONG_S = 60.0

#: Addresses that are remembered; the oldest is forgotten then.
MOST_ADDRESSES = 1000

#: What every answer of the dashboard says to the browser.
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; frame-ancestors 'none'; object-src 'none'; base-uri 'none'; "
        "form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def is_own_host(request: Request, settings: Settings) -> bool:
    """Return whether the Host is one by which we are known: any address, localhost, and the hosts
    of the settings. Another name may be a stranger's that was bound to our address."""
    host = _name(request.headers.get("host", ""))
    if host in ("localhost", _name(settings.triggerkit_host), _host_of(settings.public_url)):
        return host != ""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_own_origin(request: Request, settings: Settings) -> bool:
    """Return whether a change was asked for by one of our own pages.

    As our pages send no referrer, browsers name no origin either; then they say at least that it is
    the same one, where the connection is secure or stays on the machine.
    """
    site = request.headers.get("sec-fetch-site")
    if site not in (None, "same-origin"):
        return False
    origin = request.headers.get("origin", "null")
    if origin == "null":
        return site == "same-origin"
    given = urlsplit(origin)
    own = (request.headers.get("host", "").lower(), urlsplit(settings.public_url).netloc.lower())
    return given.scheme in ("http", "https") and given.netloc.lower() in own


def is_ahead(request: Request) -> bool:
    """Return whether a browser asks ahead, for a page that somebody may want next."""
    purposes = [request.headers.get(name, "") for name in ("sec-purpose", "purpose", "x-moz")]
    return any("prefetch" in purpose.lower() for purpose in purposes)


def is_secure(request: Request, settings: Settings) -> bool:
    """Return whether the browser came by TLS, to us or to the proxy before us."""
    if request.url.scheme == "https":
        return True
    public = urlsplit(settings.public_url)
    return public.scheme == "https" and request.headers.get("host") == public.netloc


def _name(host: str) -> str:
    """Return a host without its port and brackets."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name if name.count(":") > 1 else name.partition(":")[0]


def _host_of(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


class Throttle:
    """Counts wrong keys by the address that they come from."""

    def __init__(self) -> None:
        self._wrong: dict[str, list[float]] = {}

    def wait_s(self, address: str) -> int:
        """Return the seconds until the address may try again; 0 is at once."""
        now = time.monotonic()
        recent = [at for at in self._wrong.get(address, ()) if now - at < WRONG_S]
        return 0 if len(recent) < MOST_WRONG else int(WRONG_S - (now - recent[0])) + 1

    def note_wrong(self, address: str) -> None:
        """Count a wrong key."""
        wrong = self._wrong.pop(address, [])
        self._wrong[address] = [*wrong, time.monotonic()][-MOST_WRONG:]
        if len(self._wrong) > MOST_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]
