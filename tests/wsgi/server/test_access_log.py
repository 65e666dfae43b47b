"""`flask m9m serve --access-log`."""

from __future__ import annotations

import json

from .conftest import Server


def test_each_request_is_a_line_without_its_query(server: Server) -> None:
    server.configure(
        server={"trusted_proxies": ["127.0.0.1"], "workers": 1},
    )
    server.start("flask", "m9m", "serve", "--access-log")
    server.get("/scheme?token=a-secret", {"X-Forwarded-For": "203.0.113.7", "X-Request-Id": "me"})
    server.get("/a%0A127.0.0.1%20-%20%1B[31m%22", {"X-Forwarded-For": "203.0.113.8"})
    server.wait_until_said("203.0.113.8")
    said = server.said()
    assert "a-secret" not in said
    first, second = (line for line in said.splitlines() if line.startswith("203.0.113."))
    assert first.startswith('203.0.113.7 - "GET /scheme HTTP/1.1" 200 ')
    assert first.endswith(" me")
    assert second.startswith('203.0.113.8 - "GET /a\\n127.0.0.1 - \\x1b[31m\\" HTTP/1.1" 404 ')


def test_without_it_no_request_is_a_line(server: Server) -> None:
    server.configure()
    server.start()
    assert json.loads(server.get("/scheme")[1])
    server.stop()
    assert "/scheme" not in server.said()
