"""What a request brings: which messages it has, and which of them fail alone."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import BaseModel, field_validator

from triggerkit import Change, task
from triggerkit.delivery.http.connection import MAX_ANSWER_BYTES
from triggerkit.errors import InvalidPayload
from triggerkit.tasks.receive.receipt import Receipt
from triggerkit.testing import fake_message
from triggerkit.web.webhook import sender_of

OURS = {"triggerkit-attempt": "1"}


class Row(BaseModel):
    """A row with a validator that fails in its own way."""

    id: int

    @field_validator("id")
    @classmethod
    def known(cls, number: int) -> int:
        """Fail for one of them."""
        return number + 0 // (number - 7)


class Event(BaseModel):
    """A payload of its own that has a field named data."""

    event: str
    data: list[int]


@task
def receive_one(change: Change[Row]) -> None: ...


@task
def receive_batch(batch: list[Change[Row]]) -> None: ...


@task
def receive_event(event: Event) -> None: ...


def received(taken: Any, body: Any, headers: dict[str, str]) -> Receipt:
    return Receipt(taken, sender_of(headers), orjson.dumps(body))


def test_failed_items_that_do_not_fit_into_an_answer_are_left_to_smaller_batches() -> None:
    messages = [fake_message({"id": 7}) for _ in range(1000)]
    for number, message in enumerate(messages):
        message["metadata"]["idempotency_key"] = f"{number}{'x' * 2000}"
    with pytest.raises(InvalidPayload):
        received(receive_batch, {"data": messages}, OURS).runs()
    receipt = received(receive_batch, {"data": messages[:400]}, OURS)
    assert receipt.runs() == []
    assert len(orjson.dumps(receipt.body([]))) < MAX_ANSWER_BYTES


def test_an_answer_with_all_of_a_batchs_failures_is_read_by_its_sender() -> None:
    messages = [fake_message({"id": "no" * 5000}) for _ in range(1000)]
    receipt = received(receive_one, {"data": messages}, OURS)
    assert receipt.runs() == []
    assert len(orjson.dumps(receipt.body([]))) < MAX_ANSWER_BYTES


def test_what_has_no_key_to_be_named_by_is_refused_with_its_batch() -> None:
    bodies = [{"event": "e", "data": [1]}, {"event": "e", "data": "none"}]
    with pytest.raises(InvalidPayload):
        received(receive_event, {"data": bodies}, OURS).runs()


@pytest.mark.parametrize("taken", [receive_one, receive_batch])
def test_a_row_whose_validator_raises_another_error_fails_alone(taken: Any) -> None:
    messages = [fake_message({"id": number}) for number in (6, 7, 8)]
    receipt = received(taken, {"data": messages}, OURS)
    runs = receipt.runs()
    assert sum(run.items or 1 for run in runs) == 2
    answer = receipt.body([])
    assert [f["idempotency_key"] for f in answer["failed"]] == [
        messages[1]["metadata"]["idempotency_key"]
    ]
    assert "a validator of its type raised ZeroDivisionError" in answer["failed"][0]["error"]


def test_of_a_stranger_the_request_is_refused_by_the_place_of_the_row() -> None:
    messages = [fake_message({"id": number}) for number in (6, 7)]
    with pytest.raises(InvalidPayload) as caught:
        received(receive_one, {"data": messages}, {}).runs()
    assert caught.value.problems[0].loc == ("data", 1, "record")


def test_a_payload_with_more_than_data_is_one_run_of_a_plain_task() -> None:
    [run] = received(receive_event, {"event": "paid", "data": [1, 2]}, {}).runs()
    assert orjson.loads(run.payload) == {"event": "paid", "data": [1, 2]}


def test_data_alone_is_a_batch_of_payloads() -> None:
    events = [{"event": name, "data": [1]} for name in ("paid", "sent")]
    runs = received(receive_event, {"data": events}, {}).runs()
    assert [orjson.loads(run.payload) for run in runs] == events
