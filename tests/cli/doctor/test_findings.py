"""Findings: each is reported for a bad app, and not for the mended app."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from flask_m9m.cli.doctor.examination import CHECKS, KINDS, examine, report
from flask_m9m.cli.doctor.findings import Finding, Severity
from flask_m9m.cli.doctor.subject import Check, Subject
from flask_m9m.errors import DatabaseUnavailable
from flask_m9m.settings import settings_of
from tests.cli.doctor.bad_apps import (
    BAD_APPS,
    GIT,
    BadApp,
    close_all,
    commit,
    fresh,
    nested,
    secured,
    subject,
    with_database,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory: empty, and outside of any git repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    close_all()


def found(subject: Subject) -> set[str]:
    return {finding.id for finding in examine(subject)}


def build(bad: BadApp, request: pytest.FixtureRequest, *, mended: bool) -> Subject:
    if bad.ids & {"secret-tracked", "database-tracked", "secret-unignored"} and GIT is None:
        pytest.skip("git is not installed")
    servers = [request.getfixturevalue(bad.needs)] if bad.needs else []
    return bad.build(Path.cwd(), mended, *servers)


@pytest.mark.parametrize("bad", BAD_APPS, ids=lambda bad: bad.name)
def test_a_bad_app_has_its_findings(bad: BadApp, request: pytest.FixtureRequest) -> None:
    examined = build(bad, request, mended=False)
    findings = list(examine(examined))
    assert bad.ids <= {finding.id for finding in findings}
    shown = "\n".join(f"{finding.where}\n{finding.why}\n{finding.fix}" for finding in findings)
    assert not [secret for secret in _secrets(examined) if secret in shown]
    for check in CHECKS:
        assert {finding.id for finding in check.examine(examined)} <= {
            kind.id for kind in check.kinds
        }


def _secrets(examined: Subject) -> list[str]:
    settings = examined.settings
    given = [
        settings.security.jwt.secret,
        *settings.security.jwt.previous_secrets,
        settings.credentials.encryption_key,
        *settings.credentials.previous_keys,
        settings.security.basic_auth.password,
    ]
    return [secret.get_secret_value() for secret in given if secret is not None]


@pytest.mark.parametrize("bad", BAD_APPS, ids=lambda bad: bad.name)
def test_a_mended_app_has_no_such_findings(bad: BadApp, request: pytest.FixtureRequest) -> None:
    left = [
        finding for finding in examine(build(bad, request, mended=True)) if finding.id in bad.ids
    ]
    assert not left


def test_the_bad_apps_together_have_every_finding() -> None:
    # These three come from an app or a check that does not work, and have tests of their own.
    elsewhere = {"start-refused", "app-not-loaded", "check-failed"}
    assert {id for bad in BAD_APPS for id in bad.ids} | elsewhere == {kind.id for kind in KINDS}


def test_a_check_that_fails_is_a_finding_and_hides_no_other(folder: Path) -> None:
    def broken(_: Subject) -> Iterator[Finding]:
        yield Finding("before", Severity.LOW, "here", "why", "fix")
        raise ZeroDivisionError("with something secret in it")

    app, _ = secured(folder, nested({"security.lockout.enabled": False}))
    checks = [Check("sums", (), broken), *CHECKS]
    findings = {finding.id: finding for finding in examine(subject(app), checks)}
    assert {"before", "check-failed", "lockout-off"} <= set(findings)
    failed = findings["check-failed"]
    assert failed.where == "check sums"
    assert "ZeroDivisionError" in failed.why
    assert "secret" not in failed.why


def test_marks_that_stop_the_start_are_critical_and_the_settings_are_examined(
    folder: Path,
) -> None:
    from flask_m9m import public, require_auth

    app, _ = secured(folder, nested({"security.lockout.enabled": False}))
    app.add_url_rule("/x", "x", public(require_auth(lambda: "x")))
    findings = list(examine(subject(app)))
    [refused] = {finding for finding in findings if finding.id == "start-refused"}
    assert refused.severity is Severity.CRITICAL
    assert "@public" in refused.why
    assert "lockout-off" in {finding.id for finding in findings}


def test_a_secure_app_has_no_findings(folder: Path) -> None:
    app, _ = secured(folder)
    assert found(subject(app)) == {"secret-in-plain"}  # for the test gives it in a mapping


def test_a_missing_database_is_not_created(folder: Path) -> None:
    app, _ = secured(folder)
    list(examine(subject(app)))
    assert not (folder / "instance").exists()


@pytest.mark.parametrize("backend", ["database", "redis"])
def test_a_silent_server_is_found_within_seconds(folder: Path, backend: str) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        settings: dict[str, Any] = {"database.url": f"postgresql://127.0.0.1:{port}/x"}
        if backend == "redis":
            section = "performance.rate_limit"
            settings = {
                f"{section}.storage": "redis",
                f"{section}.redis_url": f"redis://127.0.0.1:{port}/0",
            }
        app, _ = secured(folder, nested(settings))
        begun = time.monotonic()
        ids = found(subject(app))
        assert f"{backend}-unreachable" in ids
        assert "check-failed" not in ids
        assert time.monotonic() - begun < 8


def test_the_order_does_not_depend_on_the_order_of_the_checks(folder: Path) -> None:
    app, _ = secured(folder, nested({"security.lockout.enabled": False, "server.host": "::"}))
    findings = list(examine(subject(app)))
    ordered = report(findings).findings
    assert ordered == report(reversed(findings)).findings
    ranks = [finding.severity.rank for finding in ordered]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) > 1


def test_ignored_findings_cost_no_points(folder: Path) -> None:
    app, _ = secured(folder, nested({"security.lockout.enabled": False}))
    findings = list(examine(subject(app)))
    everything, less = report(findings), report(findings, ["lockout-off", "tls-off"])
    assert less.ignored == ("lockout-off",)
    assert less.score == everything.score + Severity.HIGH.points
    assert "lockout-off" not in {finding.id for finding in less.findings}


def test_a_proxy_that_became_trusted_is_no_finding(folder: Path) -> None:
    def seen(*proxies: str, now: float = 0.0) -> set[str]:
        app, _ = secured(folder, nested({"server.trusted_proxies": list(proxies)}))
        return found(subject(app, lambda: now or time.time())) & {"proxy-not-trusted"}

    app, _ = secured(folder)
    app.test_client().get("/", headers={"X-Forwarded-For": "192.0.2.1"})
    assert seen() == {"proxy-not-trusted"}
    assert seen("127.0.0.0/8") == set()
    assert seen(now=time.time() + 31 * 86_400) == set()


def test_the_score_is_at_least_0() -> None:
    finding = [Finding("x", Severity.CRITICAL, str(n), "why", "fix") for n in range(9)]
    assert report(finding).score == 0


def test_yaml_in_fixes_is_valid_settings() -> None:
    sections = "server|security|performance|development|metrics|audit"
    fixes = [
        line
        for kind in KINDS
        for line in re.findall(rf"\b((?:{sections}): \{{.*?\}}+)", kind.fix)
        if "<" not in line
    ]
    assert len(fixes) > 20
    for line in fixes:
        settings_of(yaml.safe_load(line))


def test_ids_are_unique() -> None:
    ids = [kind.id for kind in KINDS]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id) for id in ids)


def test_a_fix_runs_no_command_from_a_name(tmp_path: Path) -> None:
    app, m9m = secured(tmp_path)
    hostile = "it's $(touch run) `touch run`; touch run"
    with app.app_context():
        m9m.api_keys.create(hostile, hostile, ["a:b"], ["r"], rate_limit="5/minute")
    (fix,) = [
        finding.fix for finding in examine(subject(app)) if finding.id == "key-without-expiry"
    ]
    command = fix.partition(", put the new key")[0]
    words = shlex.split(command)
    assert words[4:] == [
        *(hostile, "--owner", hostile, "--scope", "a:b", "--role", "r"),
        *("--rate-limit", "5/minute", "--expires", "90d"),
    ]
    quiet = f"true {command.removeprefix('flask')}"
    subprocess.run(["sh", "-c", quiet], check=True, cwd=tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(GIT is None, reason="git is not installed")
@pytest.mark.parametrize("names", [".", ".gitignore"], ids=["tracked", "untracked"])
def test_the_printed_commands_untrack_and_ignore(folder: Path, names: str) -> None:
    app = with_database(folder)
    log = folder / "instance" / "m9m" / "m9m.db-wal"
    log.write_bytes(b"")
    commit(folder, "venv", names)  # without a newline at the end
    examined = subject(app)
    ids = {"secret-tracked", "database-tracked", "secret-unignored"}
    findings = [finding for finding in examine(examined) if finding.id in ids]
    assert sorted(finding.where for finding in findings) == [".env", "instance/m9m/m9m.db"]
    for finding in findings:
        command = finding.fix.partition("; commit")[0]
        subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert not found(examined) & ids
    assert "venv" in (folder / ".gitignore").read_text().splitlines()
    assert subprocess.run(["git", "ls-files"], capture_output=True).stdout == b".gitignore\n"


def test_a_trail_that_needs_another_key_is_found(tmp_path: Path) -> None:
    def made(key: str, *previous: str) -> Subject:
        keys = {"encryption_key": key, "previous_keys": list(previous)}
        audit = {"sinks": ["database"]}
        url = f"sqlite:///{tmp_path / 'm9m.db'}"
        overrides = {"audit": audit, "credentials": keys, "database": {"url": url}}
        app, m9m = secured(tmp_path, overrides)
        with app.app_context(), suppress(DatabaseUnavailable):
            m9m.audit.record("begun")
        return subject(app)

    first, second = fresh(), fresh()
    assert not found(made(first)) & {"credentials-unreadable", "credentials-under-retired-key"}
    without = found(made(second))
    assert "credentials-unreadable" in without
    assert "audit-broken" not in without  # the trail itself is intact
    assert "credentials-under-retired-key" in found(made(second, first))
