"""Metrics: what is counted, who may read it, and what no client can choose."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest
from flask import Flask, abort
from prometheus_client.parser import text_string_to_metric_families as families

from flask_m9m import M9M, rate_limit, require_auth
from flask_m9m.errors import SettingsError
from flask_m9m.testing import Clock, client_as, make_settings

ON: dict[str, Any] = {"metrics": {"enabled": True}}
SCOPE = ["m9m:metrics"]
LABELS = ("outcome", "code", "status", "scheme", "result", "limit", "store", "le")


def counted(app: Flask) -> dict[tuple[str, ...], float]:
    """Return every sample of an app, by its name and its labels' values."""
    answer = client_as(app, "prometheus", SCOPE).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.mimetype == "text/plain"
    return samples(answer.text)


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (
            sample.name,
            *(sample.labels[name] for name in LABELS if name in sample.labels),
        ): sample.value
        for family in families(text)
        for sample in family.samples
    }


def make(settings: Mapping[str, Any] | None = None) -> Flask:
    app = Flask("app")
    M9M(app, settings=make_settings({**ON, **(settings or {})}), clock=Clock())

    @app.get("/open")
    def open_() -> str:
        return "open"

    @app.get("/closed")
    @require_auth(scopes="items:read")
    def closed() -> str:
        return "closed"

    @app.get("/broken")
    def broken() -> str:
        raise ZeroDivisionError

    @app.get("/limited")
    @rate_limit("1/hour", name="odd.name:1/x")
    def limited() -> str:
        return "limited"

    @app.get("/shadow")
    @rate_limit("1/hour", name="trial", shadow=True)
    def shadow() -> str:
        return "shadow"

    return app


def test_requests_are_counted_by_what_became_of_them() -> None:
    app = make()
    client = app.test_client()
    for path in ("/open", "/open", "/nowhere", "/closed", "/broken", "/limited", "/limited"):
        client.get(path)
    client_as(app, "ann").get("/closed")
    client_as(app, "ann", ["items:read"]).get("/closed")
    found = counted(app)
    assert {key[1:]: value for key, value in found.items() if key[0] == "m9m_requests_total"} == {
        ("answered", "", "2xx"): 4,
        ("answered", "", "4xx"): 1,
        ("refused", "AUTH_REQUIRED", "4xx"): 1,
        ("refused", "ACCESS_DENIED", "4xx"): 1,
        ("refused", "RATE_LIMITED", "4xx"): 1,
        ("failed", "", "5xx"): 1,
    }
    assert found["m9m_rate_limited_total", "odd.name:1/x"] == 1
    assert found["m9m_authentications_total", "bearer", "succeeded"] == 2
    assert found["m9m_guard_seconds_count",] == 9
    assert 0 < found["m9m_guard_seconds_sum",] < 60
    assert found["m9m_guard_seconds_bucket", "+Inf"] == 9
    assert found["m9m_lockouts_total",] == 0


def test_bad_credentials_lockouts_and_trials_are_counted() -> None:
    app = make({"security": {"lockout": {"attempts": 2}}})
    client = app.test_client()
    for _ in range(4):
        client.get("/closed", headers={"Authorization": "Bearer a.b.c"})
    for _ in range(3):
        client.get("/shadow")
    found = counted(app)
    assert found["m9m_authentications_total", "bearer", "INVALID_TOKEN"] == 2
    assert found["m9m_authentications_total", "bearer", "TOO_MANY_ATTEMPTS"] == 2
    assert found["m9m_lockouts_total",] == 2
    assert found["m9m_rate_limit_shadow_total", "trial"] == 2


def test_no_client_chooses_a_label() -> None:
    app = make()
    client = app.test_client()
    before = set(counted(app))
    for number in range(50):
        client.open(f"/open?{number}", method=f"M{number}")
        client.get(f"/path-{number}", headers={"Authorization": f"Scheme{number} x"})
        client.get("/open", environ_overrides={"REMOTE_ADDR": f"203.0.113.{number}"})
    new = set(counted(app)) - before
    assert len(new) < 6, new
    assert not any("203" in label or "path" in label for key in new for label in key)


def test_an_app_that_makes_names_without_end_stays_within_bounds() -> None:
    app = make()
    metrics = app.extensions["m9m"].assembly.metrics
    for number in range(5_000):
        metrics.note_shadow_refusal(f'name {number}\n"\\\x1f\udc80')
    found = counted(app)
    kept = [key for key in found if key[0] == "m9m_rate_limit_shadow_total"]
    assert len(kept) <= 65
    assert sum(found[key] for key in kept) == 5_000


def test_what_an_app_answers_a_refusal_with_is_still_a_refusal() -> None:
    app = make()

    @app.errorhandler(401)
    def pretty(error: Any) -> tuple[str, int]:
        return "log in", 200

    assert app.test_client().get("/closed").status_code == 200
    assert counted(app)["m9m_requests_total", "refused", "AUTH_REQUIRED", "2xx"] == 1


def test_a_404_of_the_app_is_an_answer() -> None:
    app = make()
    app.add_url_rule("/gone", "gone", lambda: abort(410))
    app.test_client().get("/gone")
    assert counted(app)["m9m_requests_total", "answered", "", "4xx"] == 1


def test_without_the_scope_nobody_reads_them() -> None:
    app = make()
    client = app.test_client()
    answer = client.get("/metrics")
    assert answer.status_code == 401
    assert b"m9m_" not in answer.data
    assert client_as(app, "ann", ["other"]).get("/metrics").status_code == 403
    assert client_as(app, "ann", SCOPE).post("/metrics").status_code == 405


def test_networks_read_them_without_a_credential() -> None:
    app = make({"metrics": {"enabled": True, "allowed_networks": ["10.0.0.0/8"]}})
    client = app.test_client()

    def status(address: str, **headers: str) -> int:
        overrides = {"REMOTE_ADDR": address}
        return client.get("/metrics", headers=headers, environ_overrides=overrides).status_code

    assert status("10.1.2.3") == 200
    assert status("127.0.0.1") == 401
    assert status("127.0.0.1", **{"X-Forwarded-For": "10.1.2.3"}) == 401
    assert status("10.1.2.3", Authorization="Bearer x") == 401
    assert client_as(app, "ann").get("/metrics").status_code == 403
    assert client_as(app, "ann", SCOPE).get("/metrics").status_code == 200


def test_an_unreadable_client_does_not_read_them_as_its_proxy() -> None:
    metrics = {"enabled": True, "allowed_networks": ["10.0.0.0/8"]}
    app = make({"metrics": metrics, "server": {"trusted_proxies": ["10.0.0.1"]}})
    client = app.test_client()
    for forwarded, status in (("10.1.2.3", 200), ("unknown", 401)):
        headers = {"X-Forwarded-For": forwarded}
        answer = client.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": "10.0.0.1"})
        assert answer.status_code == status


def test_switched_off_there_is_no_route() -> None:
    app = make({"metrics": {"enabled": False}})
    assert app.test_client().get("/metrics").status_code == 404
    assert app.extensions["m9m"].assembly.metrics is None


@pytest.mark.parametrize("before", [True, False])
def test_a_route_of_the_apps_at_that_path_stops_the_start(before: bool) -> None:
    app = Flask("app")
    if before:
        app.add_url_rule("/metrics", "mine", lambda: "mine")
    M9M(app, settings=make_settings(ON))
    if not before:
        app.add_url_rule("/metrics", "mine", lambda: "mine")
    with pytest.raises(SettingsError, match=r"metrics\.path.*mine"):
        app.test_client().get("/")


def test_other_methods_and_paths_do_not_collide() -> None:
    app = make({"metrics": {"enabled": True, "path": "/internal/metrics"}})
    app.add_url_rule("/metrics", "mine", lambda: "mine")
    app.add_url_rule("/internal/metrics", "push", lambda: "pushed", methods=["POST"])
    app.add_url_rule("/<path:anything>", "anything", lambda anything: anything)
    client = client_as(app, "ann", SCOPE)
    assert client.get("/metrics").text == "mine"
    assert client.post("/internal/metrics").text == "pushed"
    assert "m9m_requests_total" in client.get("/internal/metrics").text


def test_without_prometheus_client_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.extension.api.metrics.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'flask-m9m\[metrics\]'"):
        make()


def test_an_app_without_metrics_loads_nothing_of_it() -> None:
    import subprocess

    code = (
        "import sys; from flask import Flask; from flask_m9m import M9M; app = Flask('a'); "
        "M9M(app, settings={}); app.test_client().get('/'); "
        "assert 'prometheus_client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_apps_in_one_process_count_apart() -> None:
    one, other = make(), make()
    one.test_client().get("/open")
    counted(one)
    assert counted(one)["m9m_requests_total", "answered", "", "2xx"] == 2
    assert ("m9m_requests_total", "answered", "", "2xx") not in counted(other)
