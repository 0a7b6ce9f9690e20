"""Threads that a process cannot do without."""

from __future__ import annotations

import pytest

from triggerkit.state.threads import LastingThread


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(1)], ids=repr)
def test_work_that_breaks_begins_anew_until_it_returns(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("triggerkit.state.threads.RETRY_S", 0.0)
    calls: list[int] = []

    def work() -> None:
        calls.append(len(calls))
        if len(calls) < 3:
            raise error

    thread = LastingThread(work, "worker of the test")
    thread.start()
    thread.join(10)
    assert calls == [0, 1, 2]
    assert caplog.text.count("the thread worker of the test failed and was restarted") == 2
