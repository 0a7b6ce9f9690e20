"""Logging in, by the secret key or a link of `triggerkit dev`, and out."""

from __future__ import annotations

import re

from triggerkit.state.audit import note
from triggerkit.web.dashboard.guard import is_ahead
from triggerkit.web.dashboard.page import ACTOR, Answer, Asked, Moved, Shown
from triggerkit.web.dashboard.session import LINK_S, LOGIN
from triggerkit.web.throttle import Throttle

#: One use of a link at a time, so that two at once are not both the first.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"

_USED = """
SELECT EXISTS (SELECT FROM triggerkit.audit
    WHERE action = 'login by link' AND subject = %s AND at > now() - make_interval(secs => %s))
"""

_NO_KEY = (
    "The dashboard opens with TRIGGERKIT_SECRET_KEY, which is not set: set it to a secret of 24 "
    "characters or more and start serve again."
)


class Login:
    """The pages of those who are not logged in yet."""

    def __init__(self) -> None:
        self._throttle = Throttle()

    async def show(self, asked: Asked) -> Answer:
        """Ask for the key; a link logs in at once."""
        if asked.sessions is None:
            return _form(asked, _NO_KEY, 503)
        token = asked.query.get("once")
        if token is None:
            if asked.session is not None:
                return Moved(asked.base + _next(asked.query.get("next")))
            return _form(asked)
        if asked.request.method == "HEAD":
            return _form(asked)
        if is_ahead(asked.request):
            return _form(asked, "Follow the link to log in.", 503)
        link = asked.sessions.read_link(token)
        if link is None or not await _use_once(asked, link):
            text = "This link was used already or is too old: log in with the secret key."
            return _form(asked, text, 403)
        return Moved(f"{asked.base}/", asked.sessions.begin())

    async def enter(self, asked: Asked) -> Answer:
        """Begin a session with the right key."""
        if asked.sessions is None:
            return _form(asked, _NO_KEY, 503)
        client = asked.request.client
        address = "" if client is None else client.host
        if (wait_s := self._throttle.wait_s(address)) > 0:
            return _form(asked, f"Too many wrong keys: try again in {wait_s} s.", 429)
        cookie = asked.sessions.enter(asked.form.get("key", "").strip())
        if cookie is None:
            self._throttle.note_wrong(address)
            return _form(asked, "This is not the secret key.", 403)
        session = asked.sessions.read(cookie)
        detail = {} if session is None or session.may_change else {"may": "look"}
        async with asked.call.state() as state:
            await note(state, ACTOR, "login", "dashboard", detail or None)
        return Moved(asked.base + _next(asked.form.get("next")), cookie)


async def leave(asked: Asked) -> Answer:
    """End the session in this browser."""
    return Moved(asked.base + LOGIN, "")


async def _use_once(asked: Asked, link: str) -> bool:
    async with asked.call.state() as state, state.transaction():
        await state.execute(_LOCK, [link])
        cursor = await state.execute(_USED, [link, LINK_S])
        row = await cursor.fetchone()
        if row is None or row[0]:
            return False
        await note(state, ACTOR, "login by link", link)
        return True


def _form(asked: Asked, problem: str | None = None, status: int = 200) -> Shown:
    following = _next(asked.form.get("next") or asked.query.get("next"))
    values = {"problem": problem, "next": following, "has_key": asked.sessions is not None}
    return Shown("login.html", "Log in", values, status, is_live=False)


def _next(path: str | None) -> str:
    """Return where to go then: only what is below the dashboard."""
    if path is None or not (path.startswith("/") and path.isprintable() and path.isascii()):
        return "/"
    # Browsers go up by dots, also by those that are written as codes, and take \ for a /.
    steps = re.split(r"[/\\]|%2f|%5c", path.partition("?")[0].lower().replace("%2e", "."))
    return "/" if {".", ".."} & set(steps) else path
