"""What a view can ask, and what an app can do with tokens."""

from __future__ import annotations

import asyncio
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

from flask_m9m import (
    M9M,
    SettingsError,
    cors,
    csp_nonce,
    current_identity,
    current_user,
    get_client_address,
    get_identity,
    require_auth,
    security_headers,
)
from flask_m9m.testing import Clock, client_as, make_settings
from tests.conftest import MakeApp


def secured(settings: dict[str, Any] | None = None) -> tuple[Flask, M9M]:
    app = Flask("app")
    app.testing = True
    return app, M9M(app, settings=make_settings(settings))


def test_the_identity_is_the_callers_and_false_where_nobody_proved_anything(app: Flask) -> None:
    @app.get("/x")
    @require_auth(optional=True)
    def view() -> dict[str, Any]:
        if not current_identity:
            return {"nobody": get_identity() is None}
        identity = get_identity()
        assert identity is not None
        assert request.environ["m9m.identity"] is identity
        return {
            "subject": current_identity.subject,
            "scope": current_identity.has_scope("a"),
            "role": current_identity.has_role("b"),
            "neither": current_identity.has_scope("b") or current_identity.has_role("a"),
        }

    assert app.test_client().get("/x").json == {"nobody": True}
    assert client_as(app, "ann", ["a"], ["b"]).get("/x").json == {
        "subject": "ann",
        "scope": True,
        "role": True,
        "neither": False,
    }
    assert get_identity() is None
    assert not current_identity


def test_the_user_is_loaded_once_when_first_asked_for() -> None:
    app, m9m = secured()
    loaded = []

    @m9m.user_loader
    def load(identity: Any) -> str:
        loaded.append(identity.subject)
        return f"user {identity.subject}"

    @app.get("/twice")
    @require_auth
    def twice() -> str:
        return f"{current_user} {current_user}"

    app.add_url_rule("/never", "never", require_auth(lambda: "never"))
    app.add_url_rule("/open", "open", lambda: str(bool(current_user)))
    ann = client_as(app, "ann")
    assert ann.get("/never").text == "never"
    assert loaded == []
    assert ann.get("/twice").text == "user ann user ann"
    assert loaded == ["ann"]
    assert ann.get("/open").text == "False"


def test_without_a_loader_there_is_no_user_and_that_is_said(app: Flask) -> None:
    app.add_url_rule("/x", "x", require_auth(lambda: str(current_user)))
    with pytest.raises(RuntimeError, match="user_loader"):
        client_as(app, "ann").get("/x")


def test_the_clients_address_is_seen_through_trusted_proxies(make_app: MakeApp) -> None:
    app = make_app({"server": {"trusted_proxies": ["10.0.0.1"]}})
    app.add_url_rule("/x", "x", lambda: f"{get_client_address()} {request.remote_addr}")
    answer = app.test_client().get(
        "/x",
        headers={"X-Forwarded-For": "203.0.113.7"},
        environ_base={"REMOTE_ADDR": "10.0.0.1"},
    )
    assert answer.text == "203.0.113.7 10.0.0.1"


def test_outside_a_secured_app_each_says_what_is_missing() -> None:
    bare = Flask("bare")
    with bare.test_request_context("/"):
        for ask in (get_client_address, csp_nonce, lambda: current_user.name):
            with pytest.raises(RuntimeError, match=r"call M9M\(app\)"):
                ask()
        assert get_identity() is None
    with pytest.raises(RuntimeError):
        csp_nonce()


def test_tokens_live_as_long_as_they_are_told(clock: Clock) -> None:
    app = Flask("app")
    m9m = M9M(app, settings=make_settings(), clock=clock)
    with app.app_context():
        for life in (90, 90.0, "90s", "1m30s", timedelta(seconds=90)):
            identity = m9m.tokens.verify(m9m.tokens.issue("ann", expires_in=life))
            assert identity.expires_at == clock() + 90
        default = m9m.tokens.verify(m9m.tokens.issue("ann")).expires_at
        assert default == clock() + 86_400
        for life in ("soon", -1, 0, "0s", timedelta(0), float("nan")):
            with pytest.raises(ValueError):
                m9m.tokens.issue("ann", expires_in=life)


def test_without_a_secret_tokens_say_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    app, m9m = secured({"security": {"jwt": {"enabled": False}}})
    with app.app_context():
        for use in (lambda: m9m.tokens.issue("ann"), lambda: m9m.tokens.verify("x")):
            with pytest.raises(SettingsError, match="flask m9m init"):
                use()
    silent = Flask("silent")
    M9M(silent, settings={})
    silent.test_client().get("/")
    silent.test_client().get("/")
    assert len([one for one in caplog.messages if "JWT is switched off" in one]) == 1


def test_m9m_needs_a_current_app() -> None:
    m9m = M9M()
    with pytest.raises(RuntimeError):
        _ = m9m.tokens


def test_one_route_has_other_cors_settings_than_the_app(make_app: MakeApp) -> None:
    app = make_app({"security": {"cors": {"allowed_origins": ["https://app.example.com"]}}})
    partner = cors(allowed_origins=["https://partner.example"], allow_credentials=True)
    app.add_url_rule("/partner", "partner", partner(lambda: "x"))
    app.add_url_rule("/x", "x", lambda: "x")
    client = app.test_client()

    def allowed(path: str, origin: str) -> str | None:
        return client.get(path, headers={"Origin": origin}).headers.get(
            "Access-Control-Allow-Origin"
        )

    assert allowed("/partner", "https://partner.example") == "https://partner.example"
    assert allowed("/partner", "https://app.example.com") is None
    assert allowed("/x", "https://app.example.com") == "https://app.example.com"
    assert allowed("/x", "https://partner.example") is None


def test_one_route_has_other_security_headers_than_the_app(app: Flask) -> None:
    page = security_headers(preset="web", x_frame_options=None, referrer_policy="origin")
    app.add_url_rule("/page", "page", page(lambda: "x"))
    app.add_url_rule("/off", "off", security_headers(enabled=False)(lambda: "x"))
    headers = app.test_client().get("/page").headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "origin"
    assert "X-Frame-Options" not in headers
    assert "X-Content-Type-Options" not in app.test_client().get("/off").headers


@pytest.mark.parametrize(
    ("decorate", "overrides", "named"),
    [
        (cors, {"allowed_orgins": []}, "allowed_orgins"),
        (cors, {"allowed_origins": "https://a.example"}, "allowed_origins"),
        (cors, {"allowed_origins": ["https://a.example/"]}, "https://a.example"),
        (cors, {"allowed_origins": ["*"], "allow_credentials": True}, "allow_credentials"),
        (security_headers, {"x_frame_option": "DENY"}, "x_frame_option"),
        (security_headers, {"referrer_policy": "a\r\nb"}, "referrer_policy"),
    ],
)
def test_a_mark_that_cannot_be_is_refused_when_it_is_written(
    decorate: Any, overrides: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        decorate(**overrides)
    assert named in str(caught.value)


def test_what_contradicts_only_beside_the_settings_stops_the_route(make_app: MakeApp) -> None:
    app = make_app({"security": {"cors": {"allow_credentials": True}}})
    app.add_url_rule("/x", "x", cors(allowed_origins=["*"])(lambda: "x"))
    with pytest.raises(SettingsError, match="@cors of x"):
        app.test_client().get("/x")


def development(tmp_path: Path) -> Flask:
    app = Flask("app", instance_path=str(tmp_path / "instance"))
    app.testing = True
    M9M(app, settings={"development": {"enabled": True}})
    return app


def test_the_secret_of_development_is_made_once_and_shared(tmp_path: Path) -> None:
    one, other = development(tmp_path), development(tmp_path)
    for app in (one, other):
        app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    token = client_as(one, "ann").environ_base["HTTP_AUTHORIZATION"]
    assert other.test_client().get("/x", headers={"Authorization": token}).status_code == 200
    path = tmp_path / "instance" / "m9m" / "dev-secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("spoil", ["shared", "short", "binary", "directory", "link", "unwritable"])
def test_a_spoilt_secret_of_development_is_an_error_that_names_the_file(
    tmp_path: Path, spoil: str
) -> None:
    path = tmp_path / "instance" / "m9m" / "dev-secret"
    path.parent.mkdir(parents=True)
    if spoil == "directory":
        path.mkdir()
    elif spoil == "link":
        target = tmp_path / "target"
        target.write_text("a" * 64)
        target.chmod(0o600)
        path.symlink_to(target)
    elif spoil == "unwritable":
        path.parent.rmdir()
        path.parent.write_text("")
    else:
        path.write_bytes({"short": b"a" * 10, "binary": b"\xff" * 64}.get(spoil, b"a" * 64))
        os.chmod(path, 0o644 if spoil == "shared" else 0o600)
    with pytest.raises(SettingsError) as caught:
        development(tmp_path).test_client().get("/")
    assert "dev-secret" in str(caught.value)
    assert "aaaa" not in str(caught.value)


def test_a_coroutine_function_loads_the_user_once_for_sync_and_async_views(app: Flask) -> None:
    loaded = []

    async def load(identity: Any) -> str:
        await asyncio.sleep(0)
        loaded.append(request.path)
        return identity.subject.upper()

    app.extensions["m9m"].callbacks.user_loader = load

    @app.get("/sync")
    @require_auth
    def sync_view() -> str:
        return f"{current_user} {current_user}"

    @app.get("/async")
    @require_auth
    async def async_view() -> str:
        return f"{current_user} {current_user}"

    for path in ("/sync", "/async"):
        assert client_as(app, "ann").get(path).text == "ANN ANN"
    assert loaded == ["/sync", "/async"]
