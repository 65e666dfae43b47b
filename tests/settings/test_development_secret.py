from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flask_m9m.errors import SettingsError
from flask_m9m.settings import development_secret
from flask_m9m.settings.development_secret import dev_secret, with_secret
from flask_m9m.settings.models import Settings
from flask_m9m.settings.sources import settings_of

SECRET = "0123456789abcdef" * 4


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    return tmp_path / "instance"


@pytest.fixture
def file(instance: Path) -> Path:
    """Where the secret of `instance` is kept; its folder exists, the file does not."""
    folder = instance / "m9m"
    folder.mkdir(parents=True, mode=0o700)
    return folder / "dev-secret"


def write(file: Path, text: str = SECRET, mode: int = 0o600) -> None:
    file.write_text(text, "utf-8")
    file.chmod(mode)


def secret_of(instance: Path) -> str:
    secret, path = dev_secret(str(instance))
    assert path == instance / "m9m" / "dev-secret"
    return secret.get_secret_value()


def refusal(instance: Path) -> str:
    """Read a secret that must be refused; return the reason that the message gives."""
    with pytest.raises(SettingsError) as caught:
        dev_secret(str(instance))
    [problem] = caught.value.problems
    assert problem.path == "security.jwt.secret"
    assert "M9M_JWT_SECRET" in problem.accepted
    assert SECRET not in str(caught.value)
    path, _, found = problem.found.partition(": ")
    assert path == str(instance / "m9m" / "dev-secret")
    return found


def development(**jwt: Any) -> Settings:
    return settings_of({"development": {"enabled": True}, "security": {"jwt": jwt}})


# The file


def test_the_secret_is_made_once_and_then_read(instance: Path) -> None:
    first = secret_of(instance)
    assert len(first) == 64
    assert set(first) <= set("0123456789abcdef")
    assert [secret_of(instance) for _ in range(3)] == [first] * 3
    assert (instance / "m9m" / "dev-secret").read_text() == first


def test_each_instance_has_a_secret_of_its_own(tmp_path: Path) -> None:
    assert len({secret_of(tmp_path / name) for name in "abc"}) == 3


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_file_and_its_folder_are_this_users_alone_under_any_umask(
    instance: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        secret_of(instance)
    finally:
        os.umask(before)
    file = instance / "m9m" / "dev-secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file.stat().st_nlink == 1
    assert os.listdir(file.parent) == ["dev-secret"]


def test_a_secret_that_is_there_is_kept_to_the_letter(instance: Path, file: Path) -> None:
    write(file)
    before = file.stat()
    assert secret_of(instance) == SECRET
    assert file.stat().st_ino == before.st_ino
    assert file.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777])
def test_a_file_that_others_may_use_is_refused_and_left_as_it_is(
    instance: Path, file: Path, mode: int
) -> None:
    write(file, mode=mode)
    assert refusal(instance) == "other users can access it"
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert file.read_text() == SECRET


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_that_is_this_users_alone_is_read(instance: Path, file: Path, mode: int) -> None:
    write(file, mode=mode)
    assert secret_of(instance) == SECRET


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET[:-1],
        SECRET + "0",
        SECRET + "\n",
        SECRET * 1000,
        " " * 64,
        "\0" * 64,
        SECRET[:-1] + "ä",
        SECRET[:-1] + "\u0663",
        SECRET[:-1] + "-",
        "-----BEGIN PRIVATE KEY-----".ljust(64, "A"),
    ],
    ids=range(11),
)
def test_a_file_that_holds_something_else_is_refused_and_left_as_it_is(
    instance: Path, file: Path, text: str
) -> None:
    write(file, text)
    assert refusal(instance) == "it does not contain a secret"
    assert file.read_text("utf-8") == text


# Links and other things in its place


def test_a_link_to_a_good_secret_is_not_followed(instance: Path, file: Path) -> None:
    elsewhere = instance / "elsewhere"
    write(elsewhere)
    file.symlink_to(elsewhere)
    assert refusal(instance) == os.strerror(errno.ELOOP)


def test_nothing_is_written_where_a_dangling_link_leads(instance: Path, file: Path) -> None:
    elsewhere = instance / "elsewhere"
    file.symlink_to(elsewhere)
    refusal(instance)
    assert not elsewhere.exists()
    assert os.listdir(file.parent) == ["dev-secret"]


def test_a_link_to_itself_is_refused(instance: Path, file: Path) -> None:
    file.symlink_to(file)
    assert refusal(instance) == os.strerror(errno.ELOOP)


def test_a_folder_in_its_place_is_refused(instance: Path, file: Path) -> None:
    file.mkdir(mode=0o700)
    assert refusal(instance) == os.strerror(errno.EISDIR)


def test_a_file_in_the_folders_place_is_refused(instance: Path) -> None:
    instance.mkdir()
    (instance / "m9m").write_text("")
    assert refusal(instance) == os.strerror(errno.EEXIST)


def test_a_file_in_the_instances_place_is_refused(instance: Path) -> None:
    instance.write_text("")
    assert refusal(instance) == os.strerror(errno.ENOTDIR)


# Disks and races


@pytest.mark.parametrize("call", ["link", "open"])
def test_a_disk_that_takes_nothing_leaves_nothing_behind(
    instance: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        assert refusal(instance) == os.strerror(errno.ENOSPC)
    assert os.listdir(instance / "m9m") == []
    assert len(secret_of(instance)) == 64


def test_who_comes_second_takes_the_secret_of_who_came_first(
    instance: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_late(draft: Path, path: Path) -> None:
        write(path)
        link(draft, path)

    monkeypatch.setattr(os, "link", link_late)
    assert secret_of(instance) == SECRET
    assert os.listdir(file.parent) == ["dev-secret"]


@pytest.mark.parametrize("count", [1, 8, 64])
def test_threads_that_start_together_share_one_secret(instance: Path, count: int) -> None:
    barrier = threading.Barrier(count)

    def start(_: int) -> str:
        barrier.wait()
        return secret_of(instance)

    with ThreadPoolExecutor(count) as pool:
        assert len(set(pool.map(start, range(count)))) == 1
    assert os.listdir(instance / "m9m") == ["dev-secret"]


# The settings


def test_development_gets_a_secret_and_says_where_it_is_and_not_what(
    instance: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = with_secret(development(), str(instance))
    assert settings.security.jwt.secret is not None
    secret = settings.security.jwt.secret.get_secret_value()
    assert secret == secret_of(instance)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert str(instance / "m9m" / "dev-secret") in record.getMessage()
    assert secret not in caplog.text
    assert secret not in repr(settings)


def test_nothing_else_of_the_settings_changes(instance: Path) -> None:
    before = development(issuer="me")
    after = with_secret(before, str(instance))
    assert before.security.jwt.secret is None
    jwt = after.security.jwt.model_copy(update={"secret": None})
    security = after.security.model_copy(update={"jwt": jwt})
    assert after.model_copy(update={"security": security}) == before
    assert after.security.jwt.issuer == "me"


@pytest.mark.parametrize("jwt", [{"secret": "x" * 40}, {"enabled": False}])
@pytest.mark.parametrize("wanted", [False, True])
def test_where_a_secret_is_set_or_jwt_is_off_nothing_is_made_or_said(
    instance: Path, caplog: pytest.LogCaptureFixture, jwt: dict[str, Any], wanted: bool
) -> None:
    settings = development(**jwt)
    assert with_secret(settings, str(instance), wanted=wanted) is settings
    assert not instance.exists()
    assert caplog.records == []


def test_outside_of_development_nothing_is_made_and_jwt_is_said_to_be_off(
    instance: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of({})
    assert with_secret(settings, str(instance)) is settings
    assert not instance.exists()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "flask m9m init" in record.getMessage()


def test_an_app_under_debug_gets_a_secret_and_no_more_of_development(instance: Path) -> None:
    settings = with_secret(settings_of({}), str(instance), wanted=True)
    assert settings.security.jwt.secret is not None
    assert settings.security.jwt.secret.get_secret_value() == secret_of(instance)
    assert not settings.development.enabled


def test_a_secret_that_cannot_be_kept_stops_the_start(instance: Path, file: Path) -> None:
    write(file, mode=0o644)
    with pytest.raises(SettingsError):
        with_secret(development(), str(instance))


@pytest.mark.skipif(os.name != "posix", reason="POSIX files")
@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "device"])
def test_what_is_no_file_of_ours_is_refused_at_once(file: Path, instance: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(file, 0o600)
    elif kind == "folder":
        file.mkdir(mode=0o700)
    else:
        target = file.parent / "target"
        write(target)
        file.symlink_to("/dev/zero" if kind == "device" else target)
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        refusal(instance)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.skipif(os.name != "posix", reason="POSIX files")
def test_a_second_hard_link_is_refused(
    file: Path, instance: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(development_secret, "_PATIENCE", 0.0)
    write(file)
    os.link(file, instance / "theirs")
    assert refusal(instance) == "it has another hard link"


@pytest.mark.skipif(os.name != "posix", reason="POSIX files")
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(
    file: Path, instance: Path, mode: int
) -> None:
    write(file)
    file.parent.chmod(mode)
    with pytest.raises(SettingsError, match=r"other users can write to the folder.*go-w"):
        dev_secret(str(instance))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root")
def test_another_users_file_is_refused_to_root_too(file: Path, instance: Path) -> None:
    write(file)
    os.chown(file, 65534, -1)
    assert refusal(instance) == "it belongs to another user"
