"""Redis's connection string: as other clients write it, and errors that repeat nothing of it."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis

from triggerkit.errors import ConfigurationError

#: How other libraries write what certificates are checked for.
_CERTIFICATES = {"CERT_NONE": "none", "CERT_OPTIONAL": "optional", "CERT_REQUIRED": "required"}


def read_redis_url(url: str) -> str:
    """Return `url` as our client takes it: without options of TLS where there is no TLS.

    Raises:
        ConfigurationError: it cannot be read, or has an option that is not known.
    """
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
        names = "".join(f" {name}" for name, _ in parse_qsl(url.partition("?")[2]))
        raise ConfigurationError(
            "REDIS_URL cannot be read; it looks like redis://:password@host:6379/0, or rediss:// "
            "with TLS" + (f"; look at its options, too:{names}" if names else "")
        ) from None
    return read
