"""Local endpoints in the dashboard: made and edited by form, with their tunnels on their page."""

from __future__ import annotations

from tests.integration.run_state import RunState
from tests.integration.web.dashboard.forms import fields_of, press
from tests.integration.web.dashboard.test_endpoint_forms import AT, make
from tests.integration.web.dashboard.visitor import Visitor

STORED = "SELECT url, local FROM triggerkit.endpoints"
PATH = "/api/create-embedding-for-post"


def test_a_local_endpoint_is_made_by_its_path_and_stays_local_until_it_is_edited(
    state: RunState, visitor: Visitor
) -> None:
    assert "a local endpoint is given by its path" in make(
        visitor, url="https://example.com/x", local="yes"
    )
    assert state.rows(STORED) == []
    make(visitor, url=PATH, local="yes")
    assert state.rows(STORED) == [(f"http://localhost{PATH}", True)]
    page = visitor.get(f"{AT}/edit")
    assert fields_of(page)["local"] == "yes"
    assert press(visitor, f"{AT}/edit", page, "save", url="/other").status == 303
    assert state.rows(STORED) == [("http://localhost/other", True)]
    remote = {"url": "http://127.0.0.1:3001/x", "local": ""}
    assert press(visitor, f"{AT}/edit", visitor.get(f"{AT}/edit"), "save", **remote).status == 303
    assert state.rows(STORED) == [("http://127.0.0.1:3001/x", False)]
    assert "Tunnel" not in visitor.get(AT).text


def test_its_page_says_how_a_tunnel_is_opened_and_then_whose_is_open(
    state: RunState, visitor: Visitor
) -> None:
    make(visitor, url=PATH, local="yes")
    page = visitor.get(AT).text
    assert "No tunnel to it is open: triggerkit tunnel --ports=3001:local_endpoint" in page
    assert "0 messages wait for it." in page
    assert "local, no tunnel; 0 wait" in visitor.get("/endpoints").text
    state.connection.execute(
        "INSERT INTO triggerkit.tunnel_tokens (name, digest) VALUES ('alice', 'x'), ('<b>', 'y')"
    )
    state.connection.execute(
        "INSERT INTO triggerkit.tunnels (endpoint_id, token, instance, serve, port, is_shared) "
        "SELECT e.id, t.name, t.name, 's', 3001, true FROM triggerkit.endpoints e, "
        "triggerkit.tunnel_tokens t"
    )
    shown = visitor.get(AT)
    assert "alice shared 3001" in shown.text
    assert "<b>" not in shown.html
    assert "No tunnel" not in shown.text
    assert "tunnel of alice, <b>" in visitor.get("/endpoints").text
    # What nobody says any more that it holds is none.
    state.connection.execute("UPDATE triggerkit.tunnels SET seen_at = now() - interval '1 min'")
    assert "No tunnel to it is open" in visitor.get(AT).text
