"""M9MMiddleware: the way of a request through the guard and an app, however odd the app is."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, create_environ, run_wsgi_app

from flask_m9m import M9M, Identity, M9MMiddleware, SettingsError, get_identity, require_auth
from flask_m9m.credentials import SYSTEM
from flask_m9m.errors import InvalidCredentials, NotFound
from flask_m9m.testing import Clock, make_settings
from tests.bodies import error_of
from tests.conftest import CHALLENGES
from tests.databases import settle
from tests.wsgi.conftest import Guarded, ask, client_as, echo

ORIGIN = "https://app.example.com"
CORS = {"security": {"cors": {"allowed_origins": [ORIGIN], "allow_credentials": True}}}
CLOSED = {"security": {"default_access": "authenticated"}}
LIMIT = {"performance": {"rate_limit": {"enabled": True, "requests_per_minute": 60, "burst": 3}}}
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization",
}


def has_each_field_once(headers: Any) -> bool:
    names = ("X-Frame-Options", "Content-Security-Policy", "X-Content-Type-Options", "Vary")
    return all(len(headers.getlist(name)) == 1 for name in names)


# The order


def test_an_identity_reaches_the_app_in_the_environ(guarded: Guarded) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(dict(environ))
        start_response("200 OK", [])
        return [b""]

    m9m = guarded([{"prefix": "/me", "access": "authenticated"}], app=app)
    client = client_as(m9m, "ann", "a b", roles=["admin"])
    client.get("/me", environ_base={"REMOTE_ADDR": "192.0.2.7"})
    identity = seen[0]["m9m.identity"]
    assert isinstance(identity, Identity)
    assert (identity.subject, identity.scheme) == ("ann", "bearer")
    assert identity.scopes == {"a", "b"}
    assert identity.roles == {"admin"}
    assert seen[0]["m9m.client_address"] == "192.0.2.7"
    assert sorted(key for key in seen[0] if key.startswith("m9m.")) == [
        "m9m.client_address",
        "m9m.identity",
        "m9m.request_id",
    ]


def test_nothing_that_a_client_or_another_layer_says_becomes_an_identity(guarded: Guarded) -> None:
    m9m = guarded()
    spoofed = {
        "HTTP_M9M_IDENTITY": "ann",
        "HTTP_M9M.IDENTITY": "ann",
        "m9m.identity": Identity("eve", "bearer"),
        "m9m.client_address": "10.0.0.1",
        "m9m.exchange": object(),
        "m9m.finished": [],
    }
    status, headers, body = ask(m9m, "/", **spoofed)
    assert (status, body) == ("200", b"nobody")
    assert headers.getlist("X-Frame-Options") == ["DENY"]


def test_refusals_read_as_in_flask(guarded: Guarded) -> None:
    m9m = guarded([{"prefix": "/admin", "scopes": "admin"}], CLOSED)
    answer = Client(m9m).get("/nowhere")
    assert answer.status_code == 401
    assert error_of(answer) == {
        "error": "Unauthorized",
        "code": "AUTH_REQUIRED",
        "message": "Authentication required",
    }
    assert answer.headers.getlist("WWW-Authenticate") == CHALLENGES
    assert answer.headers["Cache-Control"] == "no-store"
    assert has_each_field_once(answer.headers)
    denied = client_as(m9m, "ann").get("/admin")
    assert denied.status_code == 403
    assert denied.headers["WWW-Authenticate"] == (
        'Bearer realm="m9m", error="insufficient_scope", scope="admin"'
    )
    wrong = Client(m9m).get("/admin", headers={"Authorization": "Bearer x"})
    assert (wrong.status_code, wrong.json["code"]) == (401, "INVALID_TOKEN")  # type: ignore[index]
    two = client_as(m9m, "ann").get("/admin", headers={"X-API-Key": "m9m_sk_x"})
    assert (two.status_code, two.json["code"]) == (400, "INVALID_REQUEST")
    problem = Client(m9m).get("/admin", headers={"Accept": "application/problem+json"})
    assert problem.mimetype == "application/problem+json"


def test_a_preflight_is_answered_first_and_offers_the_methods_of_the_settings(
    guarded: Guarded,
) -> None:
    one = {"performance": {"rate_limit": {**LIMIT["performance"]["rate_limit"], "burst": 1}}}
    other = "https://other.example.com"
    m9m = guarded(
        [{"prefix": "/other", "access": "authenticated", "cors": {"allowed_origins": [other]}}],
        {**CORS, **one},
    )
    client = Client(m9m)
    for _ in range(3):
        answer = client.options("/x", headers=PREFLIGHT)
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.headers["Access-Control-Allow-Methods"] == (
            "GET, HEAD, POST, PUT, DELETE, PATCH"
        )
        assert "RateLimit" not in answer.headers
        assert has_each_field_once(answer.headers)
    assert client.options("/other/x", headers=PREFLIGHT).status_code == 403
    allowed = client.options("/other/x", headers={**PREFLIGHT, "Origin": other})
    assert (allowed.status_code, allowed.headers["Access-Control-Allow-Origin"]) == (204, other)


def test_addresses_are_limited_before_credentials_are_looked_at(guarded: Guarded) -> None:
    m9m = guarded([{"prefix": "/in", "access": "authenticated"}], LIMIT)
    assert [ask(m9m, path)[0] for path in ("/in", "//", "/", "/in")] == ["401", "400", "200", "429"]
    _, headers, _ = ask(m9m, "/in")
    assert headers["Retry-After"] == "1"
    assert headers["RateLimit"] == '"default";r=0;t=1'
    assert has_each_field_once(headers)


def test_networks_https_and_proxies_hold(guarded: Guarded) -> None:
    server = {
        "allowed_networks": ["192.0.2.0/24"],
        "https": "refuse",
        "trusted_proxies": ["10.0.0.1"],
    }
    m9m = guarded(settings={"server": server})
    forwarded = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1"}
    assert ask(m9m, "/", REMOTE_ADDR="10.0.0.1")[0] == "403"
    assert b"HTTPS_REQUIRED" in ask(m9m, "/", **forwarded)[2]
    status, headers, _ = ask(m9m, "/", **forwarded, HTTP_X_FORWARDED_PROTO="https")
    assert status == "200"
    assert "Strict-Transport-Security" in headers


def test_keys_by_identity_count_callers_and_not_addresses(guarded: Guarded) -> None:
    m9m = guarded(
        [{"prefix": "/", "access": "authenticated", "rate_limit": "1/hour", "key": "identity"}]
    )
    ann, bob = client_as(m9m, "ann"), client_as(m9m, "bob")
    answers = [one.get("/").status_code for one in (ann, bob, ann)]
    assert answers == [200, 200, 429]


def test_headers_and_cors_may_differ_below_a_prefix(guarded: Guarded) -> None:
    m9m = guarded([{"prefix": "/ui", "headers": {"preset": "web", "x_frame_options": None}}], CORS)
    assert "X-Frame-Options" not in ask(m9m, "/ui/x")[1]
    assert "script" not in ask(m9m, "/")[1]["Content-Security-Policy"]
    assert ask(m9m, "/")[1]["X-Frame-Options"] == "DENY"


def test_other_sites_cannot_use_a_password_that_the_browser_remembers(guarded: Guarded) -> None:
    m9m = guarded(
        [{"prefix": "/", "access": "authenticated"}],
        {"security": {"basic_auth": {"enabled": True}}},
    )
    m9m.password_verifier(lambda name, password: True)
    sent = {"auth": ("ann", "pass"), "headers": {"Sec-Fetch-Site": "cross-site"}}
    answer = Client(m9m).post("/", **sent)
    assert (answer.status_code, answer.json["code"]) == (403, "CSRF_FAILED")  # type: ignore[index]


# Odd apps


def failing_early(environ: Any, start_response: Any) -> list[bytes]:
    raise ZeroDivisionError


def failing_after_head(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("X-Own", "1"), ("Set-Cookie", "a=b")])
    raise ZeroDivisionError


def failing_generator(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    raise ZeroDivisionError
    yield b""


def failing_stream(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    return (bytes([1 // 0]) for _ in range(1))


def failing_iter(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return 5


def silent(environ: Any, start_response: Any) -> list[bytes]:
    return []


def silent_generator(environ: Any, start_response: Any) -> Iterator[bytes]:
    yield b"x"


def refusing(environ: Any, start_response: Any) -> list[bytes]:
    raise NotFound


@pytest.mark.parametrize(
    "app",
    [
        failing_early,
        failing_after_head,
        failing_generator,
        failing_stream,
        failing_iter,
        silent,
        silent_generator,
        refusing,
    ],
)
def test_an_app_that_fails_is_answered_for_and_logged(
    guarded: Guarded, app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    m9m = guarded(app=app, settings=CORS)
    status, headers, body = ask(m9m, "/", HTTP_ORIGIN=ORIGIN)
    assert status == "500"
    told = json.loads(body)
    assert told.pop("request_id") == headers["X-Request-ID"]
    assert told == {
        "error": "Internal Server Error",
        "code": "INTERNAL_ERROR",
        "message": "Internal error",
    }
    assert has_each_field_once(headers)
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "X-Own" not in headers
    assert "Set-Cookie" not in headers
    assert [one.message for one in caplog.records if one.exc_info] == ["An exception left the app"]


def test_what_fails_in_the_middle_of_a_body_is_the_servers(guarded: Guarded) -> None:
    closed: list[bool] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            yield b"first"
            raise ZeroDivisionError
        finally:
            closed.append(True)

    body, status, headers = run_wsgi_app(guarded(app=app), create_environ("/"))
    parts = iter(body)
    assert (next(parts), status) == (b"first", "200 OK")
    assert headers.getlist("X-Frame-Options") == ["DENY"]
    with pytest.raises(ZeroDivisionError):
        next(parts)
    assert closed == [True]


class Body:
    def __init__(self, *parts: bytes, fails: bool = False) -> None:
        self.closed, self.parts, self.fails = 0, iter(parts), fails

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> bytes:
        if self.fails:
            raise ZeroDivisionError
        return next(self.parts)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("parts", [(), (b"",), (b"a", b"b")])
def test_a_body_is_closed_once(guarded: Guarded, parts: tuple[bytes, ...], fails: bool) -> None:
    body = Body(*parts, fails=fails)

    def app(environ: Any, start_response: Any) -> Body:
        start_response("200 OK", [])
        return body

    status, _, content = ask(guarded(app=app), "/")
    assert body.closed == 1
    assert (status, content) == ("500", content) if fails else ("200", b"".join(parts))


def test_a_body_that_cannot_be_begun_is_closed(guarded: Guarded) -> None:
    class Broken(Body):
        def __iter__(self) -> Body:
            raise ZeroDivisionError

    body = Broken()

    def app(environ: Any, start_response: Any) -> Body:
        start_response("200 OK", [])
        return body

    assert ask(guarded(app=app), "/")[0] == "500"
    assert body.closed == 1


def test_a_body_that_nobody_reads_is_closed(guarded: Guarded) -> None:
    body = Body(b"a", b"b")

    def app(environ: Any, start_response: Any) -> Body:
        start_response("200 OK", [])
        return body

    iterable: Any = guarded(app=app)(create_environ("/"), lambda *_: lambda _: None)
    iterable.close()
    assert body.closed == 1


def test_a_stream_comes_part_by_part(guarded: Guarded) -> None:
    made: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for number in range(3):
            made.append(number)
            yield b"%d" % number

    body, _, _ = run_wsgi_app(guarded(app=app), create_environ("/"))
    parts = iter(body)
    assert next(parts) == b"0"
    assert made == [0]
    assert list(parts) == [b"1", b"2"]


def test_write_and_a_second_head_work_as_in_pep_3333(guarded: Guarded) -> None:
    def writing(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(b"written ")
        return [b"and returned"]

    def changing(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("X-First", "1")])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("418 Teapot", [("X-Second", "1")], sys.exc_info())
        return [b"tea"]

    assert ask(guarded(app=writing), "/")[2] == b"written and returned"
    status, headers, body = ask(guarded(app=changing), "/")
    assert (status, body) == ("418", b"tea")
    assert headers.getlist("X-Frame-Options") == ["DENY"]
    assert "X-First" not in headers


def test_an_app_that_fails_once_bytes_are_out_ends_the_connection(guarded: Guarded) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(b"out")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(guarded(app=app), "/")


def test_a_file_reaches_the_server_as_the_file_that_it_is(guarded: Guarded) -> None:
    made: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        made.append(environ["wsgi.file_wrapper"](io.BytesIO(b"content")))
        return made[0]

    environ = {**create_environ("/"), "wsgi.file_wrapper": FileWrapper}
    assert guarded(app=app)(environ, lambda *_: lambda _: None) is made[0]


def test_head_has_the_head_and_no_body(guarded: Guarded) -> None:
    status, headers, body = ask(guarded(settings=CLOSED), "/x", "HEAD")
    assert (status, body) == ("401", b"")
    assert has_each_field_once(headers)


def test_system_exits_pass(guarded: Guarded) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        ask(guarded(app=app), "/")


def test_an_environ_that_is_used_again_begins_anew(guarded: Guarded) -> None:
    m9m = guarded([{"prefix": "/me", "access": "authenticated"}])
    token = m9m.tokens.issue("ann")
    environ = create_environ("/me", headers={"Authorization": f"Bearer {token}"})
    assert b"".join(run_wsgi_app(m9m, environ)[0]) == b"ann"
    environ.pop("HTTP_AUTHORIZATION")
    assert run_wsgi_app(m9m, environ)[1].startswith("401")
    environ["PATH_INFO"] = "/"
    assert b"".join(run_wsgi_app(m9m, environ)[0]) == b"nobody"


def test_a_refused_request_leaves_nothing_to_the_garbage_collector(guarded: Guarded) -> None:
    m9m = guarded(settings=CLOSED)
    ask(m9m, "/")
    settle()
    left = []
    gc.disable()
    try:
        for _ in range(3):  # a thread of an earlier test that ends now leaves something, too
            gc.collect()
            environ = create_environ("/")
            m9m(environ, lambda *_: lambda _: None)
            del environ
            left.append(gc.collect())
    finally:
        gc.enable()
    assert min(left) == 0


# Apps within apps


def test_a_middleware_within_a_middleware_adds_its_fields_once_and_both_guard(
    guarded: Guarded,
) -> None:
    inner = guarded([{"prefix": "/in", "scopes": "x"}], CLOSED)
    outer = guarded([{"prefix": "/out", "access": "authenticated"}], app=inner)
    for path, status in (("/out", "401"), ("/in", "401"), ("/", "401")):
        found, headers, _ = ask(outer, path)
        assert found == status
        assert has_each_field_once(headers)
        assert headers.getlist("WWW-Authenticate") == CHALLENGES
    assert client_as(inner, "ann").get("/").text == "ann"


def test_a_flask_app_with_a_guard_of_its_own_within(guarded: Guarded) -> None:
    app = Flask("app")
    M9M(app, settings=make_settings({"security": {"headers": {"x_frame_options": "SAMEORIGIN"}}}))

    @app.get("/x")
    @require_auth
    def view() -> str:
        return "x"

    @app.get("/who")
    def who() -> str:
        return str(get_identity())

    m9m = guarded([{"prefix": "/", "access": "authenticated"}], app=app)
    for client, status, frame in (
        (Client(m9m), 401, "DENY"),
        (client_as(m9m, "ann"), 401, "SAMEORIGIN"),
    ):
        answer = client.get("/x")
        assert answer.status_code == status
        assert answer.headers.getlist("X-Frame-Options") == [frame]
        assert has_each_field_once(answer.headers)
    assert client_as(m9m, "ann").get("/who").text == "None"  # its own guard has proved nobody


def test_a_flask_app_without_a_guard_knows_who_calls(guarded: Guarded) -> None:
    app = Flask("app")
    app.add_url_rule("/", "who", lambda: get_identity().subject)  # type: ignore[union-attr]
    m9m = guarded([{"prefix": "/", "access": "authenticated"}], app=app)
    assert client_as(m9m, "ann").get("/").text == "ann"


def test_a_middleware_mounted_in_a_flask_app(guarded: Guarded) -> None:
    outer = Flask("outer")
    outer.testing = True
    outer.add_url_rule("/", "index", lambda: "index")
    inner = guarded(
        [{"prefix": "/api/in", "access": "authenticated"}],
        {"security": {"headers": {"x_frame_options": "SAMEORIGIN"}}},
    )
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/api": inner})  # type: ignore[method-assign]
    M9M(outer, settings=make_settings())
    client = outer.test_client()
    for path, status, frame in (
        ("/", 200, "DENY"),
        ("/api/in", 401, "SAMEORIGIN"),
        ("/api/x", 200, "SAMEORIGIN"),
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.headers.getlist("X-Frame-Options")) == (status, [frame])


# What the app asks for


def test_the_services_are_there(guarded: Guarded) -> None:
    m9m = guarded(
        [{"prefix": "/", "access": "authenticated"}],
        {"credentials": {"encryption_key": "b" * 16 + "c" * 16 + "0123456789" * 2}},
    )
    m9m.users.create("bob", "correct horse battery")
    _, key = m9m.api_keys.create("ci", "bob")
    assert Client(m9m).get("/", headers={"X-API-Key": key}).text == "bob"
    assert m9m.cipher.decrypt(m9m.cipher.encrypt(b"x")) == b"x"
    m9m.credential_type("mine", ["token"])
    made = m9m.credentials.create("mine", "mine", {"token": "t"}, caller=SYSTEM)
    assert m9m.credentials.get(made.id, caller=SYSTEM).data["token"] == "t"
    with pytest.raises(NotFound):
        m9m.credentials.get(made.id, caller=Identity("eve", "bearer"))
    with pytest.raises(RuntimeError, match="caller="):
        m9m.credentials.get(made.id)


def test_a_credential_is_tried_by_the_apps_checker(guarded: Guarded) -> None:
    m9m = guarded(settings={"credentials": {"encryption_key": "0123456789abcdef" * 4}})
    made = m9m.credentials.create("c", "apiKey", {"apiKey": "k"}, caller=SYSTEM)
    m9m.credential_checker("apiKey")(lambda credential: credential.data["apiKey"])
    assert m9m.credentials.test(made.id, caller=SYSTEM) == "k"


def test_an_app_brings_its_own_users_schemes_and_identities(guarded: Guarded) -> None:
    m9m = guarded(
        [{"prefix": "/", "access": "authenticated", "schemes": ["basic", "badge"]}],
        {"security": {"basic_auth": {"enabled": True}}},
    )

    @m9m.password_verifier
    def verify(name: str, password: str) -> bool:
        return (name, password) == ("ann", "pass")

    @m9m.authenticator("badge")
    def badge(environ: Any) -> Identity | None:
        number = environ.get("HTTP_X_BADGE")
        if number == "bad":
            raise InvalidCredentials
        return Identity(f"badge {number}", "badge") if number else None

    @m9m.identity_loader
    def load(identity: Identity) -> Identity | None:
        return None if identity.subject == "badge 13" else identity

    client = Client(m9m)
    assert client.get("/", auth=("ann", "pass")).text == "ann"
    assert client.get("/", auth=("ann", "other")).status_code == 401
    assert client.get("/", headers={"X-Badge": "7"}).text == "badge 7"
    assert client.get("/", headers={"X-Badge": "bad"}).status_code == 401
    assert client.get("/", headers={"X-Badge": "13"}).status_code == 401
    with pytest.raises(RuntimeError):
        m9m.authenticator("late")(badge)


def test_a_loader_that_fails_is_an_error_and_lets_nobody_through(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    m9m = guarded([{"prefix": "/", "access": "authenticated"}])
    m9m.identity_loader(lambda identity: identity.missing)  # type: ignore[attr-defined]
    answer = client_as(m9m, "ann").get("/")
    assert answer.status_code == 500
    assert has_each_field_once(answer.headers)
    assert "An exception left the app" in caplog.text


# Start and processes


def test_settings_come_from_the_same_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M9M_JWT_SECRET", os.urandom(32).hex())
    (tmp_path / "config.yaml").write_text("security: {cors: {max_age: 60}}\napi: {enabled: true}")
    m9m = M9MMiddleware(echo)
    assert m9m.settings.security.cors.max_age == 60
    assert "config.yaml" in caplog.text
    assert "only M9M serves the REST API" in caplog.text
    with pytest.raises(SettingsError, match="max_agee"):
        M9MMiddleware(echo, settings={"security": {"cors": {"max_agee": 5}}})
    with pytest.raises(TypeError, match="WSGI app"):
        M9MMiddleware("app")  # type: ignore[arg-type]


def test_the_instance_folder_lies_beside_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    file = tmp_path / "there" / "config.yaml"
    file.write_text(f"security: {{jwt: {{secret: {os.urandom(32).hex()}}}}}")
    monkeypatch.chdir(tmp_path)
    M9MMiddleware(echo, settings=file).users.create("ann", "correct horse battery")
    assert list((tmp_path / "there" / "instance").rglob("*.db"))
    M9MMiddleware(echo, settings=make_settings()).users.create("ann", "correct horse battery")
    assert list((tmp_path / "instance").rglob("*.db"))


def test_nothing_is_opened_before_it_is_needed(guarded: Guarded, tmp_path: Path) -> None:
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    m9m = guarded(settings=LIMIT, clock=None)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before
    assert not list(tmp_path.iterdir())
    ask(m9m, "/")
    assert not list(tmp_path.iterdir())


def test_the_first_requests_may_come_at_once(guarded: Guarded) -> None:
    m9m = guarded([{"prefix": "/", "access": "public", "rate_limit": "5/hour"}])
    barrier, statuses = threading.Barrier(12), []

    def run() -> None:
        barrier.wait()
        statuses.append(ask(m9m, "/")[0])

    threads = [threading.Thread(target=run) for _ in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(statuses) == ["200"] * 5 + ["429"] * 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_processes_that_were_forked_share_the_machines_limits(
    guarded: Guarded, clock: Clock
) -> None:
    m9m = guarded([{"prefix": "/", "rate_limit": "4/hour"}], clock=None)
    assert ask(m9m, "/")[0] == "200"
    m9m._lock.acquire()  # as a thread of the parent's may have it
    codes = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            passed = sum(ask(m9m, "/")[0] == "200" for _ in range(2)) if m9m.tokens else -1
            os._exit(passed)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    m9m._lock.release()
    assert codes == [2, 1]
