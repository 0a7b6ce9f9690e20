"""Reading the text files that people write, in the encodings that their editors save."""

from __future__ import annotations

import codecs
from pathlib import Path

from triggerkit.errors import ConfigurationError

#: Byte order marks and the encodings they stand for; the longer of two that begin alike is first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    """Return the text of `path`, which is UTF-8 or what its byte order mark says, with line feeds.

    Raises:
        ConfigurationError: it is in another encoding, or cannot be read; the message has the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from None
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{path.name} is not UTF-8, see line {line}: save it as UTF-8"
        ) from None
    if "\0" in text:
        raise ConfigurationError(
            f"{path.name} has NUL characters, as UTF-16 without its mark: save it as UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")
