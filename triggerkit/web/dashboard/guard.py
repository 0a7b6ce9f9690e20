"""What a request to the dashboard has to show: a host that is ours, and an origin."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

from triggerkit.settings import Settings

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


#: An address in brackets, an address of the sixth version, or a name; and a port.
_HOST = re.compile(r"(?:\[([0-9a-f:.%\w]+)\]|([^\s:/?#@\[\]]*))(?::\d*)?|([0-9a-f:.]+)")


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
    """Return a host without its port and brackets; nothing of what is no host and port."""
    found = _HOST.fullmatch(host.strip().lower())
    return "" if found is None else found[1] or found[2] or found[3] or ""


def _host_of(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()
