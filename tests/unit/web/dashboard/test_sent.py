"""What is kept of forms that were sent, and what those are told who sent one again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from triggerkit.web.dashboard import sent
from triggerkit.web.dashboard.page import Answer, Moved, Shown
from triggerkit.web.dashboard.sent import SentForms


def asked(name: str | None) -> Any:
    """A form as far as it is looked at here."""
    return SimpleNamespace(form_name=name)


async def moved(_: Any) -> Answer:
    return Moved("/")


async def refused(_: Any) -> Answer:
    return Shown("problem.html", "422", status=422)


def test_the_oldest_of_too_many_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent, "MOST_KEPT", 3)

    async def many() -> SentForms:
        forms = SentForms()
        for number in range(10):
            await forms.answered(asked(f"form:{number}"), moved)
        return forms

    assert [*asyncio.run(many())._sent][-3:] == ["form:7", "form:8", "form:9"]


def test_what_is_old_or_refused_or_of_no_page_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def several() -> SentForms:
        forms = SentForms()
        await forms.answered(asked("old"), moved)
        monkeypatch.setattr(sent, "KEPT_S", 0.0)
        await forms.answered(asked("refused"), refused)
        await forms.answered(asked(None), moved)
        return forms

    assert not asyncio.run(several())._sent


@pytest.mark.parametrize("is_given_up", [True, False])
def test_those_who_wait_for_one_that_fails_are_told_and_may_try_again(is_given_up: bool) -> None:
    async def outcomes() -> list[Any]:
        forms, begun, end = SentForms(), asyncio.Event(), asyncio.Event()

        async def failing(_: Any) -> Answer:
            begun.set()
            await end.wait()
            raise LookupError

        first = asyncio.create_task(forms.answered(asked("form"), failing))
        await begun.wait()
        second = asyncio.create_task(forms.answered(asked("form"), failing))
        await asyncio.sleep(0)
        if is_given_up:
            first.cancel()
        else:
            end.set()
        found = await asyncio.gather(first, second, return_exceptions=True)
        return [*map(type, found), await forms.answered(asked("form"), moved)]

    told = [asyncio.CancelledError, TimeoutError] if is_given_up else [LookupError, LookupError]
    assert asyncio.run(outcomes()) == [*told, Moved("/")]


def test_one_that_gives_up_waiting_takes_no_answer_from_the_first() -> None:
    async def answer() -> Answer:
        forms, end = SentForms(), asyncio.Event()

        async def slow(_: Any) -> Answer:
            await end.wait()
            return Moved("/")

        first = asyncio.create_task(forms.answered(asked("form"), slow))
        await asyncio.sleep(0)
        second = asyncio.create_task(forms.answered(asked("form"), slow))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        end.set()
        return await first

    assert asyncio.run(answer()) == Moved("/")
