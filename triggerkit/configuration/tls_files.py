"""Have libpq find the files of TLS that there are, and go on without those that there are not."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psycopg import pq

#: Where OpenSSL is told to look for authorities.
_PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")

#: Where libpq looks for a client's certificate, in its home, and where there is none.
_CERTIFICATE = ".postgresql/postgresql.crt"
_NOWHERE = "/nonexistent/postgresql.crt"


def tls_files(parts: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters that a connection by `parts` needs besides."""
    if parts.get("sslrootcert", os.environ.get("PGSSLROOTCERT")) == "system":
        _find_system_roots()
    if "sslcert" in parts or "PGSSLCERT" in os.environ or _may_look():
        return {}
    return {"sslcert": _NOWHERE}


def _find_system_roots() -> None:
    """Have `sslrootcert=system` mean what it says.

    The libpq of `psycopg[binary]` has an OpenSSL of its own, which looks in a folder of those who
    built it, where there is nothing. Python's knows the system's.
    """
    if pq.__impl__ != "binary" or any(place in os.environ for place in _PLACES):
        return
    paths = ssl.get_default_verify_paths()
    for place, found in zip(_PLACES, (paths.cafile, paths.capath), strict=True):
        if found:
            os.environ[place] = found


def _may_look() -> bool:
    """Return whether this process may look into its home, as libpq does for a certificate. A home
    that is another user's, as in containers, or is hidden by systemd, would end each connection."""
    try:
        os.stat(Path(os.path.expanduser("~"), _CERTIFICATE))
    except PermissionError:
        return False
    except OSError:
        pass
    return True
