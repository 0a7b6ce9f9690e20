"""The page that says why a row, a run or a position has no effect."""

from __future__ import annotations

from triggerkit.errors import CannotConnect, ConfigurationError, TriggerkitError
from triggerkit.web.dashboard.page import Answer, Asked, Route, Shown
from triggerkit.web.dashboard.search import words_of
from triggerkit.why.answer import DONE, UNDER_WAY
from triggerkit.why.ask import Question, ask


async def show_why(asked: Asked) -> Answer:
    """Answer why a row, a run or a position has no effect; ask first where nothing is given."""
    words = words_of(asked.query.get("q", ""))
    if not words:
        return Shown("why.html", "Why?", {"answer": None}, is_live=False)
    call = asked.call
    try:
        answer = await ask(call.client.pool, call.settings, call.tasks, Question.of(words))
    except CannotConnect:
        raise
    except TriggerkitError as error:
        status = 422 if isinstance(error, ConfigurationError) else 404
        return Shown("why.html", "Why?", {"answer": None, "problem": str(error)}, status)
    mark = "good" if answer.code in DONE else "going" if answer.code in UNDER_WAY else "bad"
    return Shown("why.html", "Why?", {"answer": answer, "mark": mark})


ROUTES = (Route("/why", show_why),)
