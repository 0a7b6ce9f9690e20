"""Positions in the write-ahead log."""

from __future__ import annotations


class Lsn(int):
    """A byte position in the write-ahead log, unsigned, 64 bits.

    Prints as Postgres writes it (`16/B374D848`), and is a plain integer otherwise.
    """

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """Read `high/low`, both hexadecimal.

        Raises:
            ValueError: `text` is not an LSN.
        """
        high, slash, low = text.partition("/")
        if not slash:
            raise ValueError(f"not an LSN: {text!r}")
        return cls((int(high, 16) << 32) | int(low, 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({str(self)!r})"
