from __future__ import annotations

import os
import stat
import struct
import sys
import time
import zlib
from collections.abc import Callable
from fcntl import LOCK_EX, flock
from hashlib import blake2b, sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask

from flask_m9m import M9M
from flask_m9m.errors import SettingsError
from flask_m9m.processes import shared_directory
from flask_m9m.processes.shared_directory import SharedDirectory
from flask_m9m.ratelimit import RateLimit, StoreFailure
from flask_m9m.ratelimit.limit_files import HEADER
from flask_m9m.ratelimit.shared import SharedStore
from flask_m9m.ratelimit.shared_file import open_file
from flask_m9m.testing import make_settings
from tests.ratelimit.actor import APP, HOURLY, files_in, store_in
from tests.ratelimit.test_shared import SECOND, FakeClock, actor

FILE_KEY = bytes(range(16))
FROZEN_HEADER = (
    b"m9m-rl-1"
    b"\x00\x40\0\0\0\0\0\0"
    b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
    b"\x13\0"
    b"100/3600 100 hourly" + bytes(4_039) + b"\xab-F;"
)
FROZEN_BUCKET_AT = 290_688
FROZEN_SLOT = bytes.fromhex("bf488e57acdca937 0061cad6e8000000")
FROZEN_SIZE = 2_101_248

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no POSIX locks on this system"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # children do nothing else
]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a limit's file lies, or will."""
    tmp_path.joinpath("limits").mkdir(0o700)
    return files_in(tmp_path / "limits").path_of(HOURLY)


def hit(path: Path) -> int:
    return store_in(path.parent).hit(HOURLY, "client").remaining


def test_a_file_is_made_for_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o277)
    try:
        store_in(tmp_path / "limits").hit(HOURLY, "client")
    finally:
        os.umask(before)
    (file,) = (tmp_path / "limits").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_nlink == 1


def test_all_the_space_is_there_from_the_start(path: Path) -> None:
    hit(path)
    assert path.stat().st_blocks * 512 >= path.stat().st_size


@pytest.mark.parametrize(
    "limit",
    [RateLimit(10**16, 1, 1), RateLimit(10**6, 1, 31 * 10**14), RateLimit(1, 3_153_600_000, 1)],
)
def test_a_limit_of_any_numbers_has_a_file(path: Path, limit: RateLimit) -> None:
    assert store_in(path.parent).hit(limit, "client").remaining == limit.burst - 1
    assert open_file(files_in(path.parent), limit).limit.key == limit.key


def test_a_file_that_cannot_be_read_back_leaves_no_descriptor_open(path: Path) -> None:
    store, limit = store_in(path.parent), RateLimit(10**3_500, 1, 1)
    before = os.dup(0)
    os.close(before)
    with pytest.raises(StoreFailure):
        store.hit(limit, "client")
    after = os.dup(0)
    os.close(after)
    assert after == before


def test_another_user_has_files_of_their_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    assert files_in(path.parent).path_of(HOURLY) != path


def test_all_who_come_at_once_meet_in_one_file(tmp_path: Path) -> None:
    processes = [actor("count", tmp_path / "limits", 4, 10) for _ in range(6)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert not any(errors for _, errors in answers)
    assert sum(int(admitted) for admitted, _ in answers) == HOURLY.burst
    assert len(list((tmp_path / "limits").iterdir())) == 1


def test_what_is_counted_outlives_the_processes(path: Path) -> None:
    for left in ("99", "98"):
        process = actor("count", path.parent, 1, 1)
        assert process.communicate(timeout=30) == ("1\n", "")
        assert store_in(path.parent).peek(HOURLY, "client").remaining == int(left)


@pytest.mark.parametrize(
    "other",
    [("elsewhere", "/instance"), ("app", "/elsewhere"), ("app/instance", "")],
)
def test_apps_are_told_apart_by_import_name_and_instance_path(
    tmp_path: Path, other: tuple[str, str]
) -> None:
    store_in(tmp_path / "limits").hit(HOURLY, "client", 60)
    others = SharedStore(SharedDirectory(str(tmp_path / "limits"), other))
    assert others.peek(HOURLY, "client").remaining == HOURLY.burst


def test_what_was_counted_before_the_machine_started_is_not_read(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hit(path)
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another")
    monkeypatch.setattr(shared_directory, "_BOOT_ID", boot_id)
    assert hit(path) == HOURLY.burst - 1
    boot_id.unlink()
    assert hit(path) == HOURLY.burst - 1  # a system that has none


@pytest.mark.parametrize(
    "limit",
    [
        RateLimit(101, 3_600, 100, "hourly"),
        RateLimit(100, 3_601, 100, "hourly"),
        RateLimit(100, 3_600, 101, "hourly"),
        RateLimit(100, 3_600, 100, "other"),
        RateLimit(100, 3_600, 100, "hourly", "é" * 5_000),
    ],
)
def test_each_different_limit_has_a_file(path: Path, limit: RateLimit) -> None:
    store = store_in(path.parent)
    store.hit(HOURLY, "client", 60)
    assert store.hit(limit, "client").remaining == limit.burst - 1
    assert len(list(path.parent.iterdir())) == 2
    assert {one.limit.burst for one in store.spenders()} == {HOURLY.burst, limit.burst}


def test_no_app_fills_the_disk_with_limits_that_it_makes_up(tmp_path: Path) -> None:
    store = store_in(tmp_path / "limits")
    for burst in range(1, 257):
        store.hit(RateLimit(1, 60, burst), "client")
    with pytest.raises(StoreFailure, match="more than 256 different limits"):
        store.hit(RateLimit(1, 60, 257), "client")
    assert store.hit(RateLimit(1, 60, 7), "other").admitted
    assert len(list((tmp_path / "limits").iterdir())) == 256


# The format


@pytest.fixture
def known_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have new files get the key `FILE_KEY`."""
    known = SimpleNamespace(token_bytes=lambda size: FILE_KEY[:size])
    monkeypatch.setattr("flask_m9m.ratelimit.limit_files.secrets", known)


@pytest.mark.usefixtures("known_key")
def test_the_header_of_a_file_is_frozen_byte_for_byte(path: Path) -> None:
    assert zlib.crc32(FROZEN_HEADER[:4_092]).to_bytes(4, "little") == FROZEN_HEADER[4_092:]
    store_in(path.parent).prepare([HOURLY])
    assert path.read_bytes() == FROZEN_HEADER + bytes(FROZEN_SIZE - 4_096)
    name = sha256(b"m9m-rl-1\x002101248\x00100/3600 100 hourly").hexdigest()[:20]
    assert path.name.partition("-")[2] == f"{name}.limit" == "8a4d45241ff03b22857e.limit"


@pytest.mark.usefixtures("known_key")
def test_the_slot_of_a_client_is_frozen_byte_for_byte(path: Path) -> None:
    tag = blake2b(b"client", digest_size=8, key=FILE_KEY).digest()
    assert 4_096 + int.from_bytes(tag, "little") % 16_384 * 128 == FROZEN_BUCKET_AT
    assert struct.pack("<8sQ", tag, 10**12 + 36 * SECOND) == FROZEN_SLOT  # a token in 36 seconds
    store = SharedStore(SharedDirectory(str(path.parent), APP), FakeClock())
    store.hit(HOURLY, "client")
    buckets = path.read_bytes()[4_096:]
    at = FROZEN_BUCKET_AT - 4_096
    assert buckets[at : at + 16] == FROZEN_SLOT
    assert not any(buckets[:at])
    assert not any(buckets[at + 16 :])
    store.reset(HOURLY, "client")
    assert path.read_bytes()[FROZEN_BUCKET_AT:][:16] == FROZEN_SLOT[:8] + bytes(8)


@pytest.mark.parametrize("slot", range(8))
def test_a_file_of_the_frozen_bytes_is_read(path: Path, slot: int) -> None:
    data = bytearray(FROZEN_HEADER + bytes(FROZEN_SIZE - 4_096))
    at = FROZEN_BUCKET_AT + 16 * slot
    data[at : at + 16] = FROZEN_SLOT
    path.write_bytes(data)
    path.chmod(0o600)
    store = SharedStore(SharedDirectory(str(path.parent), APP), FakeClock())
    assert store.peek(HOURLY, "client").remaining == HOURLY.burst - 1
    (spender,) = store.spenders()
    assert (spender.limit.key, spender.client_id) == (HOURLY.key, "37a9dcac578e48bf")


# What is not ours


def plant_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(bytes(HEADER))
    target.chmod(0o600)
    path.symlink_to(target)


def plant_second_name(path: Path) -> None:
    hit(path)
    path.with_name("second").hardlink_to(path)


def plant_readable(path: Path) -> None:
    hit(path)
    path.chmod(0o640)


def plant_foreign(path: Path) -> None:
    hit(path)
    os.chown(path, 12_345, -1)


PLANTED = [
    pytest.param(plant_link, id="link"),
    pytest.param(plant_second_name, id="second name"),
    pytest.param(plant_readable, id="readable"),
    pytest.param(os.mkfifo, id="pipe"),
    pytest.param(Path.mkdir, id="directory"),
    pytest.param(plant_foreign, id="foreign", marks=as_root),
]


@pytest.mark.parametrize("plant", PLANTED)
def test_what_is_planted_under_the_name_of_a_file_stops_the_start_and_closes_later(
    path: Path, plant: Callable[[Path], None]
) -> None:
    plant(path)
    store = store_in(path.parent)
    with pytest.raises(SettingsError, match=r"performance\.rate_limit\.path.*mode 0600"):
        store.prepare([HOURLY])
    with pytest.raises(StoreFailure) as failure:
        store.hit(HOURLY, "client")
    assert failure.value.unsafe
    with pytest.raises(StoreFailure) as failure:
        list(store.spenders())
    assert failure.value.unsafe


def link_directory(path: Path) -> None:
    path.with_name("target").mkdir(0o700)
    path.symlink_to(path.with_name("target"))


def open_to_others(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


def give_away(path: Path) -> None:
    path.mkdir(0o700)
    os.chown(path, 12_345, -1)


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(link_directory, id="link"),
        pytest.param(open_to_others, id="open"),
        pytest.param(Path.touch, id="file"),
        pytest.param(give_away, id="foreign", marks=as_root),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_directory_that_is_not_ours_alone_stops_the_start(
    shared_memory: Path, plant: Callable[[Path], None], named: bool
) -> None:
    path = shared_memory / f"flask-m9m-{os.geteuid()}"
    plant(path)
    app = Flask("app")
    limiting = {"enabled": True, "path": str(path) if named else None}
    M9M(app, settings=make_settings({"performance": {"rate_limit": limiting}}))
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"performance\.rate_limit\.path"):
            app.test_client().get("/")


def test_others_may_look_into_a_directory_that_was_named_but_not_into_our_own(
    shared_memory: Path,
) -> None:
    path = shared_memory / f"flask-m9m-{os.geteuid()}"
    path.mkdir()
    path.chmod(0o755)
    assert SharedStore(SharedDirectory(str(path), APP)).hit(HOURLY, "client").admitted
    with pytest.raises(StoreFailure, match="mode 0755") as failure:
        SharedStore(SharedDirectory(None, APP)).hit(HOURLY, "client")
    assert failure.value.unsafe


# The life of a file


def test_a_file_that_is_gone_is_noticed_within_a_second(path: Path) -> None:
    clock = FakeClock()
    store = SharedStore(SharedDirectory(str(path.parent), APP), clock)
    store.hit(HOURLY, "client")
    path.unlink()
    assert store.hit(HOURLY, "client").remaining == HOURLY.burst - 2
    clock.now += SECOND + 1
    assert store.hit(HOURLY, "client").remaining == HOURLY.burst - 1
    assert path.exists()


def test_a_file_that_was_replaced_is_the_one_that_counts(path: Path, tmp_path: Path) -> None:
    clock = FakeClock()
    store = SharedStore(SharedDirectory(str(path.parent), APP), clock)
    store.hit(HOURLY, "client")
    path.rename(tmp_path / "aside")
    other = SharedStore(SharedDirectory(str(path.parent), APP), clock)
    other.hit(HOURLY, "client", 50)
    clock.now += SECOND + 1
    assert store.hit(HOURLY, "client").remaining == HOURLY.burst - 51
    (tmp_path / "aside").rename(path)  # the process has it open still
    clock.now += SECOND + 1
    assert store.hit(HOURLY, "client").remaining == HOURLY.burst - 2


def test_a_file_that_is_cut_short_kills_nobody_and_is_made_anew(path: Path) -> None:
    process = actor("cut", path.parent)
    assert process.communicate(timeout=30) == (f"failed\n{HOURLY.burst - 1}\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("at", [0, 8, 20, 32, 40, HEADER - 1])
def test_a_file_with_a_damaged_header_is_made_anew(path: Path, at: int) -> None:
    hit(path)
    with path.open("r+b") as file:  # of no use to those who hold its locks: nobody does
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    assert hit(path) == HOURLY.burst - 1
    assert hit(path) == HOURLY.burst - 2
    assert len(list(path.parent.iterdir())) == 1


def test_a_file_that_has_grown_is_made_anew(path: Path) -> None:
    hit(path)
    os.truncate(path, path.stat().st_size + 1)
    assert hit(path) == HOURLY.burst - 1


def test_who_builds_second_replaces_nothing(path: Path) -> None:
    hit(path)
    before = path.stat().st_ino
    assert files_in(path.parent).build(HOURLY) is None
    assert files_in(path.parent).build(HOURLY, before + 1) is None
    assert path.stat().st_ino == before
    assert len(list(path.parent.iterdir())) == 1


def test_nobody_replaces_a_damaged_file_while_another_process_does(path: Path) -> None:
    path.touch(0o600)
    damaged = path.stat().st_ino
    descriptor = os.open(path.parent, os.O_RDONLY)
    flock(descriptor, LOCK_EX)
    assert files_in(path.parent).build(HOURLY, damaged) is None
    os.close(descriptor)
    assert path.stat().st_ino == damaged
    assert hit(path) == HOURLY.burst - 1


def test_a_child_looks_at_what_it_inherits_before_it_writes(path: Path) -> None:
    """Daemons close what they have open, and open other files under the same numbers."""
    store = store_in(path.parent)
    store.hit(HOURLY, "client")
    descriptor = open_file(files_in(path.parent), HOURLY).descriptor
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    child = os.fork()
    if not child:
        status = 255
        try:
            stranger = os.open(other, os.O_RDWR)
            os.dup2(stranger, descriptor)
            status = store.hit(HOURLY, "client").remaining
        finally:
            os._exit(status)
    remaining = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert remaining == HOURLY.burst - 2
    assert not any(other.read_bytes())


def test_damaged_slots_shut_nobody_out(path: Path) -> None:
    hit(path)
    with path.open("r+b") as file:
        file.seek(HEADER)
        file.write(b"\xff" * (path.stat().st_size - HEADER))
    assert hit(path) == HOURLY.burst - 1


def test_without_space_it_is_a_failure_and_nothing_is_left(path: Path) -> None:
    process = actor("full", path.parent)
    said, errors = process.communicate(timeout=30)
    assert "File too large" in said
    assert not errors
    assert not list(path.parent.iterdir())


def test_where_no_directory_can_be_made_it_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StoreFailure, match="No such file or directory"):
        store_in(tmp_path / "missing" / "limits").hit(HOURLY, "client")
    store_in(tmp_path / "missing" / "limits").prepare([HOURLY])  # it may be there later


def test_a_builder_that_was_killed_leaves_nothing_that_hinders(path: Path) -> None:
    hit(path)
    draft = path.with_name(f".{path.name}.0123456789abcdef")
    draft.hardlink_to(path)  # killed after the link and before the draft was removed
    store_in(path.parent).prepare([HOURLY])
    assert hit(path) == HOURLY.burst - 2
    assert not draft.exists()


def test_drafts_are_removed_once_they_are_old(path: Path) -> None:
    old, fresh = (path.with_name(f".{path.name}.{number:016x}") for number in range(2))
    old.touch()
    fresh.touch()
    os.utime(old, (time.time() - 120, time.time() - 120))
    hit(path)
    assert not old.exists()
    assert fresh.exists()


def test_a_descriptor_that_somebody_closed_is_no_longer_used(path: Path) -> None:
    """Daemons close what they have open; the number may be another file's since."""
    clock = FakeClock()
    store = SharedStore(SharedDirectory(str(path.parent), APP), clock)
    store.hit(HOURLY, "client")
    descriptor = open_file(files_in(path.parent), HOURLY).descriptor
    other = path.with_name("other")
    other.write_bytes(bytes(HEADER + 16_384 * 128))
    stranger = os.open(other, os.O_RDWR)
    os.dup2(stranger, descriptor)
    os.close(stranger)
    clock.now += SECOND + 1
    assert store.hit(HOURLY, "client").remaining == HOURLY.burst - 2
    assert not any(other.read_bytes())
    os.close(descriptor)


def test_a_closed_descriptor_is_a_failure_and_then_opened_anew(path: Path) -> None:
    store = store_in(path.parent)
    store.hit(HOURLY, "client")
    os.close(open_file(files_in(path.parent), HOURLY).descriptor)
    with pytest.raises(StoreFailure, match="Bad file descriptor"):
        store.hit(HOURLY, "client")
    assert store.hit(HOURLY, "client").remaining == HOURLY.burst - 2
