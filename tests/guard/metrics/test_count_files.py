"""The files in which processes count: forks, damage, and directories that cannot be used."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_m9m.guard.metrics.counts import Counts
from flask_m9m.guard.request_ids import request_id_of

if sys.platform == "win32":
    pytest.skip("needs fork and flock", allow_module_level=True)

from flask_m9m.guard.metrics.count_files import SIZE, CountFiles
from flask_m9m.guard.metrics.counts import ENTRIES
from flask_m9m.processes.shared_directory import SharedDirectory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shared"


@pytest.fixture
def counts(path: Path) -> Callable[[], Counts]:
    """Return a function that makes counts as another process would."""
    return lambda: Counts(CountFiles(SharedDirectory(str(path), ("app", "instance"))))


def in_child(work: Callable[[], object]) -> str:
    """Return what some work returns in a child process, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def test_a_child_counts_for_itself_and_its_counts_stay(counts: Callable[[], Counts]) -> None:
    own = counts()
    own.add([("a", 1)])

    def work() -> int:
        own.add([("a", 10), ("b", 1)])
        return own.totals()["a"]

    assert in_child(work) == "11"
    own.add([("a", 100)])
    assert own.totals() == {"a": 111, "b": 1}
    assert counts().totals() == {"a": 111, "b": 1}


def frozen(*counts: tuple[bytes, int]) -> bytes:
    """Return the bytes of a file of the magic `m9m-ct-1` with these keys and values."""
    entries = [struct.pack("=Q", value) + key for key, value in counts]
    return b"".join(entry.ljust(128, b"\0") for entry in (b"m9m-ct-1", *entries)).ljust(
        65_536, b"\0"
    )


FROZEN = frozen((b"\x01\0a", 1_000_000), (b"\x03\0b\xc3\xa9", 7), (b"\x76\0" + b"x" * 118, 2))
FROZEN_PAST = '{"counts": {"a": 1000000, "b\\u00e9": 7}, "folded": ["%s"]}'


def test_a_file_is_frozen_byte_for_byte(counts: Callable[[], Counts], path: Path) -> None:
    own = counts()
    own.add([("a", 999_999), ("bé", 7), ("x" * 200, 2), ("a", 1)])
    (file,) = path.glob("*.counts")
    data = file.read_bytes()
    assert data == FROZEN
    if sys.byteorder == "little":
        assert data[128:139] == b"\x40\x42\x0f\0\0\0\0\0\x01\0a"
    assert re.fullmatch(r"[0-9a-f]{20}-[0-9a-f]{16}\.counts", file.name)


def test_a_file_of_the_frozen_bytes_is_counted(counts: Callable[[], Counts], path: Path) -> None:
    own = counts()
    own.add([("a", 1)])
    (file,) = path.glob("*.counts")
    file.with_name(f"{file.name[:20]}-0123456789abcdef.counts").write_bytes(FROZEN)
    assert own.totals() == {"a": 1_000_001, "bé": 7, "x" * 118: 2}


def test_what_ended_processes_counted_is_kept_in_frozen_json(
    counts: Callable[[], Counts], path: Path
) -> None:
    gone = counts()
    gone.add([("a", 1_000_000), ("bé", 7)])
    (left,) = path.glob("*.counts")
    del gone
    assert counts().totals() == {"a": 1_000_000, "bé": 7}
    past = left.with_name(f"{left.name[:20]}-past.json")
    assert past.read_text("ascii") == FROZEN_PAST % left.name


def test_counts_of_the_frozen_json_are_added_and_what_it_includes_is_not(
    counts: Callable[[], Counts], path: Path
) -> None:
    own = counts()
    own.add([("a", 1)])
    (file,) = path.glob("*.counts")
    folded = file.with_name(f"{file.name[:20]}-0123456789abcdef.counts")
    folded.write_bytes(FROZEN)
    file.with_name(f"{file.name[:20]}-past.json").write_text(FROZEN_PAST % folded.name)
    assert own.totals() == {"a": 1_000_001, "bé": 7}
    assert not folded.exists()


def test_a_file_that_was_folded_and_not_removed_is_not_counted_twice(
    counts: Callable[[], Counts], path: Path
) -> None:
    own, gone = counts(), counts()
    own.add([("a", 1)])
    first = {*path.glob("*.counts")}
    gone.add([("a", 10)])
    (left,) = {*path.glob("*.counts")} - first
    data = left.read_bytes()
    del gone
    assert own.totals() == {"a": 11}
    assert not left.exists()
    left.write_bytes(data)  # as if it had died before it removed the file
    assert own.totals() == {"a": 11}
    assert not left.exists()


def test_more_keys_than_there_is_room_for_are_not_counted(counts: Callable[[], Counts]) -> None:
    own = counts()
    own.add([(f"key-{number}" * 50, 1) for number in range(10)])
    own.add([(f"{number}", 1) for number in range(2 * ENTRIES)])
    assert len(own.totals()) <= ENTRIES


@pytest.mark.parametrize("garbage", [b"", b"\xff" * SIZE, b"m9m-ct-1".ljust(SIZE, b"\xff")])
def test_garbage_counts_nothing_and_is_cleared_away(
    counts: Callable[[], Counts], path: Path, garbage: bytes
) -> None:
    own = counts()
    own.add([("a", 1)])
    (file,) = path.glob("*.counts")
    other = file.with_name(file.name[:-10] + "0.counts")
    other.write_bytes(garbage)
    assert own.totals() == {"a": 1}
    assert not other.exists()
    for past in ("", "[]", "{}", json.dumps({"counts": [], "folded": 7})):
        next(path.glob("*past.json")).write_text(past)
        assert own.totals() == {"a": 1}


def test_where_the_directory_is_not_safe_a_process_counts_alone(
    counts: Callable[[], Counts], path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()
    path.chmod(0o777)
    own = counts()
    own.add([("a", 1)])
    assert own.totals() == {"a": 1}
    assert not list(path.iterdir())
    assert len(caplog.records) == 1
    assert "this process counts alone" in caplog.text


def test_files_of_processes_that_nobody_asked_are_folded_as_others_start(
    counts: Callable[[], Counts], path: Path
) -> None:
    for _ in range(20):
        counts().add([("a", 1)])
    assert len(list(path.glob("*.counts"))) <= 2
    assert counts().totals() == {"a": 20}


def test_a_child_has_request_ids_of_its_own() -> None:
    request_id_of({}, False)  # so that some are ready
    childs = in_child(lambda: request_id_of({}, False))
    assert len(childs) == 32
    assert childs not in {request_id_of({}, False) for _ in range(300)}
