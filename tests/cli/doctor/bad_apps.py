"""Bad apps: apps with findings, and the same apps mended; together they have every finding.

No single app can have every finding, because some contradict each other.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_m9m import M9M, cors, public, rate_limit, require_auth, security_headers
from flask_m9m.cli.doctor.subject import Subject
from flask_m9m.columns import EncryptedString, encrypt_plain_text, encrypted_types
from flask_m9m.testing import Clock
from tests.databases import settle
from tests.wsgi.server.certificates import make_certificate

DAY = 86_400.0
_made: list[Flask] = []
GIT = shutil.which("git")


@dataclass(frozen=True)
class BadApp:
    """An app with findings.

    Attributes:
        name: the error, for the test's id.
        ids: the ids of the findings.
        build: builds the app in a folder, the working directory; mended or not.
        needs: the name of a fixture that gives the URL of a server.
    """

    name: str
    ids: frozenset[str]
    build: Callable[..., Subject]
    needs: str = ""


def fresh() -> str:
    return secrets.token_urlsafe(48)


def key() -> str:
    return secrets.token_hex(32)


def subject(app: Flask, clock: Callable[[], float] = time.time) -> Subject:
    return Subject(app.extensions["m9m"], clock)


def new_app(folder: Path, **config: Any) -> Flask:
    app = Flask("app", root_path=str(folder), instance_path=str(folder / "instance"))
    app.config.update(config)
    _made.append(app)
    return app


def close_all() -> None:
    """Close the databases of all apps of this test, and forget its models."""
    settle()
    encrypted_types._places.clear()
    while _made:
        state = _made.pop().extensions.get("m9m")
        if state is not None and state._guard is not None:
            engine, given = state.database._engine, state.database._given
            state.database.close()
            if engine is not None and given is not None:
                engine.dispose()


def secured(
    folder: Path, settings: Mapping[str, Any] | None = None, **options: Any
) -> tuple[Flask, M9M]:
    """Make a secure app, with these settings on top."""
    app = new_app(folder)
    given: dict[str, Any] = {
        "security": {"default_access": "authenticated", "jwt": {"secret": fresh()}},
        "performance": {"rate_limit": {"enabled": True}},
    }
    return app, M9M(app, settings=merged(given, settings or {}), **options)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    together = dict(below)
    for name, value in above.items():
        old = together.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        together[name] = merged(old, value) if both else value  # type: ignore[arg-type]
    return together


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, name = path.split(".")
        section = tree
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return tree


def set_wrong(ids: str, bad: Mapping[str, Any], good: Mapping[str, Any], **config: Any) -> BadApp:
    """Declare an app whose settings are wrong, and right once mended."""

    def build(folder: Path, mended: bool) -> Subject:
        app, _ = secured(folder, nested(good if mended else bad))
        app.config.update(config)
        return subject(app)

    return BadApp(ids, frozenset(ids.split()), build)


SECRET = fresh()
PROXY = {"server.trusted_proxies": ["10.0.0.0/8"]}
HEADERS = "security.headers"
LIMITS = "performance.rate_limit"

WRONG_SETTINGS = [
    set_wrong("secret-weak", {"security.jwt.secret": "ab" * 20}, {}),
    set_wrong("previous-secret-weak", {"security.jwt.previous_secrets": ["abcdefgh" * 5]}, {}),
    set_wrong(
        "previous-key-weak",
        {"credentials.encryption_key": key(), "credentials.previous_keys": ["abcdefgh" * 5]},
        {"credentials.encryption_key": key()},
    ),
    set_wrong(
        "secret-weak", {"security.jwt.secret": "the horse ate twelve green apples today"}, {}
    ),
    set_wrong(
        "secret-reused",
        {
            "security.jwt.secret": SECRET,
            "security.basic_auth": {"enabled": True, "username": "ann", "password": SECRET},
        },
        {"security.basic_auth": {"enabled": True, "username": "ann", "password": fresh()}},
    ),
    set_wrong(
        "secret-reused",
        {
            "security.jwt.secret": SECRET,
            "database.url": f"postgresql://ann:{SECRET}@127.0.0.1:1/x",
        },
        {"security.jwt.secret": SECRET},
    ),
    set_wrong(
        "password-short",
        {"security.basic_auth": {"enabled": True, "username": "ann", "password": "short-one"}},
        {"security.basic_auth": {"enabled": True, "username": "ann", "password": fresh()}},
    ),
    set_wrong(
        "encryption-key-stretched",
        {"credentials.encryption_key": f"-{fresh()}"},
        {"credentials.encryption_key": key()},
    ),
    set_wrong(
        "encryption-key-weak",
        {"credentials.encryption_key": "0123456789abcdef" * 4},
        {"credentials.encryption_key": key()},
    ),
    set_wrong(
        "encryption-key-missing",
        {"api.enabled": True},
        {"api.enabled": True, "credentials.encryption_key": key()},
    ),
    set_wrong("limiter-off", {f"{LIMITS}.enabled": False}, {}),
    set_wrong("limiter-shadow", {f"{LIMITS}.shadow": True}, {}),
    set_wrong(
        "limiter-memory",
        {f"{LIMITS}.storage": "memory"},
        {f"{LIMITS}.storage": "memory", "server.workers": 1},
    ),
    set_wrong("limiter-open", {f"{LIMITS}.on_storage_failure": "open"}, {}),
    set_wrong("lockout-off", {"security.lockout.enabled": False}, {}),
    set_wrong("proxies-wide", {"server.trusted_proxies": ["0.0.0.0/0"]}, PROXY),
    set_wrong("proxies-wide", {"server.trusted_proxies": ["unix", "::/0"]}, PROXY),
    set_wrong(
        "proxies-wide",
        {"server.trusted_proxies": ["104.0.0.0/8"]},
        {"server.trusted_proxies": ["104.16.0.0/13", "2400:cb00::/32", "unix"]},
    ),
    set_wrong("forwarded-host-trusted", {**PROXY, "server.trust_forwarded_host": True}, PROXY),
    set_wrong("tls-off", {"server.host": "0.0.0.0"}, {"server.host": "127.0.0.1"}),
    set_wrong("tls-off", {"server.host": "::"}, {"server.host": "::", **PROXY}),
    set_wrong("https-optional", PROXY, {**PROXY, "server.https": "refuse"}),
    set_wrong(
        "basic-plain",
        {"server.host": "0.0.0.0", "security.basic_auth.enabled": True},
        {**PROXY, "security.basic_auth.enabled": True, "server.https": "refuse"},
    ),
    set_wrong("https-unreachable", {"server.https": "refuse"}, {**PROXY, "server.https": "refuse"}),
    set_wrong("development-on", {"development.enabled": True}, {}),
    set_wrong("development-exposed", {"development.enabled": True, "server.host": "192.0.2.1"}, {}),
    set_wrong(
        "metrics-open",
        {"metrics.enabled": True, "metrics.allowed_networks": ["0.0.0.0/0"]},
        {"metrics.enabled": True, "metrics.allowed_networks": ["10.0.0.0/8"]},
    ),
    set_wrong("origin-any", {"security.cors.allowed_origins": ["*"]}, {}),
    set_wrong(
        "origin-plain",
        {"security.cors.allowed_origins": ["http://app.example.com"]},
        {"security.cors.allowed_origins": ["http://localhost:3000", "https://app.example.com"]},
    ),
    set_wrong(
        "origin-wildcard-credentials",
        {
            "security.cors.allowed_origins": ["https://*.example.com"],
            "security.cors.allow_credentials": True,
        },
        {"security.cors.allowed_origins": ["https://*.example.com"]},
    ),
    set_wrong("headers-off", {f"{HEADERS}.enabled": False}, {}),
    set_wrong("header-missing", {f"{HEADERS}.referrer_policy": None}, {}),
    set_wrong("header-missing", {f"{HEADERS}.strict_transport_security": None}, {}),
    set_wrong(
        "csp-weak",
        {f"{HEADERS}.content_security_policy": "default-src 'self' 'unsafe-inline'"},
        {f"{HEADERS}.content_security_policy": "default-src 'self'; object-src 'none'"},
    ),
    set_wrong(
        "csp-weak",
        {f"{HEADERS}.content_security_policy": "script-src *; object-src 'none'"},
        {f"{HEADERS}.preset": "web"},
    ),
    set_wrong(
        "csp-weak",
        {f"{HEADERS}.content_security_policy": "script-src 'self' 'unsafe-eval'"},
        {
            f"{HEADERS}.content_security_policy": "object-src 'none'; script-src 'unsafe-inline' "
            "'nonce-abc'"
        },
    ),
    set_wrong(
        "hsts-short",
        {f"{HEADERS}.strict_transport_security": "max-age=86400"},
        {f"{HEADERS}.strict_transport_security": "includeSubDomains; max-age=31536000"},
    ),
    set_wrong(
        "framing-allowed",
        {f"{HEADERS}.x_frame_options": None, f"{HEADERS}.content_security_policy": None},
        {f"{HEADERS}.x_frame_options": None},
    ),
    set_wrong(
        "framing-allowed",
        {f"{HEADERS}.content_security_policy": "default-src 'none'; frame-ancestors *"},
        {f"{HEADERS}.x_frame_options": "SAMEORIGIN", f"{HEADERS}.content_security_policy": None},
    ),
    set_wrong(
        "header-weak",
        {f"{HEADERS}.referrer_policy": "unsafe-url"},
        {f"{HEADERS}.referrer_policy": "strict-origin"},
    ),
    set_wrong("header-weak", {f"{HEADERS}.x_content_type_options": "sniff"}, {}),
    set_wrong("audit-off", {"audit.enabled": False}, {}),
    set_wrong("audit-off", {"audit.sinks": []}, {"audit.sinks": ["log"]}),
    set_wrong("token-lifetime-long", {"security.jwt.expiration": "25h"}, {}),
    set_wrong("session-lifetime-long", {"security.jwt.refresh_max_age": "90d"}, {}),
]


def made(ids: str, needs: str = "") -> Callable[[Callable[..., Subject]], BadApp]:
    """Declare a bad app by the function that builds it."""

    def declare(build: Callable[..., Subject]) -> BadApp:
        return BadApp(build.__name__, frozenset(ids.split()), build, needs)

    return declare


# Secrets


@made("jwt-secret-missing")
def no_secret(folder: Path, mended: bool) -> Subject:
    app = new_app(folder)
    M9M(app, settings=nested({"security.jwt.secret": fresh()} if mended else {}))
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    return subject(app)


@made("secret-reused previous-secret-weak session-key-weak")
def a_session_key(folder: Path, mended: bool) -> Subject:
    old = "0123456789abcdef" * 2
    app = new_app(folder, SECRET_KEY=fresh() if mended else old)
    previous = fresh() if mended else old
    jwt = {"secret": fresh(), "previous_secrets": [previous]}
    M9M(app, settings={"security": {"jwt": jwt}})
    return subject(app)


@made("secret-readable secret-old")
def an_open_dotenv(folder: Path, mended: bool) -> Subject:
    dotenv = folder / ".env"
    dotenv.write_text(f"M9M_JWT_SECRET={fresh()}\n")
    dotenv.chmod(0o600 if mended else 0o644)
    changed = time.time() - (300 if mended else 366) * DAY
    os.utime(dotenv, (changed, changed))
    app = new_app(folder)
    M9M(app)
    return subject(app)


@made("secret-readable")
def an_open_secret_file(folder: Path, mended: bool) -> Subject:
    file = folder / "secret"
    file.write_text(fresh())
    file.chmod(0o640 if mended else 0o604)
    (folder / ".env").write_text("M9M_JWT_SECRET_FILE=secret\n")
    (folder / ".env").chmod(0o600)
    app = new_app(folder)
    M9M(app)
    return subject(app)


@made("secret-in-plain secret-readable")
def a_secret_in_the_config(folder: Path, mended: bool) -> Subject:
    secret = fresh()
    written = "${M9M_JWT_SECRET}" if mended else secret
    (folder / "config.yaml").write_text(f'security: {{jwt: {{secret: "{written}"}}}}\n')
    (folder / "config.yaml").chmod(0o644)
    if mended:
        (folder / ".env").write_text(f"M9M_JWT_SECRET={secret}\n")
        (folder / ".env").chmod(0o600)
    app = new_app(folder)
    M9M(app)
    return subject(app)


@made("secret-in-plain")
def a_secret_in_the_code(folder: Path, mended: bool) -> Subject:
    secret = fresh()
    if mended:  # as app.config.from_prefixed_env would load it
        (folder / ".env").write_text(f"APP_JWT_SECRET={secret}\n")
        (folder / ".env").chmod(0o600)
    app = new_app(folder, M9M_JWT_SECRET=secret)
    M9M(app)
    return subject(app)


@made("secret-tracked")
def a_dotenv_in_git(folder: Path, mended: bool) -> Subject:
    dotenv(folder)
    commit(folder, ".env" if mended else "")
    app = new_app(folder)
    M9M(app)
    return subject(app)


@made("secret-tracked")
def a_config_with_a_secret_in_git(folder: Path, mended: bool) -> Subject:
    if mended:
        dotenv(folder)
    secret = "${M9M_JWT_SECRET}" if mended else fresh()
    (folder / "config.yaml").write_text(f'security: {{jwt: {{secret: "{secret}"}}}}\n')
    commit(folder, ".env")
    app = new_app(folder)
    M9M(app)
    return subject(app)


@made("database-tracked")
def a_database_in_git(folder: Path, mended: bool) -> Subject:
    app = with_database(folder)
    commit(folder, ".env\ninstance/" if mended else ".env")
    return subject(app)


@made("database-tracked")
def a_log_of_a_database_in_git(folder: Path, mended: bool) -> Subject:
    app = with_database(folder)
    (folder / "instance" / "m9m" / "m9m.db-wal").write_bytes(b"")
    commit(folder, ".env\nm9m.db*" if mended else ".env\nm9m.db")
    return subject(app)


@made("secret-unignored")
def a_folder_without_gitignore_rules(folder: Path, mended: bool) -> Subject:
    app = with_database(folder)
    commit(folder, ".env\ninstance/" if mended else "m9m.db\n", ".gitignore")
    return subject(app)


def dotenv(folder: Path) -> None:
    (folder / ".env").write_text(f"M9M_JWT_SECRET={fresh()}\n")
    (folder / ".env").chmod(0o600)


def with_database(folder: Path) -> Flask:
    dotenv(folder)
    app = new_app(folder)
    M9M(app)
    app.extensions["m9m"].database.upgrade()
    return app


def commit(folder: Path, ignored: str, names: str = ".") -> None:
    assert GIT is not None
    (folder / ".gitignore").write_text(ignored)
    for command in (["init", "-q"], ["add", names]):
        subprocess.run([GIT, *command], cwd=folder, check=True, capture_output=True)


@made("config-passed-over")
def a_config_that_is_not_read(folder: Path, mended: bool) -> Subject:
    text = "audit: {sinks: [log, database]}\nserver: {port: 9000}\n"
    (folder / "config.yaml").write_text(text + "security: {}\n" * mended)
    app = new_app(folder, M9M_JWT_SECRET=fresh(), M9M_ENCRYPTION_KEY=key())
    M9M(app)
    return subject(app)


# Routes


def _view() -> Callable[[], str]:
    return lambda: "x"


def _routed(folder: Path, access: str, *marks: Callable[[Any], Any], limited: bool = True) -> Flask:
    app, _ = secured(
        folder,
        nested({"security.default_access": access, f"{LIMITS}.enabled": limited}),
    )

    marked: Any = _view()
    for mark in marks:
        marked = mark(marked)
    app.add_url_rule("/x", "x", marked, methods=["GET"])
    return app


@made("route-undecided")
def an_undecided_route(folder: Path, mended: bool) -> Subject:
    return subject(_routed(folder, "authenticated", *[require_auth] * mended))


@made("route-unprotected")
def an_open_route(folder: Path, mended: bool) -> Subject:
    return subject(_routed(folder, "public", *[public] * mended))


@made("route-changes-unprotected")
def an_open_change(folder: Path, mended: bool) -> Subject:
    app = _routed(folder, "public", public)
    app.add_url_rule("/y", "y", require_auth(_view()) if mended else _view(), methods=["DELETE"])
    return subject(app)


@made("route-public-unlimited")
def a_public_change(folder: Path, mended: bool) -> Subject:
    app = _routed(folder, "authenticated", public, limited=False)
    view = public(_view())
    if mended:
        view = rate_limit("5/minute", burst=1)(view)
    app.add_url_rule("/y", "y", view, methods=["POST"])
    return subject(app)


@made("audit-broken")
def a_trail_whose_end_was_changed(folder: Path, mended: bool) -> Subject:
    url = f"sqlite:///{folder / 'm9m.db'}"
    settings = {"audit": {"sinks": ["database"]}, "credentials": {"encryption_key": key()}}
    app, m9m = secured(folder, {**settings, "database": {"url": url}})
    with app.app_context():
        m9m.audit.record("begun")
    if not mended:
        with sa.create_engine(url).begin() as connection:
            connection.execute(sa.text("UPDATE m9m_audit_ends SET seq = 2"))
    return subject(app)


@made("route-shadowed")
def a_route_with_the_path_of_ours(folder: Path, mended: bool) -> Subject:
    app, _ = secured(folder, {"api": {"enabled": True}, "credentials": {"encryption_key": key()}})
    app.add_url_rule("/own-health" if mended else "/health", "own", public(_view()))
    answer = app.test_client().get("/health")
    assert answer.text != "x"  # our own route answers, as the finding says
    return subject(app)


@made("protect-unmatched")
def a_pattern_that_matches_nothing(folder: Path, mended: bool) -> Subject:
    app, m9m = secured(folder)
    app.add_url_rule("/docs", "docs", lambda: "docs")
    m9m.protect("doc*" if mended else "documents*", public)
    return subject(app)


class Middleware:
    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.app(environ, start_response)


@made("middleware-outside")
def middleware_around_it(folder: Path, mended: bool) -> Subject:
    app = new_app(folder)
    if mended:
        app.wsgi_app = Middleware(app.wsgi_app)  # type: ignore[method-assign]
    M9M(app, settings=nested({"security.jwt.secret": fresh()}))
    if not mended:
        app.wsgi_app = Middleware(app.wsgi_app)  # type: ignore[method-assign]
    return subject(app)


@made("middleware-outside")
def a_closure_around_it(folder: Path, mended: bool) -> Subject:
    app, _ = secured(folder)
    if not mended:
        inner = app.wsgi_app

        def timed(environ: Any, start_response: Any) -> Any:
            return inner(environ, start_response)

        app.wsgi_app = timed  # type: ignore[method-assign]
    return subject(app)


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.inner(environ, start_response)


@made("middleware-outside")
def several_layers_around_it(folder: Path, mended: bool) -> Subject:
    app, _ = secured(folder)
    if not mended:
        app.wsgi_app = Middleware(partial(Slotted(app.wsgi_app)))  # type: ignore[method-assign]
        app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    return subject(app)


@made("guard-bypassed")
def the_guard_replaced(folder: Path, mended: bool) -> Subject:
    app = new_app(folder)
    original = app.wsgi_app
    M9M(app, settings=nested({"security.jwt.secret": fresh()}))
    if not mended:
        app.wsgi_app = Middleware(original)  # type: ignore[method-assign]
    return subject(app)


@made("origin-any")
def any_origin_of_a_route(folder: Path, mended: bool) -> Subject:
    own = cors(allowed_origins=["*"], allow_credentials=False)
    return subject(_routed(folder, "authenticated", own, public if mended else require_auth))


@made("headers-off header-missing csp-weak")
def headers_of_routes(folder: Path, mended: bool) -> Subject:
    app, _ = secured(folder)
    own: list[dict[str, Any]] = [
        {"enabled": False},
        {"permissions_policy": None},
        {"content_security_policy": "default-src *"},
    ]
    for number, overrides in enumerate(own):
        view = public(lambda: "x")
        if not mended:
            view = security_headers(**overrides)(view)
        app.add_url_rule(f"/{number}", f"view{number}", view)
    return subject(app)


# Proxies and serving


@made("proxy-not-trusted forwarding-from-stranger")
def an_unknown_proxy(folder: Path, mended: bool) -> Subject:
    proxies = ["10.0.0.7", "8.8.8.8"] if mended else []
    app, _ = secured(folder, nested({"server.trusted_proxies": proxies}))
    for peer in ("10.0.0.7", "8.8.8.8"):
        app.test_client().get(
            "/", headers={"X-Forwarded-For": "192.0.2.1"}, environ_base={"REMOTE_ADDR": peer}
        )
    return subject(app)


@made("proxy-fix-doubled")
def forwarding_headers_read_twice(folder: Path, mended: bool) -> Subject:
    app, _ = secured(folder, nested({} if mended else PROXY))
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    return subject(app)


@made("debug-on testing-on")
def modes_of_flask(folder: Path, mended: bool) -> Subject:
    app, _ = secured(folder)
    app.debug = app.testing = not mended
    return subject(app)


@made("certificate-expiring")
def a_certificate_that_expires(folder: Path, mended: bool) -> Subject:
    pair = make_certificate(folder, last=timedelta(days=30 if mended else 13))
    tls = {"enabled": True, "cert_file": str(pair.certificate), "key_file": str(pair.key)}
    app, _ = secured(folder, {"server": {"tls": tls}})
    return subject(app)


@made("session-cookie")
def a_session_cookie(folder: Path, mended: bool) -> Subject:
    app, _ = secured(folder)
    app.secret_key = fresh()
    if mended:
        app.config.update(SESSION_COOKIE_SECURE=True, SESSION_COOKIE_SAMESITE="Lax")
    return subject(app)


# Stored data


def _app_of_100_days_ago(folder: Path, **settings: Any) -> tuple[Flask, M9M]:
    """Make an app whose clock is 100 days behind, with the database of today's apps."""
    return secured(folder, nested(settings), clock=Clock(time.time() - 100 * DAY))


@made("key-unused key-without-expiry key-of-disabled-user")
def forgotten_keys(folder: Path, mended: bool) -> Subject:
    app, m9m = _app_of_100_days_ago(folder)
    with app.app_context():
        m9m.users.create("ann", "correct horse battery")
        made_key, _ = m9m.api_keys.create("ci", "ann")
        m9m.users.disable("ann")
        if mended:
            m9m.api_keys.revoke(made_key.id)
            in_a_year = datetime.now(UTC) + timedelta(days=365)
            bob, _ = m9m.api_keys.create("ci", "bob", expires_at=in_a_year)
            with app.extensions["m9m"].database.write() as transaction:
                transaction.identities.note_key_uses({bob.id: datetime.now(UTC)})
    return subject(secured(folder)[0])


@made("credentials-under-retired-key credentials-unreadable")
def retired_keys(folder: Path, mended: bool) -> Subject:
    keys = [key(), key(), key()]
    for current in keys[:2]:
        previous = [other for other in keys[:2] if other != current] if current != keys[0] else []
        app, m9m = secured(
            folder,
            nested({"credentials.encryption_key": current, "credentials.previous_keys": previous}),
        )
        with app.app_context():
            m9m.credentials.create("mail", "apiKey", {"apiKey": fresh()})
    settings: dict[str, Any] = {"encryption_key": keys[2], "previous_keys": [keys[1]]}
    if mended:
        settings["previous_keys"] = keys[:2]
    app, m9m = secured(folder, {"credentials": settings})
    if mended:
        with app.app_context():
            m9m.credentials.rotate()
    return subject(app)


@made("column-plain-text column-not-seen")
def columns_without_their_database(folder: Path, mended: bool) -> Subject:
    app, m9m = secured(folder, nested({"credentials.encryption_key": key()}))
    engine = sa.create_engine(f"sqlite:///{folder}/app.db")
    token = sa.Column("token", EncryptedString)
    table = sa.Table("bad", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), token)
    other = sa.Table("unnamed", sa.MetaData(), sa.Column("token", EncryptedString))
    app.extensions["tables"] = [table, other]  # they are not seen when they are gone
    table.create(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO bad (token) VALUES ('plain')"))
    m9m.encrypted_columns(engine, table.metadata)
    if mended:
        with app.app_context():
            encrypt_plain_text(engine, table.metadata)
        m9m.encrypted_columns(engine, other.metadata)
    engine.dispose()
    return subject(app)


# Storage


@made("database-unreachable")
def no_database(folder: Path, mended: bool) -> Subject:
    app, _ = secured(folder, nested({"database.url": f"sqlite:///{folder}/x.db"}))
    (folder / "x.db").touch(0o600)
    if not mended:
        (folder / "x.db").write_bytes(b"no database at all" * 100)
    return subject(app)


@made("database-schema database-readable")
def an_old_database(folder: Path, mended: bool) -> Subject:
    app, _ = secured(folder)
    database = app.extensions["m9m"].database
    database.upgrade()
    file = folder / "instance" / "m9m" / "m9m.db"
    if not mended:
        with database.write() as transaction:
            transaction._connection.exec_driver_sql(
                "UPDATE m9m_alembic_version SET version_num = '0001'"
            )
        file.chmod(0o644)
    database.close()
    return subject(app)


@made("include-name-missing")
def migrations_that_drop_tables(folder: Path, mended: bool) -> Subject:
    environment = folder / "migrations" / "env.py"
    environment.parent.mkdir()
    given = "include_name=include_name" if mended else "target_metadata=None  # no include_name"
    environment.write_text(f"context.configure(\n    {given}\n)\n")
    app, _ = secured(folder, engine=sa.create_engine(f"sqlite:///{folder}/app.db"))
    return subject(app)


def _with_redis(folder: Path, url: str) -> Flask:
    limiting = {f"{LIMITS}.storage": "redis", f"{LIMITS}.redis_url": url}
    return secured(folder, nested(limiting))[0]


@made("redis-unreachable", needs="redis_url")
def no_redis(folder: Path, mended: bool, url: str) -> Subject:
    return subject(_with_redis(folder, url if mended else "redis://127.0.0.1:1/0"))


@made("backend-plain")
def servers_without_tls(folder: Path, mended: bool) -> Subject:
    # 0.0.0.0 is not loopback, and nothing listens there.
    app, _ = secured(
        folder,
        nested(
            {
                f"{LIMITS}.storage": "redis",
                f"{LIMITS}.redis_url": f"redis{'s' * mended}://0.0.0.0:1/0",
                "database.url": "postgresql://0.0.0.0:1/x"
                + ("?sslmode=verify-full" if mended else ""),
            }
        ),
    )
    return subject(app)


@made("clock-off", needs="redis_url")
def a_clock_behind_redis(folder: Path, mended: bool, url: str) -> Subject:
    off = 0 if mended else 6
    return subject(_with_redis(folder, url), lambda: time.time() - off)


@made("clock-off", needs="postgres_url")
def a_clock_ahead_of_postgres(folder: Path, mended: bool, url: str) -> Subject:
    off = 0 if mended else 6
    app, _ = secured(folder, nested({"database.url": url}))
    app.extensions["m9m"].database.upgrade()
    return subject(app, lambda: time.time() + off)


@made("database-schema", needs="postgres_url")
def a_server_without_tables(folder: Path, mended: bool, url: str) -> Subject:
    app, _ = secured(folder, nested({"database.url": url}))
    if mended:
        app.extensions["m9m"].database.upgrade()
    return subject(app)


@made("dependency-vulnerable")
def an_old_package(folder: Path, mended: bool) -> Subject:
    version = "2.99" if mended else "2.12.1"
    metadata = folder / "site" / f"PyJWT-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: PyJWT\nVersion: {version}\n")
    sys.path.insert(0, str(folder / "site"))
    return subject(secured(folder)[0])


@made("clock-off")
def a_clock_of_long_ago(folder: Path, mended: bool) -> Subject:
    app, _ = secured(folder)
    return subject(app, time.time if mended else lambda: 86_400.0)


BAD_APPS = [
    *WRONG_SETTINGS,
    *(bad for bad in list(globals().values()) if isinstance(bad, BadApp)),
]
