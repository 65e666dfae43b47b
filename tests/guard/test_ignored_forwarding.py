from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_m9m import M9M
from flask_m9m.guard.ignored_forwarding import (
    FAR,
    NEAR,
    IgnoredField,
    IgnoredForwardingLog,
    make_ignored_forwarding_log,
)
from flask_m9m.http.address import AddressResolver, ProxyHeader
from flask_m9m.processes.shared_directory import SharedDirectory
from flask_m9m.testing import Clock, make_settings

APP = ("app", "/instance")


@pytest.fixture
def directory(tmp_path: Path) -> SharedDirectory:
    return SharedDirectory(str(tmp_path / "limits"), APP)


@pytest.fixture
def ignored(directory: SharedDirectory, clock: Clock) -> IgnoredForwardingLog:
    return IgnoredForwardingLog(ProxyHeader.X_FORWARDED, directory, clock)


def look(
    ignored: IgnoredForwardingLog, peer: str, field: str = "X_FORWARDED_FOR", *trusted: str
) -> None:
    environ: dict[str, Any] = {
        "REMOTE_ADDR": peer,
        "wsgi.url_scheme": "http",
        f"HTTP_{field}": "for=192.0.2.1",
    }
    ignored.check(environ, AddressResolver(trusted).resolve(environ))


def test_a_field_from_a_peer_that_is_not_trusted_is_noted(
    ignored: IgnoredForwardingLog, clock: Clock
) -> None:
    look(ignored, "10.0.0.7")
    look(ignored, "8.8.8.8")
    assert ignored.seen() == [
        IgnoredField(FAR, "8.8.8.8", clock()),
        IgnoredField(NEAR, "10.0.0.7", clock()),
    ]


def test_a_trusted_proxys_field_is_not(ignored: IgnoredForwardingLog) -> None:
    look(ignored, "10.0.0.7", "X_FORWARDED_FOR", "10.0.0.0/8")
    assert ignored.seen() == []


def test_only_the_configured_field_counts(
    directory: SharedDirectory, ignored: IgnoredForwardingLog
) -> None:
    look(ignored, "10.0.0.7", "FORWARDED")
    assert ignored.seen() == []
    other = IgnoredForwardingLog(ProxyHeader.FORWARDED, directory)
    look(other, "10.0.0.7", "FORWARDED")
    assert [one.peer for one in ignored.seen()] == ["10.0.0.7"]


def test_a_unix_socket_is_near(ignored: IgnoredForwardingLog) -> None:
    look(ignored, "")
    assert [(one.kind, one.peer) for one in ignored.seen()] == [(NEAR, "unix")]


def test_it_is_noted_once_an_hour_and_logged_once(
    ignored: IgnoredForwardingLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    look(ignored, "10.0.0.7")
    clock.advance(3_599)
    look(ignored, "10.0.0.8")
    assert [one.peer for one in ignored.seen()] == ["10.0.0.7"]
    clock.advance(1)
    look(ignored, "10.0.0.8")
    assert [one.peer for one in ignored.seen()] == ["10.0.0.8"]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "X-Forwarded-For from 10.0.0.7 was ignored: this peer is not trusted. If it is your proxy: "
        'server: {trusted_proxies: ["10.0.0.7"]}'
    )


FROZEN = '{"near": ["10.0.0.7", 1750000000.0], "far": ["8.8.8.8", 1750003600.5]}'


def test_the_file_is_frozen_byte_for_byte(directory: SharedDirectory) -> None:
    times = iter([1_750_000_000.0, 1_750_003_600.5])
    ignored = IgnoredForwardingLog(ProxyHeader.X_FORWARDED, directory, lambda: next(times))
    look(ignored, "10.0.0.7")
    look(ignored, "8.8.8.8")
    [path] = directory.path.iterdir()
    assert path.read_bytes() == FROZEN.encode("ascii")
    assert path.name.partition("-")[2] == "sightings.json"


def test_a_file_of_the_frozen_bytes_is_read(
    ignored: IgnoredForwardingLog, directory: SharedDirectory
) -> None:
    directory.make()
    path = directory.path_of("sightings.json")
    path.write_text(FROZEN)
    path.chmod(0o600)
    assert ignored.seen() == [
        ("far", "8.8.8.8", 1_750_003_600.5),
        ("near", "10.0.0.7", 1_750_000_000.0),
    ]


def test_the_file_is_its_owners_alone(
    ignored: IgnoredForwardingLog, directory: SharedDirectory
) -> None:
    look(ignored, "10.0.0.7")
    [path] = directory.path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_directory_that_is_not_safe_disturbs_no_request(
    ignored: IgnoredForwardingLog, directory: SharedDirectory
) -> None:
    directory.path.mkdir()
    directory.path.chmod(0o777)
    look(ignored, "10.0.0.7")
    assert list(directory.path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", '{"near": 7}', '{"near": ["\\u001b[2J", 1]}', "\0"])
def test_a_damaged_file_says_nothing(
    ignored: IgnoredForwardingLog, directory: SharedDirectory, text: str
) -> None:
    directory.make()
    path = directory.path_of("sightings.json")
    path.write_text(text)
    path.chmod(0o600)
    assert ignored.seen() == []


def test_a_link_in_its_place_is_not_read(
    ignored: IgnoredForwardingLog, directory: SharedDirectory, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text('{"near": ["10.0.0.7", 1]}')
    elsewhere.chmod(0o600)
    directory.make()
    os.symlink(elsewhere, directory.path_of("sightings.json"))
    assert ignored.seen() == []


def test_an_app_under_test_leaves_nothing_behind(tmp_path: Path) -> None:
    private = make_ignored_forwarding_log(
        ProxyHeader.X_FORWARDED, str(tmp_path / "x"), APP, private=True
    )
    look(private, "10.0.0.7")
    assert private.seen() == []
    assert not (tmp_path / "x").exists()


def test_an_apps_requests_are_looked_at(tmp_path: Path) -> None:
    app = Flask("app")
    limiting = {"rate_limit": {"path": str(tmp_path / "limits")}}
    M9M(app, settings=make_settings({"performance": limiting}))
    client = app.test_client()
    client.get("/")
    guard = app.extensions["m9m"].guard
    assert guard.ignored_forwarding.seen() == []
    client.get("/", headers={"X-Forwarded-For": "192.0.2.1"})
    assert [(one.kind, one.peer) for one in guard.ignored_forwarding.seen()] == [
        (NEAR, "127.0.0.1")
    ]


def test_what_proxy_fix_has_read_already_is_none(tmp_path: Path) -> None:
    app = Flask("app")
    limiting = {"rate_limit": {"path": str(tmp_path / "limits")}}
    M9M(app, settings=make_settings({"performance": limiting}))
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    app.test_client().get("/", headers={"X-Forwarded-For": "192.0.2.1"})
    assert app.extensions["m9m"].guard.ignored_forwarding.seen() == []
