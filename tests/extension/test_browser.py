"""What a real browser lets a page read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.serving import make_server

from flask_m9m import M9M, rate_limit, require_auth
from flask_m9m.testing import client_as, make_settings
from tests.conftest import CHALLENGES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

PAGE = """<!doctype html><title>page</title><pre id="result">waiting</pre><script>
(async () => {
  const names = ["RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"];
  const ask = async (path, init) => {
    try {
      const answer = await fetch(API + path, init);
      const headers = {};
      for (const name of names) headers[name] = answer.headers.get(name);
      return {status: answer.status, headers, body: await answer.text()};
    } catch (error) { return {status: "blocked"}; }
  };
  const token = {headers: {Authorization: "Bearer " + TOKEN}, credentials: "include"};
  const result = [
    await ask("/p", {credentials: "include"}),
    await ask("/p", token),
    await ask("/limited", token),
    await ask("/limited", token),
    await ask("/nowhere", token),
    await ask("/broken", token),
    await ask("/p", {headers: {"X-Unlisted": "1"}}),
    await ask("/p", {method: "DELETE", headers: token.headers}),
  ];
  document.getElementById("result").textContent = JSON.stringify(result);
})();
</script>"""


def serve(app: Flask) -> tuple[int, threading.Thread, object]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return server.server_port, thread, server


@pytest.fixture
def running() -> Iterator[list[object]]:
    servers: list[object] = []
    yield servers
    for server in servers:
        server.shutdown()  # type: ignore[attr-defined]


def read_in_browser(url: str, profile: Path) -> list[dict[str, object]]:
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=15000",
        "--dump-dom",
        url,
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=90).stdout
    found = re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[:500]
    result: list[dict[str, object]] = json.loads(
        found[1].replace("&amp;", "&").replace("&gt;", ">")
    )
    return result


def test_a_page_of_an_allowed_origin_reads_refusals_with_their_headers_and_others_nothing(
    tmp_path: Path, running: list[object]
) -> None:
    pages, api = Flask("pages"), Flask("api")
    page_port, _, page_server = serve(pages)
    running.append(page_server)
    allowed = f"http://localhost:{page_port}"
    M9M(
        api,
        settings=make_settings(
            {
                "security": {"cors": {"allowed_origins": [allowed], "allow_credentials": True}},
                "performance": {
                    "rate_limit": {"enabled": True, "requests_per_minute": 600, "storage": "memory"}
                },
            }
        ),
    )
    api.add_url_rule("/p", "p", require_auth(lambda: "secret"))
    api.add_url_rule("/limited", "limited", rate_limit("1/hour")(require_auth(lambda: "once")))
    api.add_url_rule("/broken", "broken", lambda: 1 / 0)
    api_port, _, api_server = serve(api)
    running.append(api_server)
    token = client_as(api, "ann").environ_base["HTTP_AUTHORIZATION"].split()[1]
    script = f"const API = 'http://127.0.0.1:{api_port}', TOKEN = '{token}';"
    pages.add_url_rule("/", "index", lambda: PAGE.replace("(async", script + "\n(async", 1))

    answers = read_in_browser(f"{allowed}/", tmp_path / "allowed")
    statuses = [answer["status"] for answer in answers]
    assert statuses == [401, 200, 200, 429, 404, 500, "blocked", "blocked"]
    unauthorized, refused = answers[0]["headers"], answers[3]["headers"]
    assert isinstance(unauthorized, dict)
    assert isinstance(refused, dict)
    assert unauthorized["WWW-Authenticate"] == ", ".join(CHALLENGES)
    assert int(refused["Retry-After"]) >= 1
    assert "limited" in refused["RateLimit"]
    assert "limited" in refused["RateLimit-Policy"]
    assert json.loads(str(answers[3]["body"]))["code"] == "RATE_LIMITED"

    strangers = read_in_browser(f"http://127.0.0.1:{page_port}/", tmp_path / "stranger")
    assert {answer["status"] for answer in strangers} == {"blocked"}
