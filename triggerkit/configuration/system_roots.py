"""Let libpq find the authorities that the system trusts."""

from __future__ import annotations

import os
import ssl

from psycopg import pq

#: Where OpenSSL is told to look for them.
_PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def find_system_roots() -> None:
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
