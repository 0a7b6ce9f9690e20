"""Turns texts into vectors with the OpenAI embeddings API, or any server that speaks it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx2
import openai
from pgvector import Vector

from app.embedding_answer import read_vectors
from app.errors import EmbeddingError, EmbeddingsAwayError, NoVectorError
from app.proxies import is_loopback, proxy_variable
from app.rate_limits import asked_wait_in_text_s, asked_wait_s
from app.settings import Settings
from app.text_limit import Bound, Cut, cut, may_be_long
from triggerkit.configuration.addresses import shown_server
from triggerkit.errors import CannotConnect, ConfigurationError

#: The API's own limit of inputs in one request.
MAX_INPUTS = 2048

#: The API also limits a request's tokens, all inputs together, to 300,000. One that is refused for
#: its size all the same is halved.
MAX_REQUEST_BYTES = 600_000

#: A text as short as this was not refused for its length.
MIN_CUT_CHARS = 256

#: The answers by which the API refuses the texts themselves; asked again, it would do so again.
REFUSALS = frozenset({400, 413, 422})

#: The answers that may say after how long to ask again.
WAITS = frozenset({408, 409, 429, *range(500, 600)})

#: The answer of a limit that is reached.
RATE_LIMITED = 429

#: Parameters that come from the settings: when one of them is wrong, no text is to blame.
SETTINGS_PARAMS = frozenset({"model", "dimensions", "encoding_format"})

#: Models that can be asked for fewer dimensions than they have.
RESIZABLE_MODELS = "text-embedding-3"

#: Seconds for one request, its whole answer included: the client's own limits begin anew with each
#: byte.
TIMEOUT_S = 60.0

#: Where the API is when the settings do not say. Said here, since the client takes an empty
#: OPENAI_BASE_URL for an address.
DEFAULT_URL = "https://api.openai.com/v1"


class Input(NamedTuple):
    """A text to embed, under the name its vector is asked for."""

    name: str
    text: str


@dataclass(slots=True)
class Embedded:
    """What the API answered, by the texts' names.

    `refused` texts cannot be embedded; `unanswered` ones got no vector, and may get one when they
    are asked for again. After `interrupted` the rest was not asked for: the whole is to be tried
    again, but what is here need not be paid for twice. `cut` says of texts that are too long what
    they were cut by.
    """

    vectors: dict[str, Vector] = field(default_factory=dict)
    refused: dict[str, Exception] = field(default_factory=dict)
    unanswered: dict[str, Exception] = field(default_factory=dict)
    interrupted: EmbeddingsAwayError | None = None
    inputs: int = 0
    cut: dict[str, Bound] = field(default_factory=dict)


class Embedder:
    """An open client of the embeddings API. Retries are the run's own, so the client has none."""

    def __init__(self, settings: Settings) -> None:
        self._model = settings.embedding_model
        self._dimensions = settings.embedding_dimensions
        #: Of all runs of this process together.
        self._requests = asyncio.Semaphore(settings.embedding_requests)
        self._url = settings.openai_base_url or DEFAULT_URL
        self._place = shown_server(self._url)
        # What is on this machine is never asked through a proxy.
        direct = openai.DefaultAsyncHttpxClient(trust_env=False) if is_loopback(self._url) else None
        try:
            self._client = openai.AsyncOpenAI(
                api_key=settings.openai_api_key.get_secret_value(),
                base_url=self._url,
                max_retries=0,
                timeout=TIMEOUT_S,
                http_client=direct,
            )
        except ImportError as error:
            raise self._unusable(f": {error}") from error
        except (ValueError, httpx2.InvalidURL):
            # The library repeats the URL, which may hold a password.
            raise self._unusable("; its base URL or its proxy cannot be used") from None

    async def close(self) -> None:
        await self._client.close()

    async def embed(self, texts: Mapping[str, str]) -> Embedded:
        """Embed named texts in as few requests as the API allows, several of them at a time.

        Never raises the API's errors.
        """
        embedded = Embedded()
        inputs = await self._cut(texts, embedded)
        await asyncio.gather(
            *(self._embed_in_turn(request, embedded) for request in split_into_requests(inputs))
        )
        return embedded

    async def embed_query(self, text: str) -> Vector:
        """Embed one short text.

        Raises:
            CannotConnect: the API cannot be reached.
            EmbeddingError: it refused, or its answer is wrong.
        """
        try:
            [vector] = await self._request([text])
        except openai.APIConnectionError as error:
            raise CannotConnect(self._connection_error(error)) from error
        except openai.OpenAIError as error:
            raise EmbeddingError(f"the embeddings API refused: {error}") from error
        if isinstance(vector, EmbeddingError):
            raise vector
        return vector

    async def _cut(self, texts: Mapping[str, str], embedded: Embedded) -> list[Input]:
        """The texts as they are sent; long ones are cut in a thread, where they hold up no run."""
        long = [name for name, text in texts.items() if may_be_long(text)]
        cuts: dict[str, Cut] = {}
        if long:
            cuts = await asyncio.to_thread(
                lambda: {name: cut(texts[name], self._model) for name in long}
            )
            embedded.cut = {name: made.by for name, made in cuts.items() if made.by is not None}
        return [
            Input(name, cuts[name].text if name in cuts else text) for name, text in texts.items()
        ]

    async def _embed_in_turn(self, inputs: list[Input], embedded: Embedded) -> None:
        async with self._requests:
            if embedded.interrupted is not None:
                return
            try:
                await self._embed(inputs, embedded)
            except (openai.OpenAIError, EmbeddingError) as error:
                known, new = embedded.interrupted, self._away(error)
                if known is None or new.seconds > known.seconds:
                    embedded.interrupted = new

    async def _embed(self, inputs: list[Input], embedded: Embedded) -> None:
        try:
            vectors = await self._request([text for _, text in inputs])
        except openai.APIStatusError as error:
            if error.status_code not in REFUSALS or _blames_settings(error):
                raise
            await self._isolate(inputs, error, embedded)
        else:
            embedded.inputs += len(inputs)
            for (name, _), vector in zip(inputs, vectors, strict=True):
                if isinstance(vector, NoVectorError):
                    embedded.unanswered[name] = vector
                elif isinstance(vector, EmbeddingError):
                    embedded.refused[name] = vector
                else:
                    embedded.vectors[name] = vector

    async def _isolate(
        self, inputs: list[Input], refusal: openai.APIStatusError, embedded: Embedded
    ) -> None:
        """Halve refused inputs until the bad ones are alone, and those that are too long."""
        name, text = inputs[0]
        middle = len(inputs) // 2
        if len(inputs) > 1:
            await self._embed(inputs[:middle], embedded)
            await self._embed(inputs[middle:], embedded)
        elif _is_too_long(refusal) and len(text) > MIN_CUT_CHARS:
            embedded.cut[name] = "refusal"
            await self._embed([Input(name, text[: len(text) // 2])], embedded)
        else:
            embedded.refused[name] = refusal

    async def _request(self, texts: list[str]) -> list[Vector | EmbeddingError]:
        # Posted as it is, answered in base64 and parsed here: `client.embeddings` takes longer to
        # look through the texts and the numbers, one by one, than all else here together.
        body: dict[str, object] = {
            "model": self._model,
            "input": texts,
            "encoding_format": "base64",
        }
        if self._model.startswith(RESIZABLE_MODELS):
            body["dimensions"] = self._dimensions
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._client.post("/embeddings", cast_to=httpx2.Response, body=body)
        except TimeoutError:
            late = TimeoutError(f"no whole answer within {TIMEOUT_S:g} s")
            raise openai.APITimeoutError(httpx2.Request("POST", self._url)) from late
        return read_vectors(answer.content, len(texts), self._dimensions)

    def _away(self, error: Exception) -> EmbeddingsAwayError:
        """Return what all runs wait for: `error` depends on no text."""
        text = f"the embeddings API at {self._place}: {error}"
        wait_s: float | None = None
        if isinstance(error, openai.APIConnectionError):
            text = self._connection_error(error)
        if isinstance(error, openai.APIStatusError) and error.status_code in WAITS:
            limited = error.status_code == RATE_LIMITED
            wait_s = asked_wait_s(error.response.headers, limited=limited)
            if wait_s is None and limited:
                wait_s = asked_wait_in_text_s(error.message)
        if wait_s is not None:
            text = f"the embeddings API asks to wait {wait_s:g} s: {error}"
        away = EmbeddingsAwayError(wait_s or 0.0, text)
        away.__cause__ = error
        return away

    def _unusable(self, why: str) -> ConfigurationError:
        variable = proxy_variable(self._url)
        remedy = "" if variable is None else f"; correct {variable}, or unset it"
        return ConfigurationError(f"no client of the embeddings API can be made{why}{remedy}")

    def _connection_error(self, error: openai.APIConnectionError) -> str:
        reason = str(error.__cause__ or "") or type(error.__cause__ or error).__name__
        text = f"the embeddings API does not answer at {self._place} ({reason})"
        variable = proxy_variable(self._url)
        return text if variable is None else f"{text}; it is asked through the proxy of {variable}"


def split_into_requests(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    """Group inputs so that no request is too large."""
    request: list[Input] = []
    size = 0
    for one in inputs:
        own = len(one.text) if one.text.isascii() else len(one.text.encode())
        if request and (len(request) == MAX_INPUTS or size + own > MAX_REQUEST_BYTES):
            yield request
            request, size = [], 0
        request.append(one)
        size += own
    if request:
        yield request


def _blames_settings(refusal: openai.APIStatusError) -> bool:
    # What a server says here is not checked by the client: it may be a list, or anything.
    given: object = refusal.param
    params = given if isinstance(given, list) else [given]
    return any(isinstance(param, str) and param in SETTINGS_PARAMS for param in params)


def _is_too_long(refusal: openai.APIStatusError) -> bool:
    if refusal.status_code == 413 or refusal.code == "context_length_exceeded":
        return True
    message = refusal.message.lower()
    return "maximum context length" in message or "maximum input length" in message
