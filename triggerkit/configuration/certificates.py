"""What clients say of a server's certificate, in words: what is wrong with it, and the remedy."""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Tls(NamedTuple):
    """How a URL asks for TLS: by which option it names the authorities, and what goes without."""

    authorities: str
    plain: str


POSTGRES: Final = Tls("sslrootcert", "sslmode=disable")
REDIS: Final = Tls("ssl_ca_certs", "redis://")

_NAME_FILE: Final = "set {authorities} in the URL to the file of the authority that signed it"

#: What is wrong and its remedy, by what is said; the first that fits.
_PROBLEMS: Final = (
    (
        r"does not match host name|[Hh]ostname mismatch|IP address mismatch",
        "the server's certificate is for another name",
        "write the host in the URL as the certificate does",
    ),
    (
        r"certificate has expired",
        "the server's certificate has expired",
        "give the server a new one",
    ),
    (
        r"root certificate|Error 2 connecting|NO_CERTIFICATE|no certificate or crl",
        "the file of authorities that are trusted cannot be read",
        _NAME_FILE,
    ),
    (
        r"certificate verify failed|self[- ]signed certificate",
        "the server's certificate is not trusted",
        _NAME_FILE,
    ),
    (
        r"does not support SSL|(?i:wrong.version.number|record.layer.failure)",
        "the server speaks no TLS there",
        "turn it on at the server, or ask for none in the URL by {plain}",
    ),
)


def certificate_problem(said: str, tls: Tls) -> tuple[str, str] | None:
    """Return what is wrong with a server's certificate by what a client `said`, and the remedy;
    None where it said something else."""
    for pattern, problem, remedy in _PROBLEMS:
        if re.search(pattern, said):
            return problem, remedy.format(**tls._asdict())
    return None
