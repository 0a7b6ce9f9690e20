"""The embeddings of an Ollama server."""

import json
import os
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from triggerkit import RetryAfter


class OllamaAwayError(Exception):
    """Ollama does not answer, or with a 5xx: no text is to blame."""


def embed(texts: list[str]) -> list[list[float]]:
    """Return a vector for each text, in order."""
    body = {"model": os.environ.get("OLLAMA_MODEL", "nomic-embed-text"), "input": texts}
    request = Request(
        os.environ.get("OLLAMA_URL", "http://127.0.0.1:11434") + "/api/embed",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urlopen(request, timeout=120) as answer:
            vectors: list[list[float]] = json.load(answer)["embeddings"]
    except HTTPError as error:
        if error.code == 429:
            raise RetryAfter(float(error.headers.get("retry-after", "1"))) from error
        if error.code >= 500:
            raise OllamaAwayError(f"Ollama answers {error.code}") from error
        raise
    except (URLError, TimeoutError) as error:
        raise OllamaAwayError("Ollama does not answer") from error
    if len(vectors) != len(texts):
        raise OllamaAwayError(f"Ollama answers {len(vectors)} vectors for {len(texts)} texts")
    return vectors
