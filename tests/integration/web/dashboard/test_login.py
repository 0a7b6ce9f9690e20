"""Who gets into the dashboard, and what a change has to show."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.integration.run_state import RunState, new_run
from tests.integration.serving import serving
from tests.integration.web.api.described import KEY
from tests.integration.web.dashboard.visitor import Visitor, application, dashboard, keyed
from triggerkit.runs.run import RunOptions
from triggerkit.settings import Settings
from triggerkit.web.dashboard.files import FILES, VERSION
from triggerkit.web.dashboard.render import NAVIGATION
from triggerkit.web.dashboard.routes import routes
from triggerkit.web.dashboard.session import Sessions, login_link
from triggerkit.web.throttle import MOST_WRONG


def paths() -> list[tuple[str, bool, bool]]:
    """Each route with its parameters filled in, whether it is changed, and open to everybody."""
    return [
        (re.sub(r"\{\w+\}", "1", route.path), route.post is not None, route.is_open)
        for route in routes()
    ]


def test_the_key_opens_the_dashboard_and_logging_out_closes_it(settings: Settings) -> None:
    with dashboard(settings) as visitor:
        asked = visitor.get("/runs?status=failed", 303)
        assert (
            asked.headers["location"] == f"/dashboard/login?next={quote('/runs?status=failed', '')}"
        )
        form = visitor.follow(asked)
        assert 'name="next" value="/runs?status=failed"' in form.html
        entered = visitor.submit("/login", {"key": KEY, "next": "/runs?status=failed"})
        assert entered.headers["location"] == "/dashboard/runs?status=failed"
        parts = visitor.set_cookie.lower().split("; ")
        assert {"httponly", "samesite=strict", "path=/dashboard"} <= set(parts)
        assert "secure" not in parts
        assert visitor.follow(entered).status == 200
        first = visitor.cookie
        visitor.log_in()
        assert visitor.cookie != first
        assert visitor.follow(visitor.act("/logout")).text.startswith("Log in")
        assert visitor.cookie is None
        visitor.get("/", 303)


def test_a_wrong_key_is_refused_and_after_some_one_waits(settings: Settings) -> None:
    with dashboard(settings) as visitor:
        for wrong in ("", "x" * len(KEY), KEY[:-1], "ключ", f"{KEY} {KEY}")[:MOST_WRONG]:
            assert visitor.submit("/login", {"key": wrong}).status == 403
        late = visitor.submit("/login", {"key": KEY})
        assert late.status == 429
        assert "try again in" in late.text
        assert visitor.cookie is None


def test_a_login_leads_nowhere_else(settings: Settings) -> None:
    with dashboard(settings) as visitor:
        for elsewhere in (
            "https://evil.example/",
            "//evil.example",
            "\\\\evil.example",
            "/\r\nx: y",
        ):
            entered = visitor.submit("/login", {"key": KEY, "next": elsewhere})
            to = urlsplit(entered.headers["location"])
            assert (to.netloc, to.path[:11]) == ("", "/dashboard/")


def test_a_link_logs_in_once(settings: Settings) -> None:
    with dashboard(settings) as visitor, dashboard(settings) as other:
        url = login_link(visitor.origin, SecretStr(KEY))
        link = url.removeprefix(f"{visitor.origin}/dashboard")
        assert visitor.get(link, 303).headers["location"] == "/dashboard/"
        assert "Overview" in visitor.get("/").text
        # Whichever process is asked.
        assert "used already" in other.get(link, 403).text
        forged = login_link(visitor.origin, SecretStr("another key that is long enough"))
        other.get(forged.removeprefix(f"{visitor.origin}/dashboard"), 403)
        other.get(f"/login?once={Sessions(SecretStr(KEY)).begin()}", 403)
        assert other.cookie is None


def test_a_link_is_used_by_a_visit_alone(settings: Settings) -> None:
    with dashboard(settings) as visitor:
        link = urlsplit(login_link(visitor.origin, SecretStr(KEY)))
        path = f"{link.path}?{link.query}"
        # What looks at a link before somebody follows it: checkers, previews, and browsers ahead.
        assert visitor.request("HEAD", path).status == 200
        for ahead in ({"sec_purpose": "prefetch;prerender"}, {"purpose": "prefetch"}):
            assert visitor.request("GET", path, **ahead).status == 503
        assert visitor.cookie is None
        assert visitor.follow(visitor.request("GET", path)).text.startswith("Overview")


def test_what_only_looks_changes_nothing(state: RunState, visitor: Visitor) -> None:
    [handle] = state.accept(new_run())
    for path, *_ in paths():
        for at in (path, path.replace("/1/", f"/{handle.id}/")):
            for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
                visitor.request(method, f"/dashboard{at}", origin=visitor.origin)
    assert state.statuses() == ["queued"]
    assert state.rows("SELECT action FROM triggerkit.audit") == ["login"]


@pytest.mark.parametrize("cookie", ["x", "1.2.3", "9999999999.abc." + "0" * 64, "é.é.é", "..", ""])
def test_a_forged_cookie_is_no_session(settings: Settings, cookie: str) -> None:
    with dashboard(settings) as visitor:
        visitor.cookie = f"{Sessions(SecretStr(KEY)).cookie}={cookie}"
        visitor.get("/", 303)


def test_without_a_secret_key_the_login_says_what_to_set(settings: Settings) -> None:
    with serving(application(settings)) as site:
        visitor = Visitor(site.port)
        assert visitor.follow(visitor.get("/", 303)).status == 503
        assert "TRIGGERKIT_SECRET_KEY" in visitor.get("/login", 503).text
        assert visitor.submit("/login", {"key": ""}).status == 503
        assert visitor.cookie is None


def test_no_page_is_shown_without_a_session(settings: Settings) -> None:
    with dashboard(settings) as visitor:
        for path, _, is_open in [*paths(), ("/nothing", False, False)]:
            if not is_open:
                seen = visitor.get(path, 303)
                assert seen.headers["location"].startswith("/dashboard/login")
                assert seen.html == ""


def test_every_change_is_refused_without_session_token_or_origin(
    state: RunState, visitor: Visitor
) -> None:
    [handle] = state.accept(new_run())
    token = visitor.get("/runs").csrf
    stranger = Visitor(visitor.port)
    for path, changes, is_open in paths():
        if not changes:
            assert visitor.submit(path, {"csrf": token}).status == 405
            continue
        at = path.replace("/1/", f"/{handle.id}/")
        if not is_open:
            assert stranger.submit(at, {"csrf": token}).status == 303
            for wrong in ("", "x", token[:-1], Sessions(SecretStr(KEY)).begin()):
                assert visitor.submit(at, {"csrf": wrong}).status == 403
            assert visitor.submit(at).status == 403
        form = {"csrf": token, "key": KEY}
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": f"http://127.0.0.1:{visitor.port + 1}"},
            {"origin": "null"},
            {"origin": None},
            {"origin": None, "sec_fetch_site": "same-site"},
            {"sec_fetch_site": "cross-site"},
        ):
            assert visitor.submit(at, form, **headers).status == 403, (at, headers)
    assert state.statuses() == ["queued"]
    assert state.rows("SELECT action FROM triggerkit.audit") == ["login"]
    # What a browser says of our own page, which sends no referrer.
    at = f"/runs/{handle.id}/cancel"
    by_browser = {"origin": "null", "sec_fetch_site": "same-origin"}
    assert visitor.submit(at, {"csrf": token}, **by_browser).status == 303
    assert state.statuses() == ["canceled"]


def test_every_answer_tells_the_browser_to_trust_nothing_else(visitor: Visitor) -> None:
    for path in ("/", "/login", "/runs", "/consumers", "/why", "/nothing", "/runs/run_x"):
        headers = visitor.request("GET", f"/dashboard{path}").headers
        policy = headers["content-security-policy"]
        for part in ("default-src 'self'", "frame-ancestors 'none'", "object-src 'none'"):
            assert part in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
    for file in FILES:
        seen = Visitor(visitor.port).get(f"/static/{VERSION}/{file.name}")
        assert seen.headers["content-type"].startswith(file.kind)
        assert "immutable" in seen.headers["cache-control"]
    own = rf'<script (?:defer|type="module") src="/dashboard/static/{VERSION}/[\w./]+"></script>'
    for path in ("/", "/runs", "/consumers", "/why"):
        page = visitor.get(path).html
        assert page.count("<script") == len(re.findall(own, page)) >= 1
        assert not re.search(r"<style|\sstyle=|\son\w+=|https?://(?!127)", page)


def test_a_host_that_is_not_ours_is_refused(settings: Settings) -> None:
    ours = ("127.0.0.1", "localhost:8000", "[::1]:8000", "10.0.0.7", "Tasks.example.com")
    with dashboard(settings, TRIGGERKIT_PUBLIC_URL="https://tasks.example.com") as visitor:
        visitor.log_in()
        for host in ours:
            assert visitor.get("/runs", host=host).status == 200
        for host in (
            "evil.example",
            "tasks.example.com.evil.example",
            "127.0.0.1.nip.io",
            "[x",
            ":",
        ):
            refused = visitor.get("/runs", 421, host=host)
            assert "csrf" not in refused.html
        # The proxy before it has TLS.
        entered = visitor.submit(
            "/login", {"key": KEY}, host="tasks.example.com", origin="https://tasks.example.com"
        )
        assert entered.status == 303
        assert "secure" in visitor.set_cookie.lower().split("; ")


def test_under_a_prefix_all_links_redirects_and_cookies_have_it(state: RunState) -> None:
    [handle] = state.accept(new_run(options=RunOptions(tags=("a b",))))
    inner = application(keyed(state.settings))

    class Under:
        """Mounted in another app, which starts it with itself."""

        def __init__(self, app: ASGIApp) -> None:
            self._mounted = Starlette(routes=[Mount("/a b", app=app)])

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            app = inner if scope["type"] == "lifespan" else self._mounted
            await app(scope, receive, send)

    base = "/a%20b/dashboard"
    with serving(Under(inner)) as site:
        visitor = Visitor(site.port, base)
        assert visitor.request("GET", "/a%20b/dashboard").headers["location"] == f"{base}/"
        asked = visitor.get(f"/runs/{handle.id}", 303)
        assert asked.headers["location"].startswith(f"{base}/login?next=")
        visitor.log_in()
        assert f"path={base}" in visitor.set_cookie.lower()
        for path in (*(f"/{page}" for page, _ in NAVIGATION), f"/runs/{handle.id}", "/why"):
            page = visitor.get(path)
            links = [to for to in page.links if not to.startswith("#")]
            links += re.findall(r'(?:src|data-live)="([^"]*)"', page.html)
            assert links
            assert not [to for to in links if not to.startswith(f"{base}/")]
            assert page.html.count('aria-current="page"') == (path != "/why")
        [script, *_] = re.findall(r'src="([^"]*)"', visitor.get("/").html)
        assert visitor.request("GET", script).status == 200
        assert visitor.act(f"/runs/{handle.id}/cancel").headers["location"] == (
            f"{base}/runs/{handle.id}"
        )
