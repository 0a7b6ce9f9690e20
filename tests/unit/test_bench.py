"""What the benchmarks count with: the fake embeddings API, and the entries of Dramatiq's actor."""

from __future__ import annotations

import math
from array import array
from base64 import b64decode
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench.guard import TOLERATED, TRIES, best_of, worse
from bench.readme import PAGE, written
from bench.rivals.embeddings_server import DIMENSIONS, Api
from bench.rivals.plain_dramatiq import entries


@pytest.fixture(scope="module")
def api() -> Api:
    return Api(latency_s=0.0)


def ask(api: Api, **request: Any) -> list[Any]:
    _, pieces = api.answer(b"/v1/embeddings", orjson.dumps(request))
    data = orjson.loads(b"".join(pieces))["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return [item["embedding"] for item in data]


def test_the_fake_api_answers_the_same_vectors_in_base64_and_in_floats(api: Api) -> None:
    encoded = ask(api, input=["a", "b", "c"], encoding_format="base64")
    floats = ask(api, input=["a", "b", "c"])
    assert [len(vector) for vector in floats] == [DIMENSIONS] * 3
    for text, vector in zip(encoded, floats, strict=True):
        assert array("f", b64decode(text)).tolist() == pytest.approx(vector, abs=1e-7)


def test_the_fake_api_counts_every_input_and_each_text_once(api: Api) -> None:
    api.answer(b"/reset", b"")
    ask(api, input=["a", "b"], encoding_format="base64")
    ask(api, input="a")
    _, pieces = api.answer(b"/counts", b"")
    counts = orjson.loads(b"".join(pieces))
    assert (counts["requests"], counts["inputs"], counts["distinct"]) == (2, 3, 2)


def test_entries_are_summed_over_processes_from_the_first_to_the_last(tmp_path: Path) -> None:
    assert entries(tmp_path) == (0, 0, 0)
    (tmp_path / "1").write_text("3 200 500")
    (tmp_path / "2").write_text("4 100 400")
    # Another process has only begun to write.
    (tmp_path / "3").write_text("")
    assert entries(tmp_path) == (7, 100, 500)


def test_the_figures_of_the_readme_are_those_that_were_measured() -> None:
    page = PAGE.read_text()
    assert written(page) == page, "run `python -m bench.readme`, which writes them"
    assert "{" not in page.partition("## Performance")[2].partition("##")[0]


STORED = {"rate": 1.0, "latency": 10.0}


def test_a_ratio_is_worse_when_it_is_below_what_is_tolerated_of_the_stored_one() -> None:
    assert worse(STORED, {"rate": TOLERATED, "latency": 20.0, "new": 0.1}) == []
    assert worse(STORED, {"rate": TOLERATED - 0.01, "latency": 5.9}) == ["rate", "latency"]


def test_the_guard_measures_again_only_what_is_worse_and_takes_the_best() -> None:
    rounds = [{"rate": 0.2, "latency": 9.0}, {"rate": 0.9, "latency": 1.0}, {"rate": 0.0}]
    asked = iter(rounds)
    assert best_of(lambda: next(asked), STORED, math.inf) == {"rate": 0.9, "latency": 9.0}
    assert list(asked) == rounds[2:]


@pytest.mark.parametrize(("until", "tries"), [(math.inf, TRIES), (0.0, 1)])
def test_what_stays_worse_is_measured_a_few_times_and_not_for_long(
    until: float, tries: int
) -> None:
    measured: list[float] = []

    def measure() -> dict[str, float]:
        measured.append(0.1)
        return {"rate": 0.1}

    best = best_of(measure, STORED, until)
    assert (worse(STORED, best), len(measured)) == (["rate"], tries)
