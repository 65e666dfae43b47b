"""`flask m9m credential` in processes of its own, with pipes and at terminals."""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .credentials import (
    DATA,
    INSTANCE_KEY,
    VALUE,
    Kept,
    create,
    data_of,
    database,
    done,
    listed,
    new_key,
    use_keys,
    write_export,
)

TERMINAL = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")


def test_a_process_reads_what_another_wrote(kept: Kept) -> None:
    made = kept.run("m9m", "credential", "create", "x", "--type=apiKey", stdin=DATA)
    assert made.returncode == 0, made.stderr
    shown = kept.run("m9m", "credential", "get", made.stdout.split()[1], "--show", "-o", "json")
    assert json.loads(shown.stdout)["data"] == {"apiKey": VALUE}
    refused = kept.run("m9m", "credential", "get", "none")
    assert (refused.returncode, refused.stderr) == (
        1,
        "Error: no credential has that id: see flask m9m credential list\n",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
def test_an_import_that_is_killed_leaves_whole_records_and_goes_on(kept: Kept) -> None:
    records = [
        {"id": str(n), "name": "x", "type": "githubApi", "data": {"n": n}} for n in range(5_000)
    ]
    kept.write("big.json", json.dumps(records))
    importing = ["import", "big.json", "--from=m9m"]
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "m9m", "credential", *importing],
        cwd=kept.path,
        env=kept.environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not count(kept) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    there = count(kept)
    assert there
    assert kept.m9m("credential", *importing).stderr == (
        f"imported: {5_000 - there}, skipped: {there}, unreadable: 0\n"
    )
    assert data_of(kept, "4999") == {"n": 4_999}
    assert json.loads(done(kept, "rotate", "--dry-run").splitlines()[0].split()[-1]) == 0


def count(kept: Kept) -> int:
    """Return how many credentials are there, none where there is no table yet."""
    if not (kept.path / "instance" / "m9m" / "m9m.db").exists():
        return 0
    connection = database(kept)
    try:
        return int(connection.execute("SELECT count(*) FROM m9m_credentials").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows closes pipes otherwise")
def test_a_closed_pipe_gives_no_traceback(kept: Kept) -> None:
    records = [
        {"id": str(n), "name": "n" * 200, "type": "githubApi", "data": {}} for n in range(500)
    ]
    kept.write("big.json", json.dumps(records))
    read, write = os.pipe()
    os.close(read)
    for command in (
        ["import", "big.json", "--from=n8n"],
        ["list"],
        ["list", "-o", "yaml"],
        ["get", "1", "--show"],
        ["rotate"],
        ["export", "--to=n8n"],
    ):
        result = subprocess.run(
            [sys.executable, "-m", "flask", "m9m", "credential", *command],
            cwd=kept.path,
            env=kept.environ(N8N_ENCRYPTION_KEY="k"),
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in result.stderr
        assert "Exception" not in result.stderr
    os.close(write)
    assert len(listed(kept)) == 500


@contextmanager
def terminal(folder: Kept, arguments: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a command at a terminal; give its process and the terminal's other side."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "m9m", "credential", *arguments],
        cwd=folder.path,
        env=folder.environ(TERM="xterm"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield process, master
    finally:
        process.kill()
        process.wait()
        os.close(master)


def at_a_terminal(folder: Kept, arguments: list[str], answers: dict[str, str]) -> tuple[int, str]:
    """Run a command, answer what it asks, and return how it ends and what is to be read."""
    printed = ""
    with terminal(folder, arguments) as (process, master):
        for question, answer in answers.items():
            printed += read_until(master, question)
            os.write(master, answer.encode() + b"\n")
        printed += read_until(master, None)
        return process.wait(30), printed


def read_until(descriptor: int, end: str | None) -> str:
    """Read until something was printed, or everything where `end` is `None`."""
    printed, deadline = "", time.monotonic() + 30
    while end is None or end not in printed:
        assert select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0], printed
        try:
            more = os.read(descriptor, 4_096)
        except OSError:  # how Linux tells that the other side is gone
            break
        if not more:
            break
        printed += more.decode()
    return printed


@TERMINAL
def test_a_terminal_is_asked_for_each_field_and_shows_none(kept: Kept) -> None:
    answers = {"username: ": "ann", "password: ": VALUE}
    code, printed = at_a_terminal(kept, ["create", "x", "--type", "basicAuth"], answers)
    assert code == 0, printed
    made = printed.split("created ")[1].strip()
    assert VALUE not in printed
    assert data_of(kept, made) == {"username": "ann", "password": VALUE}
    code, printed = at_a_terminal(kept, ["update", made], {"username: ": "b", "password: ": "c"})
    assert code == 0, printed
    assert data_of(kept, made) == {"username": "b", "password": "c"}


@TERMINAL
def test_a_terminal_is_asked_for_the_instance_key_and_shows_none(kept: Kept) -> None:
    write_export(kept)
    arguments = ["import", "export.json", "--from=n8n", "--deployment-keys=rows.json"]
    code, printed = at_a_terminal(kept, arguments, {"Instance key of n8n: ": INSTANCE_KEY})
    assert code == 0, printed
    assert "imported: 3, skipped: 0, unreadable: 0" in printed
    assert INSTANCE_KEY not in printed
    code, printed = at_a_terminal(
        kept,
        ["export", "--to=n8n", "--output=out.json"],
        {"Instance key of n8n: ": INSTANCE_KEY, "Repeat for confirmation: ": INSTANCE_KEY},
    )
    assert code == 0, printed
    assert INSTANCE_KEY not in printed
    assert len(json.loads((kept.path / "out.json").read_text())) == 3
    code, printed = at_a_terminal(kept, ["update", "id0"], {})
    assert (code, "the type githubApi requires no fields" in printed) == (1, True)


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Have children heed interrupts, which a shell in the background has all of its own ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@TERMINAL
@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_at_a_prompt_ends_quietly(kept: Kept) -> None:
    with terminal(kept, ["create", "x", "--type", "basicAuth"]) as (process, master):
        read_until(master, "username: ")
        process.send_signal(signal.SIGINT)
        printed = read_until(master, None)
        assert process.wait(30) == 1
    assert "Aborted!" in printed
    assert "Traceback" not in printed
    assert not (kept.path / "instance").exists()


@TERMINAL
def test_a_terminal_sees_how_far_a_rotation_is(kept: Kept, key: str) -> None:
    create(kept)
    use_keys(kept, new_key(), key)
    code, printed = at_a_terminal(kept, ["rotate"], {})
    assert code == 0, printed
    assert "re-encrypting" in printed
    assert "100%" in printed
    assert "re-encrypting" not in kept.m9m("credential", "rotate").stderr
