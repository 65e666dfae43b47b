"""`flask m9m credential import` and `export`."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys

import pytest

from .credentials import (
    INSTANCE_KEY,
    SAMPLES,
    VALUE,
    Kept,
    create,
    data_of,
    done,
    everything,
    failed,
    listed,
    write_export,
    write_key,
)


def test_both_of_n8ns_forms_are_imported_once(kept: Kept) -> None:
    arguments = write_export(kept)
    result = kept.m9m("credential", "import", *arguments, "--owner", "ann")
    assert result.returncode == 0, result.stderr
    assert result.stderr == "imported: 3, skipped: 0, unreadable: 0\n"
    for n, one in enumerate(SAMPLES):
        assert data_of(kept, f"id{n}") == json.loads(one["plaintext"])
    assert {(one["type"], one["owner"]) for one in listed(kept)} == {("githubApi", "ann")}
    again = json.loads(done(kept, "import", *arguments, "-o", "json"))
    assert [(one["result"], one["reason"]) for one in again] == [
        ("skipped", "a credential with this id exists already")
    ] * 3


def test_a_dry_run_says_of_each_what_would_be_and_changes_nothing(kept: Kept) -> None:
    more = [
        {"id": "bad", "name": "bad\x1b[2J", "type": "githubApi", "data": {"token": VALUE}},
        {"id": "worse", "name": "worse", "type": "githubApi", "data": "AAAA"},
    ]
    arguments = write_export(kept, *more)
    dry = kept.m9m("credential", "import", *arguments, "--dry-run")
    assert not (kept.path / "instance").exists()
    done(kept, "import", "-", "--from=m9m", stdin=json.dumps({**more[0], "id": "id0", "name": "x"}))
    before = everything(kept)
    again = kept.m9m("credential", "import", *arguments, "--dry-run")
    assert everything(kept) == before
    assert (dry.returncode, again.returncode) == (1, 1)
    assert dry.stderr == "to be imported: 3, skipped: 0, unreadable: 2\n"
    assert again.stderr == "to be imported: 2, skipped: 1, unreadable: 2\n"
    assert "\x1b" not in dry.stdout
    assert VALUE not in dry.stdout
    for line in (
        r"^to be imported +id1 .*githubApi$",
        r"^skipped +id0 .*exists already$",
        r"^unreadable +bad .*a credential's name must be",
        r"^unreadable +worse .*n8n: unknown form",
    ):
        assert re.search(line, again.stdout, re.MULTILINE), again.stdout


def test_the_unreadable_are_listed_and_the_others_imported(kept: Kept) -> None:
    arguments = write_export(kept, {"id": "bad", "name": "bad", "type": "x", "data": "AAAA"})
    result = kept.m9m("credential", "import", *arguments)
    assert result.returncode == 1
    assert "n8n: unknown form" in result.stdout
    assert len(listed(kept)) == 3
    kept.write("key", "wrong\n")
    assert kept.m9m("credential", "import", *arguments).stderr == (
        "imported: 0, skipped: 3, unreadable: 1\n"
    )


def test_a_wrong_key_imports_nothing(kept: Kept) -> None:
    arguments = write_export(kept)
    kept.write("key", "wrong\n")
    result = kept.m9m("credential", "import", *arguments)
    assert result.returncode == 1
    assert result.stderr == "imported: 0, skipped: 0, unreadable: 3\n"
    assert result.stdout.count("the instance key does not") == 3
    assert "data key '40e6070c-bc1e-4531-bd35-be50b1caefb3'" in result.stdout


def test_the_instance_key_comes_from_a_file_or_the_environment(kept: Kept) -> None:
    write_export(kept)
    plain = ["import", "export.json", "--from=n8n", "--deployment-keys=rows.json"]
    assert "N8N_ENCRYPTION_KEY" in failed(kept, *plain)
    write_key(kept, "wrong")
    assert kept.m9m(
        "credential", *plain, "--key-file=key", N8N_ENCRYPTION_KEY=INSTANCE_KEY
    ).stderr.startswith("imported: 0")
    assert len(json.loads(done(kept, *plain, "-o", "json", N8N_ENCRYPTION_KEY=INSTANCE_KEY))) == 3


def test_the_key_is_read_from_n8ns_own_config_too(kept: Kept) -> None:
    arguments = write_export(kept)
    kept.write("key", json.dumps({"encryptionKey": INSTANCE_KEY, "tunnelSubdomain": "x"}))
    assert "imported" in done(kept, "import", *arguments)
    for content in ("{}", '{"encryptionKey": 7}', '{"encryptionKey": ""}'):
        kept.write("key", content)
        assert "no instance key" in failed(kept, "import", *arguments)
    kept.write("key", "{a key that only looks so")
    done(kept, "export", "--to=n8n", "--key-file=key", "--output=out.json")
    again = done(kept, "import", "out.json", "--from=n8n", "--key-file=key", "-o", "json")
    assert {one["result"] for one in json.loads(again)} == {"skipped"}


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"test_key", 0o640, "other users can read"),
        (b"test_key", 0o604, "other users can read"),
        (b"\n", 0o600, "no instance key"),
        (b"\xff", 0o600, "no instance key"),
        (b"x" * 4_097, 0o600, "no instance key"),
        (None, 0o600, "No such file"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_key_file_that_is_none_or_open_to_others_is_refused(
    kept: Kept, content: bytes | None, mode: int, problem: str
) -> None:
    arguments = write_export(kept)
    (kept.path / "key").unlink()
    if content is not None:
        (kept.path / "key").write_bytes(content)
        (kept.path / "key").chmod(mode)
    assert problem in failed(kept, "import", *arguments)
    assert not (kept.path / "instance").exists()


def test_decrypted_exports_and_m9ms_come_by_standard_input_too(kept: Kept) -> None:
    record = {"id": "1", "name": "Slack", "type": "slackApi", "data": {"accessToken": "${HOME}"}}
    for source in ("n8n", "m9m"):
        record["id"] = source
        done(kept, "import", "-", "--from", source, stdin=json.dumps([record]))
        assert data_of(kept, source) == {"accessToken": "${HOME}"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "'export.json' is not JSON (line 1, column 1)"),
        (f'[{{"x": {VALUE}}}]', "'export.json' is not JSON (line 1, column 8)"),
        ('"app.py"', "an array of records, or a single record"),
        ("[" * 100_000, "out of range, or the nesting too deep"),
        (None, "'export.json': No such file or directory"),
    ],
)
def test_a_file_that_is_no_export_is_refused(kept: Kept, content: str | None, problem: str) -> None:
    if content is not None:
        kept.write("export.json", content)
    assert problem in failed(kept, "import", "export.json", "--from", "n8n")
    assert not (kept.path / "instance").exists()


def test_rows_that_are_no_data_keys_are_refused(kept: Kept) -> None:
    arguments = write_export(kept)
    kept.write("rows.json", '[{"id": "x"}]')
    assert "deployment_keys must be rows of" in failed(kept, "import", *arguments)
    kept.write("rows.json", "{")
    assert "'rows.json' is not JSON" in failed(kept, "import", *arguments)


# Exports


def test_what_is_exported_is_read_again(kept: Kept) -> None:
    done(kept, "import", *write_export(kept))
    mine = create(kept, "mine")
    printed = done(kept, "export", "--to=n8n", "--key-file=key")
    result = kept.m9m("credential", "export", "--to=n8n", "--key-file=key", "--output=out.json")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "wrote 4 credentials to 'out.json'\n"
    assert stat.S_IMODE((kept.path / "out.json").stat().st_mode) == 0o600
    text = (kept.path / "out.json").read_text()
    assert VALUE not in text + printed
    assert [one["id"] for one in json.loads(text)] == [one["id"] for one in json.loads(printed)]
    for one in listed(kept):
        done(kept, "delete", one["id"])
    done(kept, "import", "out.json", "--from=n8n", "--key-file=key", "--dry-run")
    assert listed(kept) == []
    done(kept, "import", "out.json", "--from=n8n", "--key-file=key")
    assert data_of(kept, mine) == {"apiKey": VALUE}
    assert data_of(kept, "id0") == json.loads(SAMPLES[0]["plaintext"])


def test_an_export_overwrites_nothing_and_follows_no_link(kept: Kept) -> None:
    create(kept)
    kept.write("there.json", "mine")
    (kept.path / "link.json").symlink_to("elsewhere.json")
    (kept.path / "other.json").symlink_to("there.json")
    for name, why in (
        ("there.json", "File exists"),
        ("link.json", "File exists"),
        ("other.json", "File exists"),
        ("none/out.json", "No such file or directory"),
        (".", "File exists"),
    ):
        error = failed(kept, "export", "--to=n8n", f"--output={name}", N8N_ENCRYPTION_KEY="k")
        assert error == f"Error: {name!r}: {why}\n"
    assert (kept.path / "there.json").read_text() == "mine"
    assert not (kept.path / "elsewhere.json").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_told(kept: Kept) -> None:
    create(kept)
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "flask", "m9m", "credential", "export", "--to=n8n"],
            cwd=kept.path,
            env=kept.environ(N8N_ENCRYPTION_KEY="k"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (result.returncode, result.stderr) == (1, "Error: No space left on device\n")


@pytest.mark.skipif(sys.platform != "linux", reason="bash counts otherwise elsewhere")
def test_a_file_that_could_not_be_written_whole_is_removed(kept: Kept) -> None:
    records = [
        {"id": str(n), "name": "x", "type": "githubApi", "data": {"x": "y" * 2_000}}
        for n in range(100)
    ]
    done(kept, "import", "-", "--from=m9m", stdin=json.dumps(records))
    export = f"{sys.executable} -m flask m9m credential export --to=n8n --output=out.json"
    result = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; ulimit -f 150; {export}"],
        cwd=kept.path,
        env=kept.environ(N8N_ENCRYPTION_KEY="k"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (1, "Error: 'out.json': File too large\n")
    assert not (kept.path / "out.json").exists()
