"""Read the addresses of servers strictly, and show them without their secrets.

A character of a password that was not percent-encoded moves the rest of the password into the host,
the port or the path. Such a URL is refused before anything of it is shown or connected to.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from triggerkit.errors import ConfigurationError

#: What a password's special characters are written as.
ENCODE = (
    "percent-encode the special characters of a user name or password: "
    "@ is %40, / is %2F, # is %23, ? is %3F, : is %3A"
)

DATABASE_EXAMPLE = "postgresql://user:password@host:5432/database"

_DATABASE_URL = re.compile(r"postgres(?:ql)?://")

#: A host's name or IPv4 address; underscores are not of the standard, and Compose has them.
_HOST = re.compile(r"\w(?:[\w.-]*[\w.])?")

#: A folder with a socket, or an abstract one.
_SOCKET = re.compile(r"[/@][^@\x00-\x1f\x7f]*")

#: Parameters that other libraries have in their URLs, and libpq does not know.
_FOREIGN = re.compile(
    r"[?&](schema|pgbouncer|connection_limit|pool_timeout|sslaccept|currentSchema|ssl)="
)

#: Parameters that are whole numbers.
_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)

#: What the URLs of servers that are shown begin with.
_SERVERS = ("redis", "rediss", "unix", "amqp", "amqps", "http", "https")

#: Parameters of a database that are shown beside its address.
_SHOWN = ("sslmode", "target_session_attrs")


def read_database_url(url: str, name: str = "the database URL") -> dict[str, Any]:
    """Return the parameters of a connection string of Postgres; `name` is its setting.

    Raises:
        ConfigurationError: it cannot be read; the message repeats nothing of it.
    """
    try:
        url.encode()
        parts: dict[str, Any] = conninfo_to_dict(url)
    except (psycopg.Error, ValueError):
        raise ConfigurationError(f"{name} cannot be read{_database_remedy(url)}") from None
    hosts = _listed(parts, "host", "hostaddr")
    if has_stray_at(url) or not all(map(is_host, hosts)) or "://" in str(parts.get("dbname")):
        raise ConfigurationError(
            f"{name} cannot be read as a database URL: {ENCODE}; it looks like {DATABASE_EXAMPLE}"
        )
    for parameter in _NUMBERS:
        if not re.fullmatch(r" *-?\d{1,9} *", str(parts.get(parameter, 0))):
            raise ConfigurationError(f"{name}: the parameter {parameter} must be a whole number")
    ports = _listed(parts, "port")
    if not all(port.isascii() and (not port or _is_port(port)) for port in ports):
        raise ConfigurationError(
            f"{name} cannot be read as a database URL: the port must be a number of 1 to 65535; "
            f"{ENCODE}; it looks like {DATABASE_EXAMPLE}"
        )
    return parts


def read_server_url(url: str, name: str, schemes: tuple[str, ...], example: str) -> None:
    """Check the form of a URL such as that of Redis.

    Raises:
        ConfigurationError: it cannot be read; the message repeats nothing of it.
    """
    problem = _problem_of(url, schemes)
    if problem is not None:
        raise ConfigurationError(f"{name} cannot be read: {problem}; it looks like {example}")


def shown_database(url: str, *, is_whole: bool = False) -> str:
    """Return a connection string with its hosts and database alone.

    `is_whole` adds what is needed to connect with a password from elsewhere: the user and TLS.
    """
    try:
        parts = read_database_url(url)
    except ConfigurationError:
        return "postgresql://(unreadable)"
    user = str(parts.get("user") or "")
    database = quote(str(parts.get("dbname", "")), safe="")
    hosts, ports = _listed(parts, "host") or _listed(parts, "hostaddr"), _listed(parts, "port")
    query = {name: str(parts[name]) for name in _SHOWN if parts.get(name)} if is_whole else {}
    if any(host.startswith(("/", "@")) for host in hosts):
        query = {"host": ",".join(hosts), **({"port": ",".join(ports)} if ports else {}), **query}
        places = ""
    else:
        ports = ports * len(hosts) if len(ports) == 1 else ports
        places = ",".join(
            bracketed(host) + (f":{ports[i]}" if i < len(ports) and ports[i] else "")
            for i, host in enumerate(hosts or ["localhost"])
        )
    listed = "&".join(f"{name}={quote(value, safe='/,')}" for name, value in query.items())
    # With a colon in it, or without a password beside it, it may be the password itself.
    is_user = ":" not in user and (not places or parts.get("password") is not None)
    who = f"{quote(user, safe='')}@" if is_whole and user and is_user else ""
    address = f"postgresql://{who}{places}/{database}"
    return f"{address}?{listed}" if listed else address


def shown_server(url: str) -> str:
    """Return a URL such as Redis's with its host, port and path alone."""
    if _problem_of(url, _SERVERS) is not None:
        return "(unreadable)"
    parts = urlsplit(url)
    place = bracketed(parts.hostname or "") + ("" if parts.port is None else f":{parts.port}")
    return f"{parts.scheme}://{place}{parts.path}"


def http_problem(url: str) -> str | None:
    """Return what is wrong with the form of an http or https URL, without repeating any of it."""
    problem = _problem_of(url, ("http", "https"), needs_host=True)
    if problem is None and "@" in urlsplit(url).netloc:
        return "it must not have a user name or password"
    return problem


def _problem_of(url: str, schemes: tuple[str, ...], *, needs_host: bool = False) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
        url.encode()
    except ValueError:
        return f"its host or port is none; {ENCODE}"
    if parts.scheme not in schemes or not url.lower().startswith(f"{parts.scheme}://"):
        return f"it must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    if any(not c.isprintable() or c.isspace() for c in url):
        return "it has spaces or control characters"
    if "#" in url or has_stray_at(url) or not is_host(host) or port == 0:
        return ENCODE
    return "it has no host" if needs_host and not host else None


def has_stray_at(url: str) -> bool:
    """Return whether an `@` stands after the first `/` or `?`: most likely a password has these."""
    _, separator, rest = url.partition("://")
    return bool(separator) and re.search(r"[/?].*@", rest, re.DOTALL) is not None


def _database_remedy(url: str) -> str:
    if found := _FOREIGN.search(url):
        return (
            f": it has the parameter {found[1]}, which is another library's and not Postgres's: "
            "leave it out; tables are named with their schema here"
        )
    begin = "" if _DATABASE_URL.match(url) else "it begins with postgresql:// and has no quotes; "
    return f" as a database URL: {begin}{ENCODE}; it looks like {DATABASE_EXAMPLE}"


def _listed(parts: dict[str, Any], *names: str) -> list[str]:
    return [one for name in names if parts.get(name) for one in str(parts[name]).split(",")]


def is_host(host: str) -> bool:
    """Return whether it can be a host: a name, an address, a socket's folder, or the default."""
    if not host or _HOST.fullmatch(host) or _SOCKET.fullmatch(host):
        return True
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def bare_host(given: str) -> str:
    """Return the host to listen on that is given, without brackets.

    Raises:
        ValueError: it is none.
    """
    host = given.strip().removeprefix("[").removesuffix("]")
    if not is_host(host):
        raise ValueError("it is not a host: a name or an address, without a port")
    return host


def is_service_link(port: str) -> bool:
    """Tell whether it is what Kubernetes puts into the environment for a service of that name, such
    as `tcp://10.0.0.1:8000`: no setting of ours."""
    return port.startswith(("tcp://", "udp://", "sctp://"))


def _is_port(port: str) -> bool:
    return port.isdecimal() and 0 < int(port) <= 65535


def bracketed(host: str) -> str:
    """Return a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def host_in_url(host: str) -> str:
    """Return the host by which this machine reaches what listens on `host`."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return str(address) if address.version == 4 else f"[{address}]"
