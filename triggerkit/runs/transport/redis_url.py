"""Redis's connection string: as other clients write it, and errors that repeat nothing of it."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis
from redis.connection import URL_QUERY_ARGUMENT_PARSERS

from triggerkit.configuration.addresses import read_server_url
from triggerkit.errors import ConfigurationError

#: How other libraries write what certificates are checked for.
_CERTIFICATES = {"CERT_NONE": "none", "CERT_OPTIONAL": "optional", "CERT_REQUIRED": "required"}

EXAMPLE = "redis://:password@host:6379/0, or rediss:// with TLS"


def read_redis_url(url: str) -> str:
    """Return `url` as our client takes it: without options of TLS where there is no TLS.

    Raises:
        ConfigurationError: it cannot be read, or has an option that is not known.
    """
    read_server_url(url, "REDIS_URL", ("redis", "rediss", "unix"), EXAMPLE)
    try:
        parts = urlsplit(url)
        given = options = parse_qsl(parts.query, keep_blank_values=True)
        if parts.scheme == "redis":
            options = [(name, value) for name, value in options if not name.startswith("ssl_")]
        options = [(name, _CERTIFICATES.get(value, value)) for name, value in options]
        read = url if options == given else urlunsplit(parts._replace(query=urlencode(options)))
        with redis.Redis.from_url(read) as client:
            # The options are looked at when there is a connection to be made.
            client.connection_pool.make_connection()
    except (ValueError, TypeError, AttributeError, redis.RedisError):
        # The library's messages repeat parts of the URL, which may be the password's.
        known = [name for name, _ in parse_qsl(url.partition("?")[2]) if _is_option(name)]
        options_too = f", such as {', '.join(known)}" if known else ""
        raise ConfigurationError(
            f"REDIS_URL cannot be read; it looks like {EXAMPLE}; look at its options, "
            f"too{options_too}"
        ) from None
    return read


def _is_option(name: str) -> bool:
    """Return whether it is the name of an option and not, say, the rest of a password."""
    return name.startswith("ssl_") or name in URL_QUERY_ARGUMENT_PARSERS
